"""`--threads`: torch, OpenCV and FFmpeg share the cores."""

import cv2
import torch

from instantvir_models.cpu import cores, keep_freed_memory
from instantvir_models.errors import UsageError


def use_threads(threads: int | None) -> None:
    """Give torch the cores, and leave OpenCV one thread: it works inside torch's pauses."""
    if threads is not None and not 1 <= threads <= 256:
        raise UsageError(f"`--threads` is {threads}; it is a number from 1 to 256")
    keep_freed_memory()
    torch.set_num_threads(threads or cores())
    cv2.setNumThreads(1)
