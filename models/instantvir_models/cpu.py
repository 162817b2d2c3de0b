"""What this CPU is good at, and how to keep out of its way."""

import ctypes
import os
import sys

import cv2
import torch

from instantvir_models.errors import UsageError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20
"""glibc refuses more than this on 64-bit machines."""


def fastest_dtype(device_type: str = "cpu") -> torch.dtype:
    """bfloat16 on cards, and where this CPU multiplies in it, else float32 (emulated, it is five
    times slower)."""
    if device_type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device_type != "cpu":
        return torch.float32
    has_bfloat16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if has_bfloat16 else torch.float32


def use_threads(threads: int | None) -> None:
    """Give torch the cores, and leave OpenCV one thread: it works inside torch's pauses.

    Raises:
        UsageError: for a number that cannot be.
    """
    if threads is not None and not 1 <= threads <= 256:
        raise UsageError(f"`--threads` is {threads}; it is a number from 1 to 256")
    keep_freed_memory()
    torch.set_num_threads(threads or cores())
    cv2.setNumThreads(1)


def keep_freed_memory() -> None:
    """Let the C allocator reuse feature maps instead of returning them to the system each time.

    By default glibc maps fresh, zeroed pages for every buffer of a few megabytes; on a student's
    feature maps that costs up to a quarter of the time. Does nothing on other C libraries.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, 2**30)


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
