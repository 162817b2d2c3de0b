"""A video to measure with where none is given."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instantvir_models.media import EncoderSettings, Frame, create_video
from instantvir_models.speed.plan import SpeedPlan, parse_size


def generated_clip(folder: Path, plan: SpeedPlan) -> Path:
    """A moving texture as an H.264 file, so that decoding is real; made once for each size."""
    width, height = parse_size(plan.size)
    path = folder / f"generated-{plan.size}-{plan.frames}.mp4"
    if path.exists():
        return path
    with create_video(
        path, width=width, height=height, settings=EncoderSettings(), frame_rate=25
    ) as writer:
        for frame in _moving_texture(width, height, plan.frames):
            writer.write(frame)
    return path


def _moving_texture(width: int, height: int, num_frames: int) -> Iterator[Frame]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0 : width + 2 * num_frames].astype(np.float32)
    picture = np.zeros((*x.shape, 3), np.float32)
    for _ in range(12):
        angle, period = rng.uniform(0, np.pi), rng.uniform(4, 80)
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period))
        picture += wave[..., None] * rng.uniform(5, 20, 3).astype(np.float32)
    pixels: NDArray[np.uint8] = (picture + 128).clip(0, 255).astype(np.uint8)
    for t in range(num_frames):
        yield Frame(np.ascontiguousarray(pixels[:, 2 * t : 2 * t + width]), t, Fraction(1, 25), 1)
