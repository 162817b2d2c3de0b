"""Frames of any size and depth made to fit an output that was opened for one."""

from typing import cast

import cv2
import numpy as np

from instantvir_models.media.frame import Pixels


def fitted(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """The whole picture, [*size, 3], in its own proportions with black bars where it has others.

    Args:
        pixels: [H, W, 3].
        size: (height, width) wanted; frames of that size come back as they are.
    """
    height, width = pixels.shape[:2]
    if (height, width) == size:
        return pixels
    scale = min(size[0] / height, size[1] / width)
    inner = (max(1, round(height * scale)), max(1, round(width * scale)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = cv2.resize(pixels, inner[::-1], interpolation=interpolation)
    if inner == size:
        return cast(Pixels, scaled)
    framed = np.zeros((*size, 3), pixels.dtype)
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    framed[top : top + inner[0], left : left + inner[1]] = scaled
    return cast(Pixels, framed)


def blended(measured: Pixels, restored: Pixels, strength: float) -> Pixels:
    """`strength` of the restored frame over the measured one, at the restored frame's size."""
    if strength == 1:
        return restored
    below = fitted(measured, (restored.shape[0], restored.shape[1]))
    if strength == 0:
        return below
    return cast(Pixels, cv2.addWeighted(restored, strength, below, 1 - strength, 0))
