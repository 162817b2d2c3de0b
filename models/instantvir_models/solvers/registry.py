"""Solvers that need no weights, by name. Light to import: help and completion read the names here."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from instantvir_models.errors import UsageError

if TYPE_CHECKING:
    from instantvir_models.solvers.base import Solver


@dataclass(frozen=True)
class Method:
    """A solver as a person finds it."""

    place: str
    """Module and class, below `instantvir_models.solvers`."""
    about: str
    """What it does, in a few words."""
    settings: tuple[Any, ...] = ()
    """What its class is given: settings that suit most videos."""

    def new(self) -> Solver[Any]:
        """One with these settings."""
        module, name = self.place.rsplit(".", 1)
        made: Solver[Any] = getattr(import_module(f"{__package__}.{module}"), name)(*self.settings)
        return made


METHODS = {
    "map": Method(
        "classical.initial.InitialEstimate",
        "the most probable video for a fitted spectrum, any operator",
    ),
    "as_measured": Method("classical.enlarge.AsMeasured", "the measurement itself"),
    "telea": Method("classical.fill.OpenCVFill", "fills holes (OpenCV)"),
    "navier_stokes": Method(
        "classical.fill.OpenCVFill", "fills holes (OpenCV)", ("navier_stokes",)
    ),
    "biharmonic": Method("classical.fill.Biharmonic", "fills holes (scikit-image), slowly"),
    "bicubic": Method("classical.enlarge.Interpolated", "enlarges"),
    "lanczos": Method("classical.enlarge.Interpolated", "enlarges", ("lanczos",)),
    "bicubic_consistent": Method(
        "classical.enlarge.Interpolated",
        "enlarges, then corrects towards the measurement",
        ("bicubic", 0.1),
    ),
    "wiener": Method("classical.deconvolve.Wiener", "deblurs with a fixed spectrum"),
    "richardson_lucy": Method("classical.deconvolve.RichardsonLucy", "deblurs"),
    "nlmeans": Method("classical.denoise.NonLocalMeans", "denoises frame by frame (OpenCV)"),
    "nlmeans_over_time": Method(
        "classical.denoise.NonLocalMeansOverTime",
        "denoises over 5 frames (OpenCV), holding the whole clip",
    ),
    "ffmpeg_nlmeans": Method(
        "classical.denoise.FFmpegNonLocalMeans", "denoises frame by frame (FFmpeg)"
    ),
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
