"""What a user can install today, on the same measurements: each rival with its tuning grid.

A rival is a method of `solvers/classical` with many settings; all run through `Session`, as
`restore --solver` does. The benchmark tries every setting and keeps, clip by clip, the one with the
best PSNR against the truth: more than any user could do, so the comparison favours the rival.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

from instantvir_models.solvers.base import Solver
from instantvir_models.solvers.classical.deconvolve import RichardsonLucy, Wiener
from instantvir_models.solvers.classical.denoise import (
    FFmpegNonLocalMeans,
    NonLocalMeans,
    NonLocalMeansOverTime,
)
from instantvir_models.solvers.classical.enlarge import AsMeasured, Interpolated
from instantvir_models.solvers.classical.fill import Biharmonic, OpenCVFill


@dataclass(frozen=True)
class Rival:
    """A method somebody could use instead."""

    name: str
    solvers: tuple[Solver[Any], ...]
    """It, with each of the settings to try."""


def _filled(method: str) -> tuple[OpenCVFill, ...]:
    return tuple(OpenCVFill(method, radius) for radius in (3, 5))


RIVALS: dict[str, tuple[Rival, ...]] = {
    "inpaint": (
        Rival("OpenCV Telea", _filled("telea")),
        Rival("OpenCV Navier-Stokes", _filled("navier_stokes")),
        Rival("scikit-image biharmonic", (Biharmonic(),)),
    ),
    "sr": (
        Rival("bicubic", (Interpolated("bicubic"),)),
        Rival("Lanczos", (Interpolated("lanczos"),)),
        Rival(
            "bicubic or Lanczos + consistency",
            tuple(
                Interpolated(method, std)
                for method, std in product(("bicubic", "lanczos"), (0.003, 0.01, 0.03, 0.1))
            ),
        ),
    ),
    "deblur": (
        Rival("input", (AsMeasured(),)),
        Rival("Richardson-Lucy", (RichardsonLucy(15), RichardsonLucy(50))),
        Rival(
            "DCT-Wiener",
            tuple(
                Wiener(power, exponent)
                for power, exponent in product((1e-4, 1e-3, 4e-3, 1.6e-2), (1.5, 2.0, 2.5, 3.0))
            ),
        ),
    ),
    "denoise": (
        Rival("input", (AsMeasured(),)),
        Rival(
            "FFmpeg nlmeans",
            (
                *(
                    FFmpegNonLocalMeans(strength, search)
                    for strength, search in product((8.0, 10.0, 12.0, 14.0), (9, 15))
                ),
                # plane by plane: wants more
                *(
                    FFmpegNonLocalMeans(strength, 15, "gbrp")
                    for strength in (15.0, 18.0, 21.0, 25.0)
                ),
            ),
        ),
        Rival("OpenCV NLM", tuple(NonLocalMeans(h) for h in (10.0, 14.0, 18.0, 22.0))),
        Rival(
            "OpenCV NLM, colour",
            tuple(
                NonLocalMeans(h, color) for h, color in product((10.0, 14.0, 18.0), (14.0, 24.0))
            ),
        ),
        Rival("OpenCV NLM, 5 frames", tuple(NonLocalMeansOverTime(h) for h in (10.0, 14.0, 18.0))),
    ),
}
"""The rivals of each task, weakest first."""
