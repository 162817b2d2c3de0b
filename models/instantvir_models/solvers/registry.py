"""Solvers that need no weights, by name."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from instantvir_models.errors import UsageError
from instantvir_models.solvers.base import Solver
from instantvir_models.solvers.classical.deconvolve import RichardsonLucy, Wiener
from instantvir_models.solvers.classical.denoise import (
    FFmpegNonLocalMeans,
    NonLocalMeans,
    NonLocalMeansOverTime,
)
from instantvir_models.solvers.classical.enlarge import AsMeasured, Interpolated
from instantvir_models.solvers.classical.fill import Biharmonic, OpenCVFill
from instantvir_models.solvers.classical.initial import InitialEstimate


@dataclass(frozen=True)
class Method:
    """A solver as a person finds it."""

    new: Callable[[], Solver[Any]]
    """Makes one with settings that suit most videos."""
    about: str
    """What it does, in a few words."""


METHODS = {
    "map": Method(InitialEstimate, "the most probable video for a fitted spectrum, any operator"),
    "as_measured": Method(AsMeasured, "the measurement itself"),
    "telea": Method(OpenCVFill, "fills holes (OpenCV)"),
    "navier_stokes": Method(lambda: OpenCVFill("navier_stokes"), "fills holes (OpenCV)"),
    "biharmonic": Method(Biharmonic, "fills holes (scikit-image), slowly"),
    "bicubic": Method(Interpolated, "enlarges"),
    "lanczos": Method(lambda: Interpolated("lanczos"), "enlarges"),
    "bicubic_consistent": Method(
        lambda: Interpolated("bicubic", 0.1), "enlarges, then corrects towards the measurement"
    ),
    "wiener": Method(Wiener, "deblurs with a fixed spectrum"),
    "richardson_lucy": Method(RichardsonLucy, "deblurs"),
    "nlmeans": Method(NonLocalMeans, "denoises frame by frame (OpenCV)"),
    "nlmeans_over_time": Method(
        NonLocalMeansOverTime, "denoises over 5 frames (OpenCV), holding the whole clip"
    ),
    "ffmpeg_nlmeans": Method(FFmpegNonLocalMeans, "denoises frame by frame (FFmpeg)"),
}
"""By the name a person types."""


def named_solver(name: str) -> Solver[Any]:
    """The solver called `name`, with its usual settings.

    Raises:
        UsageError: if there is none.
    """
    if name in METHODS:
        return METHODS[name].new()
    close = difflib.get_close_matches(name, METHODS, 1)
    raise UsageError(
        f"there is no solver called `{name}`",
        hint=f"did you mean `{close[0]}`?" if close else f"there are {', '.join(METHODS)}",
    )
