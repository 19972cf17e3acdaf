"""Networks and tokenizers from files, in the forms in which they are stored.

Hugging Face's format (plain, or quantised for one of transformers' quantisers), a GGUF file, the
directory of an adapter (LoRA), or a vision-language checkpoint, of which the language model is
taken. What cannot be read is named in one line.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from transformers.utils import cached_file, find_adapter_config_file

logger = logging.getLogger(__name__)

_PACKAGES = {
    "aqlm": "aqlm accelerate",
    "auto-round": "auto-round",
    "awq": "gptqmodel optimum",
    "bitsandbytes": "bitsandbytes accelerate",
    "compressed-tensors": "compressed-tensors",
    "eetq": "kernels accelerate",
    "fbgemm_fp8": "fbgemm-gpu accelerate",
    "fp8": "accelerate",
    "gguf": "gguf accelerate",
    "gptq": "gptqmodel optimum",
    "higgs": "fast_hadamard_transform accelerate",
    "hqq": "hqq accelerate",
    "mxfp4": "kernels accelerate",
    "quanto": "optimum-quanto accelerate",
    "quark": "amd-quark",
    "spqr": "spqr_quant accelerate",
    "torchao": "torchao accelerate",
    "vptq": "vptq accelerate",
}
"""Packages that read quantised weights, by `quant_method`."""


class StoredModel:
    """A model's files: its configuration, and what loads its network and tokenizer.

    Args:
        source: a directory, an id on the Hugging Face hub, or a GGUF file in one of these.
        trust_remote_code: run the code that the directory or the hub's repository holds.

    Attributes:
        config: the configuration of transformers.

    Raises:
        OSError: nothing is there.
        ValueError: transformers has no such model, or cannot read the form in which it is stored.
        ImportError: an adapter, and the package peft is not installed.
    """

    def __init__(self, source: str, trust_remote_code: bool = False) -> None:
        self._source = source
        self._options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
        self._file: str | None = None
        if source.endswith(".gguf"):
            directory, self._file = os.path.split(source)
            self._source = directory or "."
            self._options["gguf_file"] = self._file
        self._base = self._base_of_adapter()
        if self._base is not None:
            self.config: Any = self._base.config
            return
        if self._file is None:
            self._check_form()
        try:
            with _needs("gguf" if self._file else None):
                self.config = transformers.AutoConfig.from_pretrained(self._source, **self._options)
        except struct.error as error:
            raise ValueError(f"{self._file} is no GGUF file") from error
        stated = getattr(self.config, "quantization_config", None) or {}
        if not isinstance(stated, dict):
            stated = stated.to_dict()
        method = stated.get("quant_method")
        self._method = None if method is None else str(getattr(method, "value", method))

    def network(
        self, kind: str, dtype: torch.dtype, device: str, **options: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Load the network.

        Args:
            kind: one of transformers' `Auto` classes. For a causal language model, a
                vision-language model is read as well, and only its language model is kept.
            dtype: of the weights; those of quantised ones are the quantiser's.
            device: where quantised weights are unpacked; all others are loaded to the CPU.
            options: other arguments of the network's `from_pretrained`.

        Returns:
            The network, and transformers' report on missing and mismatched weights.

        Raises:
            ValueError: there is no such network in the files, or they are broken.
            ImportError: a package that reads these weights is not installed.
        """
        if self._base is not None:
            network, info = self._base.network(kind, dtype, device, **options)
            return self._merge_adapter(network), info
        kind = self._loaded_class(kind)
        if self._file is not None:
            logger.info("the weights of %s are dequantised to %s", self._file, dtype)
        elif self._method is not None and device != "cpu":
            options["device_map"] = device
        try:
            with _needs(self._method):
                network, info = getattr(transformers, kind).from_pretrained(
                    self._source,
                    dtype=dtype,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # refused by name
                    **self._options,
                    **options,
                )
        except SafetensorError as error:
            raise ValueError(f"{self._broken_file()} is broken: {error}") from error
        if self._file is not None:  # its weights are plain now, and can be saved
            del network.config.quantization_config
            network.hf_quantizer, network.is_quantized = None, False
        _free_towers(network)
        return network, info

    def tokenizer(self) -> Any:
        """Load the tokenizer.

        Raises:
            ValueError: there is none that transformers can read.
        """
        if self._base is not None and not self._has("tokenizer_config.json"):
            return self._base.tokenizer()
        try:
            return transformers.AutoTokenizer.from_pretrained(
                self._source, clean_up_tokenization_spaces=False, **self._options
            )
        except Exception as error:
            if "trust_remote_code" in str(error):
                raise
            raise ValueError(
                f"there is no tokenizer that transformers can read, such as tokenizer.json "
                f"({type(error).__name__})"
            ) from error

    def _base_of_adapter(self) -> StoredModel | None:
        """Return the model that an adapter's directory belongs to; None if it is no adapter."""
        file = None if self._file else find_adapter_config_file(self._source)
        if file is None:
            return None
        if importlib.util.find_spec("peft") is None:
            raise ImportError("an adapter (LoRA) needs the package peft: pip install peft")
        base = json.loads(Path(file).read_text()).get("base_model_name_or_path")
        if not base:
            raise ValueError("adapter_config.json has no base_model_name_or_path")
        return StoredModel(base, self._options["trust_remote_code"])

    def _merge_adapter(self, network: Any) -> Any:
        """Add the adapter to the weights of its base model."""
        import peft

        with warnings.catch_warnings():
            # Weights that the file lacks would be random; peft only warns.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            adapted = peft.PeftModel.from_pretrained(
                network, self._source, torch_device=str(network.device)
            )
        if not hasattr(adapted.base_model, "merge_and_unload"):
            kind = type(adapted.active_peft_config).__name__
            raise ValueError(f"an adapter of {kind} cannot be merged into the weights")
        logger.info("the adapter %s is merged into the weights", self._source)
        return adapted.merge_and_unload()

    def _check_form(self) -> None:
        """Check that transformers reads what `config.json` states.

        Raises:
            ValueError: it does not.
        """
        directory = Path(self._source)
        if directory.is_dir() and not (directory / "config.json").exists():
            weights = sorted(file.name for file in directory.glob("*.gguf"))
            named = f"; name its GGUF file, as .../{weights[0]}" if weights else ""
            raise ValueError(f"the directory has no config.json{named}")
        stated, _ = transformers.PreTrainedConfig.get_config_dict(self._source)
        method = stated.get("quantization_config", {}).get("quant_method")
        if "quantization" in stated and method is None:
            raise ValueError("its weights are quantised by MLX: use a checkpoint that is not")
        if method is not None:
            _check_method(method)
        kind = stated.get("model_type")
        if kind and kind not in transformers.CONFIG_MAPPING and "auto_map" not in stated:
            raise ValueError(
                f"transformers {transformers.__version__} has no model_type {kind!r}; a newer "
                "version may have it"
            )

    def _loaded_class(self, kind: str) -> str:
        """Return the `Auto` class that has the configuration, for a network of one `kind`.

        Raises:
            ValueError: the network is no causal language model, and `kind` asks for one.
        """
        if kind != "AutoModelForCausalLM":
            return kind
        name = (self.config.architectures or [type(self.config).__name__])[0]
        if self.config.get_text_config().is_encoder_decoder:
            raise ValueError(f"{name} is an encoder-decoder; a decoder alone is needed")
        own_code = getattr(self.config, "auto_map", None) or {}
        if type(self.config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING or kind in own_code:
            return kind
        if type(self.config) in transformers.MODEL_FOR_MULTIMODAL_LM_MAPPING:
            return "AutoModelForMultimodalLM"
        raise ValueError(f"{name} is no causal language model")

    def _has(self, file: str) -> bool:
        found = cached_file(
            self._source,
            file,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        return found is not None

    def _broken_file(self) -> str:
        """Return the name of the safetensors file that cannot be opened."""
        config = cached_file(self._source, "config.json")
        for file in sorted(Path(config).parent.glob("*.safetensors")):
            try:
                with safe_open(file, "pt"):
                    pass
            except SafetensorError:
                return file.name
        return "a safetensors file"


def _check_method(method: str) -> None:
    """Check that transformers has a quantiser of this name.

    Raises:
        ValueError: it has none.
    """
    # Imported here: it imports the packages of all quantisers that are installed.
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    if method not in (*AUTO_QUANTIZATION_CONFIG_MAPPING, "bitsandbytes"):
        raise ValueError(f"its weights are quantised by {method!r}, unknown to transformers")


def _free_towers(network: Any) -> None:
    """Free the weights of the parts of a multimodal network that read no text (vision, audio)."""
    if network.config.get_text_config() is network.config:
        return
    decoder = network.get_decoder()
    ends = (network.get_input_embeddings(), network.get_output_embeddings())
    kept = {id(weight) for part in (decoder, *ends) for weight in part.parameters()}
    inside = set(decoder.modules())
    for name, part in network.named_modules():
        is_model = isinstance(part, transformers.PreTrainedModel)
        if is_model and part not in inside and decoder not in set(part.modules()):
            logger.info("%s of %s is left out: prompts are text", name, type(network).__name__)
            for weight in part.parameters():
                if id(weight) not in kept:
                    weight.data = weight.data.new_empty(0)


@contextmanager
def _needs(method: str | None) -> Iterator[None]:
    """Name the packages of a `quant_method` where transformers raises an ImportError."""
    try:
        yield
    except ImportError as error:
        if method not in _PACKAGES:
            raise
        raise ImportError(
            f"its weights are quantised by {method}: pip install -U {_PACKAGES[method]}"
        ) from error
