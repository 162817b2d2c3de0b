"""A few frames of a video, as those see them who read unknown parameters off it."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Confidence = Literal["high", "medium", "low"]
Frames = NDArray[np.uint8] | NDArray[np.uint16]
"""[T, h, w, 3], a dozen or fewer."""


def as_levels(frames: Frames) -> NDArray[np.float32]:
    """float32 levels 0..255."""
    if frames.dtype == np.uint8:
        return frames.astype(np.float32)
    return frames.astype(np.float32) / np.float32(257)


def luma_of(levels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rec. 601 luma [..., h, w] of [..., h, w, 3], in the same units."""
    return levels @ np.array([0.299, 0.587, 0.114], np.float32)
