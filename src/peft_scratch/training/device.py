"""What the hardware offers: memory and precision; and how freed memory is kept."""

from __future__ import annotations

import ctypes
from contextlib import suppress

import psutil
import torch

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def bfloat16_on_cpu() -> bool:
    """Whether the processor computes bfloat16 in hardware; otherwise bfloat16 is slower than float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def precision_of() -> tuple[torch.dtype, str]:
    """The fastest type that is accurate enough here, and a phrase that says why.

    bfloat16 is chosen only where it is computed in hardware: `torch.cuda.is_bf16_supported` is also true on a
    T4 (compute capability 7.5), which emulates it; its float16 is eight times as fast as its float32.
    Before 7.0, float16 is no faster, or slower.
    """
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        if major >= 8:
            return torch.bfloat16, f"bfloat16, which compute capability {major}.{minor} has in hardware"
        if major == 7:
            why = f"since compute capability {major}.{minor} has no bfloat16"
            return torch.float16, f"float16 with a loss scale, {why}; float32 if that fails"
        return torch.float32, f"float32, since compute capability {major}.{minor} has no faster type"
    if bfloat16_on_cpu():
        return torch.bfloat16, "bfloat16, which the processor has in hardware"
    return torch.float32, "float32, since the processor has no bfloat16"


def memory_of(device: torch.device) -> int:
    """The memory that training on `device` can use at most, in bytes: the GPU's own, or the machine's."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return psutil.virtual_memory().total


def keep_freed_memory() -> None:
    """Make the C library keep the memory that a step frees for the next step, until the process ends.

    By default glibc returns large blocks to the kernel, which hands them out again page by page, each
    cleared: hundreds of thousands of pages per training step on a CPU. Other C libraries are not changed.
    """
    with suppress(AttributeError, OSError, TypeError):  # no glibc; on Windows there is no library `None`
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
