"""A picture of what was found: the frame, what changes in it, how noisy it is where, and its blocks."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from instantvir_models.diagnosis.sample import Sample
from instantvir_models.diagnosis.traces import PATCH, flat_map, luma_of, moved
from instantvir_models.outputs.claim import write_whole

Picture = NDArray[np.uint8]

MOST_GAIN = 8
"""What is left of a frame less its neighbour is shown at most this much larger."""

SHOWN_SPREAD = 40.0
"""Levels of its spread in the picture, so that neither black nor white cuts it off."""

LOUDEST = 12.0
"""Levels of noise that are shown brightest."""

COARSEST = 96.0
"""Quantiser step that is shown brightest."""

MACROBLOCK = 16

LARGEST_PANEL = 640
"""Width in pixels of a panel."""


def drawn(sample: Sample) -> Picture:
    """[H, W, 3] uint8 RGB: two rows of two panels with their names."""
    scale = np.float32(1 if sample.frames.dtype == np.uint8 else 257)
    levels = sample.frames.astype(np.float32) / scale
    last = levels[-1]
    left = _residual(levels)
    gain = max(1, min(MOST_GAIN, round(SHOWN_SPREAD / max(float(left.std()), 1.0))))
    panels = (
        ("frame", last),
        (f"less the frame before, times {gain}", 128 + gain * left),
        (f"noise and fine detail, up to {LOUDEST:.0f} levels", _noise_map(last)),
        (f"quantiser steps, up to {COARSEST:.0f} levels", _blocks(sample)),
    )
    shown = [_labelled(_sized(panel), name) for name, panel in panels]
    return np.vstack([np.hstack(shown[:2]), np.hstack(shown[2:])])


def save_picture(picture: Picture, path: Path, *, may_replace: bool = True) -> None:
    """Write it as a PNG.

    Raises:
        UsageError: if the file exists and may not be replaced.
        VideoWriteError: if it cannot be written.
    """
    _, data = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))
    write_whole(path, data.tobytes(), may_replace=may_replace)


def _residual(levels: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the last frame shows that the one before, moved, does not; nothing of a single frame."""
    if len(levels) < 2:
        return np.zeros_like(levels[-1])
    return levels[-1] - moved(levels[-2], levels[-1])


def _noise_map(frame: NDArray[np.float32]) -> NDArray[np.float32]:
    return _heat(flat_map(luma_of(frame)) / LOUDEST, frame.shape[:2])


def _blocks(sample: Sample) -> NDArray[np.float32]:
    """Steps of the last frame that tells them; black where nothing is told."""
    height, width = sample.frames.shape[1:3]
    steps = next((c.steps for c in reversed(sample.codings) if c and c.steps is not None), None)
    rows, columns = -(-height // MACROBLOCK), -(-width // MACROBLOCK)
    if steps is None:
        return np.zeros((height, width, 3), np.float32)
    grid = steps if len(steps) == rows * columns else np.full(rows * columns, steps.mean())
    return _heat(grid.reshape(rows, columns) / COARSEST, (height, width))


def _heat(values: NDArray[np.floating], size: tuple[int, ...]) -> NDArray[np.float32]:
    """Values 0 to 1 as colours, at a size (rows, columns)."""
    levels = (255 * np.clip(values, 0, 1)).astype(np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1]
    nearest = cv2.INTER_NEAREST
    return cv2.resize(colours, (size[1], size[0]), interpolation=nearest).astype(np.float32)


def _sized(panel: NDArray[np.float32]) -> Picture:
    pixels = panel.clip(0, 255).astype(np.uint8)
    factor = min(1.0, LARGEST_PANEL / panel.shape[1])
    shown = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return np.asarray(shown, np.uint8)


def _labelled(panel: Picture, name: str) -> Picture:
    strip = np.full((2 * PATCH + 4, panel.shape[1], 3), 24, np.uint8)
    cv2.putText(strip, name, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (235,) * 3, 1, cv2.LINE_AA)
    return np.vstack([strip, panel])
