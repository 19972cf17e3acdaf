"""What `auto` means for a model: the device, the data type and the kernels that suit the machine.

A GPU is described by a few facts (`Gpu`), so that the choices can be tested without one.
"""

from __future__ import annotations

import gc
import importlib.util
import logging
import re
from pathlib import Path
from typing import NamedTuple

import torch

AUTO = "auto"
"""The value of a key that leaves the choice to the program."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

logger = logging.getLogger(__name__)


class Gpu(NamedTuple):
    """What the choices need to know of a GPU.

    Attributes:
        capability: its compute capability.
        is_nvidia: whether it is NVIDIA's; PyTorch calls AMD's GPUs `cuda` as well.
        has_triton: whether Triton is installed.
    """

    capability: tuple[int, int]
    is_nvidia: bool = True
    has_triton: bool = True

    @property
    def has_bfloat16(self) -> bool:
        """Whether it computes in bfloat16: an A100 or RTX 30 and later ones do."""
        return self.capability >= (8, 0)

    @property
    def runs_kernels(self) -> bool:
        """Whether our kernels run on it."""
        return self.is_nvidia and self.has_triton and self.capability >= (8, 0)


def gpu_of(device: torch.device | str) -> Gpu | None:
    """Describe a device of PyTorch; None if it is no GPU of type `cuda`."""
    device = torch.device(device)
    if device.type != "cuda":
        return None
    return Gpu(
        torch.cuda.get_device_capability(device),
        is_nvidia=torch.version.hip is None,
        has_triton=importlib.util.find_spec("triton") is not None,
    )


def has_gpu() -> bool:
    """Whether there is a GPU of type `cuda` for which this PyTorch has kernels."""
    if not torch.cuda.is_available():
        return False
    built_for = [re.match(r"sm_(\d+)", name) for name in torch.cuda.get_arch_list()]
    oldest = min((int(match[1]) for match in built_for if match), default=0)
    major, minor = torch.cuda.get_device_capability()
    if 10 * major + minor >= oldest:
        return True
    logger.warning(
        "this PyTorch has no kernels for %s (capability %d.%d), so device=auto is the CPU",
        *(torch.cuda.get_device_name(), major, minor),
    )
    return False


def choose_device(key: str, device: str) -> str:
    """Return the device to run on: for `auto` a GPU if there is one, else the CPU.

    Args:
        key: of the configuration, for the message.
        device: `auto`, or a device of PyTorch.

    Raises:
        ValueError: there is no such device.
    """
    if device == AUTO:
        return "cuda" if has_gpu() else "cpu"
    check_device(key, device)
    return device


def check_device(key: str, device: str) -> None:
    """Check that a device exists.

    Args:
        key: of the configuration, for the message.
        device: a device of PyTorch.

    Raises:
        ValueError: it does not.
    """
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"{key}={device!r}: PyTorch sees no CUDA device here")
    try:
        torch.empty(0, device=torch.device(device))
    except (AssertionError, NotImplementedError, RuntimeError, TypeError) as error:
        count = torch.cuda.device_count()
        known = ["auto", "cpu", *(["cuda"] if count else []), *(f"cuda:{i}" for i in range(count))]
        raise ValueError(f"{key}={device!r} is not one of {', '.join(known)}") from error


def check_dtype(key: str, dtype: str) -> None:
    """Check the name of a data type.

    Raises:
        ValueError: it is neither `auto` nor one of `DTYPES`.
    """
    if dtype not in (AUTO, *DTYPES):
        raise ValueError(f"{key}={dtype!r} is not one of {', '.join([AUTO, *sorted(DTYPES)])}")


def choose_dtype(stored: torch.dtype | None, gpu: Gpu | None) -> str:
    """Return the data type that `auto` means, as vLLM chooses it.

    A CPU computes in float32, in which replies hardly depend on the batch. A GPU computes in the
    type of the weights. Weights in float32 are rounded to 16 bits there: to bfloat16, or to float16
    where the GPU has no bfloat16.

    Args:
        stored: type of the weights; None if it is not known.
        gpu: where the model runs; None is a CPU.
    """
    if gpu is None:
        return "float32"
    if stored == torch.float16:
        return "float16"
    return "bfloat16" if gpu.has_bfloat16 else "float16"


def free_memory(device: torch.device | str) -> int | None:
    """Return the bytes of a device's memory that are free; None if they are not known.

    On a GPU, memory that nothing uses any more is given back first.
    """
    device = torch.device(device)
    if device.type == "cuda":
        gc.collect()  # engines of earlier runs
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(s.split()[1]) for s in lines if s.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):  # not Linux
        return None


def gib(num_bytes: float) -> str:
    """Write a number of bytes in GiB."""
    return f"{num_bytes / 2**30:,.1f} GiB"
