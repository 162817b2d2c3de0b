"""From traces to the rms error of a file: regressions in the logarithm, one per family of codecs.

Fitted by `benchmarks/fit_diagnosis.py` on clean clips that were made noisy in several ways and went
through real encoders. The bar of each expectation is fitted, too, on clips that its fit had not seen.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instantvir_models.diagnosis.traces import Traces

Vector = NDArray[np.float64]

SMALLEST_LEVELS = 0.3
"""Added to levels before their logarithm is taken: less than this nobody sees."""

FAMILIES = {
    "h264": "h264",
    "hevc": "hevc",
    "vp9": "vp9",
    "vp8": "other",
    "mpeg1video": "mpeg",
    "mpeg2video": "mpeg",
    "mpeg4": "mpeg",
    "h263": "mpeg",
    "mjpeg": "mjpeg",
}
"""Codecs that say how coarsely they quantised, by how they do it; all others are `other`."""

INDIRECT = frozenset({"other", "vp9", "mpeg"})
"""Families whose narrow bars are missed more often than 5 times in 100: the first tells no steps; of VP9
and of MPEG-1, -2 and -4, with the fewest files in the fit, 10, 9 and 8 in 100 of unseen clips were."""

WHITE_RATIO = 0.3
"""Noise of the second octave over that of the first, below which it is white (.20 to .22 on training
clips; tape .37 to .42, sensors and grain .57 to .74)."""

WHITE_RATIO_OF_ONE_FRAME = 0.42
"""The same where only one frame is there, and some of what is seen is texture."""

WHITE_LEVELS = 2.0
"""Of white noise without a codec from which on the finest band alone is the better witness."""

CHANGING_PART = 0.4
"""Of the finest band's noise that changes from frame to frame in the first octave, at least, where
that is white noise (.5)."""

COLOUR_PART = 0.45
"""Of the finest band's noise that changes from frame to frame in the colour differences, at least, where
that is white noise: it is as strong in colour (.61 to .89 on 52 held-out files and on small clips). Where
gravel and water moved otherwise than was found, .03 to .26 of their texture did."""

GREY_PART, GREY_CHANGING_PART = 0.05, 0.74
"""The spread of colour over the finest band's noise below which a video is grey, and what takes the place
of `CHANGING_PART` there: no channels average their noise (.76 to .88 on grey clips with noise of 25 levels;
texture .70 at most, where the camera moves by 11 pixels a frame)."""

STILL_COLOUR_PART = 0.6
"""The same of one frame's flattest patches (white .85 to 1.07 on held-out files, tape and sensors more;
texture .25 to .5): below, what one frame shows can be texture as well as grain."""

CUT_PART = 1.05
"""Of the noise of a frame's flattest patches that can change from frame to frame: of real noise 1.03 at
most (245 held-out files without a codec, 836 small clips); where every frame is another picture, 1.06 to
1.42."""

WHITE_BAR = 1.15
"""Factor that its error stays below."""

MARGIN = 0.3
"""How far, in standard deviations, a trace may lie outside of all that were seen in the fit."""


@dataclass(frozen=True)
class Expected:
    """A positive number as far as it is known."""

    value: float
    low: float
    high: float
    """It lies between these 95 times in 100."""
    is_familiar: bool
    """Whether such traces were seen in the fit, and are no texture's; the bar means little where not."""
    is_indirect: bool = False
    """Whether it is never sure: little speaks of it (one frame, of which 9 of 66 narrow bars missed), or
    its family is one of `INDIRECT`."""

    @property
    def spread(self) -> float:
        """Factor from the value to the far end of its bar."""
        return max(self.high / max(self.value, 1e-6), self.value / max(self.low, 1e-6))


@dataclass(frozen=True, kw_only=True)
class Regression:
    """log(value + SMALLEST_LEVELS) as a quadratic form of standardised features."""

    names: tuple[str, ...]
    mean: Vector
    scale: Vector
    lowest: Vector
    highest: Vector
    """Of the standardised features in the fit."""
    weights: Vector
    spread_weights: Vector
    """Of 1 and the features, for the logarithm of the standard deviation of the error."""
    bar: float
    """Standard deviations that hold 95 of 100."""

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "Regression":
        """From what `error_model.json` says."""
        return cls(
            names=tuple(told["names"]),
            bar=float(told["bar"]),
            **{
                name: np.array(told[name], np.float64)
                for name in ("mean", "scale", "lowest", "highest", "weights", "spread_weights")
            },
        )

    def expected(self, features: Mapping[str, float]) -> Expected:
        """The value for these features; those outside of what was seen count as its edge."""
        raw = (np.array([features[name] for name in self.names]) - self.mean) / self.scale
        z = np.clip(raw, self.lowest, self.highest)
        log_value = float(quadratic(z[None])[0] @ self.weights)
        log_spread = float(np.concatenate([[1.0], z]) @ self.spread_weights)
        half = self.bar * math.exp(min(max(log_spread, math.log(0.02)), math.log(0.8)))
        value, low, high = (
            max(0.0, math.exp(log_value + d) - SMALLEST_LEVELS) for d in (0, -half, half)
        )
        return Expected(value, low, high, bool(np.abs(raw - z).max() <= MARGIN))


def quadratic(z: Vector) -> Vector:
    """[n, 1 + f + f (f + 1) / 2] of features [n, f]: one, each, and each times each."""
    first, second = np.triu_indices(z.shape[1])
    return np.concatenate([np.ones((len(z), 1)), z, z[:, first] * z[:, second]], 1)


def family_of(traces: Traces) -> str:
    """Which regression is to be asked."""
    if traces.codec_name is None or traces.is_lossless:
        return "lossless"
    family = FAMILIES.get(traces.codec_name, "other")
    return family if traces.step is not None else "other"


def features_of(traces: Traces) -> dict[str, float]:
    """Everything that regressions may ask for."""

    def log(levels: float) -> float:
        return math.log(levels + SMALLEST_LEVELS)

    return {
        "finest": log(traces.finest),
        "fine": log(traces.fine),
        "middle": log(traces.middle),
        "coarse": log(traces.coarse),
        "changing_fine": log(traces.changing_fine),
        "changing_middle": log(traces.changing_middle),
        "changing_chroma": log(traces.changing_chroma),
        "chroma": log(traces.chroma),
        "texture": log(traces.texture),
        "edges": log(traces.edges),
        "blockiness": math.log(traces.blockiness),
        "step": log(traces.step or 0.0),
        "bits": math.log((traces.bits_per_pixel or 1.0) + 0.003),
    }


STILL = ("finest", "fine", "middle", "coarse", "chroma", "texture", "edges", "blockiness")
"""What one frame shows."""

MOVING = (*STILL, "changing_fine", "changing_middle", "changing_chroma")

CODED = {"lossless": (), "other": ("bits",)}
"""What each family has of its codec; all others `step` and `bits`."""


def names_for(family: str, *, is_still: bool) -> tuple[str, ...]:
    """The features that the regression of a family takes."""
    return (STILL if is_still else MOVING) + CODED.get(family, ("step", "bits"))


CODEC_FEATURES = ("fine", "middle", "texture", "edges", "blockiness")
"""What the error of the codec alone is read off, with what the codec says."""


def is_white(traces: Traces) -> bool:
    """Whether noise is about equally strong at all frequencies and in all channels."""
    if traces.num_frames < 2:
        return traces.middle < WHITE_RATIO_OF_ONE_FRAME * traces.fine
    return traces.changing_middle < WHITE_RATIO * traces.changing_fine


def shows_white_noise(traces: Traces) -> bool:
    """Whether the finest band shows white noise and no texture: that does not change along the motion,
    and where that was found wrongly it changes less in colour than in brightness."""
    if not is_white(traces) or _may_be_texture(traces):
        return False
    if traces.chroma < GREY_PART * traces.finest:
        return traces.changing_clear > GREY_CHANGING_PART * traces.finest
    is_colourful = traces.changing_chroma > COLOUR_PART * traces.finest
    return is_colourful and traces.changing_clear > CHANGING_PART * traces.finest


def _may_be_texture(traces: Traces) -> bool:
    """Whether frames that no codec touched may show texture rather than noise: one that stands alone and
    has little of it in colour, or several that show different things."""
    if not traces.is_lossless:
        return False
    if traces.num_frames < 2:
        return traces.chroma < STILL_COLOUR_PART * traces.finest
    return traces.changing_fine > CUT_PART * traces.fine


def expected_error(traces: Traces) -> Expected:
    """Rms error of the file in 8-bit levels over all channels: noise and codec together."""
    if traces.is_lossless and traces.finest >= WHITE_LEVELS and shows_white_noise(traces):
        value = traces.finest
        return Expected(value, value / WHITE_BAR, value * WHITE_BAR, is_familiar=True)
    is_still, family = traces.num_frames < 2, family_of(traces)
    name = f"error {family} still" if is_still else f"error {family}"
    found = _regressions()[name].expected(features_of(traces))
    return replace(
        found,
        is_familiar=found.is_familiar and not _may_be_texture(traces),
        is_indirect=is_still or family in INDIRECT,
    )


def expected_codec_error(traces: Traces) -> Expected:
    """Rms error in 8-bit levels that the codec would leave on this video without noise."""
    family = family_of(traces)
    if family == "lossless":
        return Expected(0.0, 0.0, 0.0, is_familiar=True)
    return _regressions()[f"codec {family}"].expected(features_of(traces))


@cache
def _regressions() -> dict[str, Regression]:
    text = files("instantvir_models.diagnosis").joinpath("error_model.json").read_text()
    return {name: Regression.of(told) for name, told in json.loads(text)["regressions"].items()}
