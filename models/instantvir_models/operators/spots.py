"""Simulated dust, hairs and scratches of film: what is on one frame and not on the next."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
"""[T, H, W, 3]."""


@dataclass(frozen=True)
class Dusty:
    """Frames with spots on them."""

    frames: Frames
    is_spot: NDArray[np.bool_]
    """[T, H, W], True where something lies on the picture."""


def dusty(frames: Frames, rng: np.random.Generator, *, spots_per_frame: float = 8) -> Dusty:
    """Frames with bright and dark specks, 1 to 5 pixels in radius, and now and then a hair.

    Args:
        spots_per_frame: the mean of their number (Poisson); one in six is a hair.
    """
    pairs = [_dusty_frame(frame, rng, int(rng.poisson(spots_per_frame))) for frame in frames]
    return Dusty(np.stack([frame for frame, _ in pairs]), np.stack([spots for _, spots in pairs]))


def _dusty_frame(
    frame: NDArray[np.uint8], rng: np.random.Generator, count: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    picture = frame.astype(np.float32)
    is_spot = np.zeros(frame.shape[:2], np.bool_)
    for _ in range(count):
        cover = (
            _hair(frame.shape[:2], rng) if rng.random() < 1 / 6 else _speck(frame.shape[:2], rng)
        )
        level = rng.uniform(200, 255) if rng.random() < 0.6 else rng.uniform(0, 40)
        opacity = cover * np.float32(rng.uniform(0.7, 1))
        picture += opacity[..., None] * (np.float32(level) - picture)
        is_spot |= cover > 0.5
    return np.rint(picture).clip(0, 255).astype(np.uint8), is_spot


def _speck(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """How far each pixel is covered by a blob of no particular shape."""
    height, width = size
    center = np.array([rng.uniform(0, width), rng.uniform(0, height)])
    radius = np.exp(rng.uniform(0, np.log(5)))
    angles = np.linspace(0, 2 * np.pi, 9)[:-1]
    radii = radius * rng.uniform(0.6, 1.3, len(angles))
    corners = center + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    return _drawn(size, lambda canvas: cv2.fillPoly(canvas, [_fixed(corners)], 1.0, cv2.LINE_8, 3))


def _hair(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """How far each pixel is covered by a curved line of 8 to 30 pixels."""
    height, width = size
    steps = int(rng.uniform(8, 30))
    turn = np.cumsum(rng.normal(0, 0.15, steps)) + rng.uniform(0, 2 * np.pi)
    start = np.array([rng.uniform(0, width), rng.uniform(0, height)])
    points = start + np.cumsum(np.stack([np.cos(turn), np.sin(turn)], 1), 0)
    return _drawn(
        size, lambda canvas: cv2.polylines(canvas, [_fixed(points)], False, 1.0, 1, cv2.LINE_8, 3)
    )


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """Points in eighths of a pixel, as OpenCV draws them with a shift of 3."""
    return np.rint(points * 8).astype(np.int32)


def _drawn(size: tuple[int, int], draw) -> NDArray[np.float32]:  # type: ignore[no-untyped-def]
    canvas = np.zeros(size, np.float32)
    draw(canvas)
    return cv2.GaussianBlur(canvas, (3, 3), 0.6)  # type: ignore[return-value]
