"""What is to be done about what was found: a degradation to undo, and the words that say the same."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from instantvir_models.diagnosis.blur import BlurJudgement
from instantvir_models.diagnosis.findings import Finding, Kind
from instantvir_models.operators.base import Operator
from instantvir_models.operators.compose import Composition
from instantvir_models.operators.mask import Dust
from instantvir_models.operators.measurement import LEVEL, LOSSY_STD, Degradation
from instantvir_models.operators.spec import parse_degradation

INVERSE_CAUTION = 1.6
"""How much more than a codec's error the inverse of a blur is told of: that error is no white noise,
and lies where the blur left least."""

SMALLEST_ERROR = 3.0
"""Levels of noise and codec error together below which nothing is changed: so little is easily taken
for texture, and texture for it, and solvers add as much by themselves."""

SHARPENED = 1.15
"""First octave over second of the busiest detail, from which on it was sharpened afterwards; .6 to 1.1
in pictures as they are."""

NOISE_SHOWS = 1.1
"""Factor from the codec's own error to that of the file, from which on there is noise besides."""

SMOOTHING_CODECS = frozenset({"hevc", "av1", "vp9"})
"""Those that filter what they decode more than against blocks."""

SMOOTHED_PART = 0.55
"""Of their error that is told: HEVC at CRF 32 gains at this and loses at all of it."""

SMALLEST_LOSSLESS_ERROR = 1.5
"""The same where no codec lost anything."""


WHOLE = "make whole frames of its fields"


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """What would be done about a video."""

    degradation: Degradation | None
    """To be undone, besides fields; None where nothing is sure enough to be changed."""
    sentence: str

    @property
    def options(self) -> tuple[str, ...]:
        """What says the same to `instantvir restore`; none where nothing is done."""
        return () if self.degradation is None else ("--operator", self.degradation.spec)

    def command(self, source: str) -> str | None:
        """The command that says the same explicitly; None where nothing is done."""
        if self.degradation is None:
            return None
        return shlex.join(["instantvir", "restore", source, *self.options])


def told_noise_std(error_levels: float, *, is_lossy: bool, is_inverted: bool = False) -> float:
    """What to tell a solver of an rms error, in the [-1, 1] range.

    Args:
        is_inverted: whether a blur is undone: that amplifies whatever noise it is not told of, and
            the inverse itself adds nothing for a codec.
    """
    if is_inverted:
        return (INVERSE_CAUTION if is_lossy else 1.0) * error_levels * LEVEL
    own = LOSSY_STD / LEVEL if is_lossy else 0.0
    return math.sqrt(max(0.0, error_levels**2 - own**2)) * LEVEL


def careful_levels(error: Finding) -> float:
    """An error of which one is not quite sure counts as less: too little is taken away then, not too
    much."""
    return error.value if error.confidence == "high" else math.sqrt(error.low * error.value)


def removable_part(codec_name: str | None, error_levels: float, codec_levels: float) -> float:
    """Which part of an error can be taken away: what codecs that smooth leave is mostly lost detail."""
    is_noisy = error_levels >= NOISE_SHOWS * codec_levels
    return 1.0 if is_noisy or codec_name not in SMOOTHING_CODECS else SMOOTHED_PART


def is_halo(by_kind: Mapping[Kind, Finding]) -> bool:
    """Whether edges were exaggerated and nothing but the codec's error is beside that: solvers then
    take halos for picture."""
    error, codec = by_kind.get("error"), by_kind.get("codec")
    if "sharpening" not in by_kind or error is None or codec is None:
        return False
    return error.value < NOISE_SHOWS * codec.value


def remedy_for(
    findings: Sequence[Finding],
    blur: BlurJudgement,
    *,
    is_lossy: bool,
    codec_name: str | None = None,
) -> Remedy:
    """What is sure to help against these findings, and nothing else.

    Args:
        blur: what is sure to be undone.
    """
    by_kind: dict[Kind, Finding] = {finding.kind: finding for finding in findings}
    error = by_kind.get("error")
    has_fields = "fields" in by_kind
    if error is None or error.confidence == "low":
        return _nothing("what is wrong could not be told", has_fields=has_fields)
    if is_halo(by_kind):
        why = "edges were sharpened, and that would only become more visible"
        return _nothing(why, has_fields=has_fields)
    smallest = SMALLEST_ERROR if is_lossy else SMALLEST_LOSSLESS_ERROR
    has_dust = "dust" in by_kind
    levels = careful_levels(error)
    if (codec := by_kind.get("codec")) is not None:
        levels *= removable_part(codec_name, error.value, codec.value)
    steps = [WHOLE] if has_fields else []
    if has_dust:
        steps.append("fill dust and scratches")
    is_inverted = not blur.operator.is_identity
    if is_inverted:
        levels = error.value
        steps.append(f"undo the blur ({blur.operator.spec})")
    is_noisy = levels >= smallest
    if is_noisy:
        what = "compression damage and noise" if is_lossy else "noise"
        steps.append(f"take away {what} ({levels:.1f} levels)")
    if not (is_noisy or is_inverted or has_dust):
        return _nothing("it is nearly clean", has_fields=has_fields)
    if not (is_noisy or is_inverted):
        levels = 0.0
    noise_std = told_noise_std(levels, is_lossy=is_lossy, is_inverted=is_inverted)
    parts: list[Operator] = [
        *([blur.operator] if is_inverted else []),
        *([Dust()] if has_dust else []),
    ]
    operator = Composition(parts) if len(parts) > 1 else next(iter(parts), blur.operator)
    said = Degradation(operator=operator, noise_std=noise_std).spec
    return Remedy(
        # as it is read back, so that the command does the same to the bit
        degradation=replace(parse_degradation(said), is_lossy=is_lossy),
        sentence=f"to do: {', '.join(steps)}",
    )


def _nothing(why: str, *, has_fields: bool) -> Remedy:
    what = f"{WHOLE}, and nothing else" if has_fields else "nothing"
    return Remedy(degradation=None, sentence=f"to do: {what}, for {why}")
