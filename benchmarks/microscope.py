"""A clip that nobody filmed: cells with granules that drift, as a microscope shows them.

    python benchmarks/microscope.py microscope.mkv

Unlike anything that the embedded student has seen, and the same each time: what `adapt.py` is shown on.
"""

import sys
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from instantvir_models.media import EncoderSettings, Frame, create_video

SIDE, FRAMES = 160, 12
BACKGROUND = 18.0


def pictures() -> list[NDArray[np.uint8]]:
    """Grey frames [SIDE, SIDE, 3]."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE].astype(float)
    cells = [
        (rng.uniform(0, SIDE), rng.uniform(0, SIDE), rng.uniform(8, 18), rng.uniform(60, 140),
         *rng.uniform(-1, 1, 2))
        for _ in range(28)
    ]  # fmt: skip
    granules = [
        (rng.integers(28), *rng.normal(0, 0.5, 2), rng.uniform(0.8, 1.6), rng.uniform(40, 110),
         *rng.uniform(-0.5, 0.5, 2))
        for _ in range(700)
    ]  # fmt: skip
    made = []
    for t in range(FRAMES):
        light = np.full((SIDE, SIDE), BACKGROUND)
        for left, top, radius, bright, right, down in cells:
            away = np.hypot(x - (left + right * t) % SIDE, y - (top + down * t) % SIDE) - radius
            light += bright * 0.35 / (1 + np.exp(away / 1.2))
            light += bright * 0.5 * np.exp(-((away / 1.5) ** 2))
        for cell, u, v, size, bright, along, across in granules:
            left, top, radius, _, right, down = cells[cell]
            here = (left + right * t) % SIDE + u * radius + along * t
            there = (top + down * t) % SIDE + v * radius + across * t
            light += bright * np.exp(-((x - here) ** 2 + (y - there) ** 2) / (2 * size**2))
        made.append(np.repeat(light.clip(0, 255).astype(np.uint8)[..., None], 3, -1))
    return made


def main() -> None:
    """Command line."""
    writer = create_video(
        sys.argv[1],
        width=SIDE,
        height=SIDE,
        settings=EncoderSettings(codec="ffv1"),
        frame_rate=25,
    )
    for number, pixels in enumerate(pictures()):
        writer.write(Frame(pixels, number, Fraction(1, 25), 1))
    writer.close()


if __name__ == "__main__":
    main()
