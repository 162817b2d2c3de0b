"""What is to be done about what was found: a degradation to undo, and the words that say the same."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from instantvir_models.diagnosis.blur import BlurJudgement
from instantvir_models.diagnosis.findings import Finding, Kind, shown_name
from instantvir_models.diagnosis.traces import Traces
from instantvir_models.operators.base import Operator
from instantvir_models.operators.compose import Composition, Identity
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
"""First octave over second of the busiest detail, from which on it was sharpened afterwards. Of files
that nobody sharpened 3 in 100 are beyond it on 52 training clips, and 7 in 100 on 21 others (12 with
noise); of eight training clips sharpened by 120 %, behind H.264, three quarters. A file that is taken
for sharpened stays as it is, where it might have gained 0.2 dB; one that is not may lose 0.5."""

NOISE_SHOWS, CHANGE_SHOWS = 1.1, 0.08
"""Factor from the codec's own error to that of the file, and levels of what changes along the motion,
from which on, together, there is noise besides the codec's error."""

MUCH_CHANGE = 0.5
"""Levels of that change which show noise by themselves: 7 in 100 files without noise have so much, and
60 to 80 in 100 with noise of 8 to 16 levels (1400 files of training clips)."""

COARSENESS, COARSE_FACTOR = (0.5, 0.65), (1.0, 1.6)
"""What changes in the second octave over what does in the first, of noise that is fine enough to be taken
as it is and of coarse noise (white .3, tape .4 to .5, sensors .55 to .75, grain .7); and how much more is
told. On training clips grain and dust of film gain 0.2 to 0.4 dB by it, LPIPS falls; a sensor's noise
without a codec gains 0.4 and 1.6 dB, grain 0.3 to 0.7."""

STRONG_CHANGE = 1.5
"""Levels of change from which on this holds. Of weaker noise behind fine steps all is gone at once: told
1.5 times as much, three of four training clips with a sensor's noise at CRF 23 lose 0.06 to 0.35 dB."""

EATING_STEP = 24.0
"""Quantiser step from which on it holds for weak noise, too: what a codec that filters has left of it is
coarse. Phones at night gain 0.1 to 0.3 dB."""

LOOP_FILTERED = frozenset({"h264", "hevc", "av1", "vp8", "vp9"})
"""Codecs that smooth across their blocks themselves. What is left is mostly lost detail."""

EDGES, FILTERED_DETAIL = (14.0, 26.0, 36.0), (0.97, 0.99, 1.0)
"""Rms gradients, in levels, of soft pictures, of sharp ones and of drawn ones, and part of the fine contrast
that stays in each where only such a codec was at work. In a drawn one 0.99 lets LPIPS rise by 0.011."""

SHARP, FILTERED_FACTOR = (14.0, 20.0), (1.5, 1.0)
"""Rms gradients of soft pictures and of sharp ones, and how much more than its rms error is told of what such a
codec did, for it is coarse: at CRF 36 fourteen training clips gain 0.2 dB by 1.5 and the above, of 0.25 that
they gain with nothing kept, and LPIPS falls by 0.001 instead of rising by 0.032. In sharp and in drawn ones
1.5 let it rise by 0.012 and 0.014."""

COARSE_STEP, USUAL_SHARPNESS = 32.0, 0.85
"""Quantiser step from which on such a codec's damage is mended in pictures that are no sharper than usual
(first octave over second of the busiest detail); in sharper ones it has to be coarser in proportion.
Behind finer steps what looks like that damage can be an exaggerated edge: at CRF 25 three of eight
training clips that had been sharpened lost 0.04 to 0.4 dB."""

FILTERED_PART = 0.9
"""Of its error that is told: all of it gains 0.01 dB more, and LPIPS rises by 0.001 more."""

BLOCKY_EDGES = (7.5, 10.0, 16.0, 20.0, 28.0)
"""Rms gradients, in levels, of soft pictures, of usual ones, and of those that are sharp all over, as grass
is; the following two go by them."""

BLOCKY_DETAIL, NOISY_BLOCKY_DETAIL = (
    (0.97, 0.95, 0.95, 0.975, 0.995),
    (0.95, 0.9, 0.88, 0.93, 0.995),
)
"""Part of the fine contrast that stays behind codecs that do not filter their blocks, where nothing changes
along the motion and where a little noise does."""

LITTLE_CHANGE = (0.1, 0.2)
"""Levels of that change from which on there is a little noise."""

COARSE_DETAIL = (0.7, 0.8), 0.85
"""First octave over second of the busiest detail, below and above which it is rather coarse and not; and part
of the fine contrast that stays of the former: there the finest is the codec's, and LPIPS falls."""

SEEN_GRID_DETAIL = 0.85
"""What stays at most where the grid is seen: on ten such training clips of MJPEG LPIPS falls, or rises by
0.006."""

SOFT, BLOCKY_FACTOR = (7.5, 10.0), (1.0, 1.5)
"""Rms gradients of soft pictures and of all others, and how much more than its rms error is told of what such
a codec did. By all this twelve training clips of MPEG-2 gain 0.53 dB and LPIPS falls by 0.003 (at most it
rises by 0.011), thirteen of MPEG-4 0.46 and 0.003 (0.009)."""

GRID = (2.05, 2.3)
"""Steps across the lines of the grid over those elsewhere, where it is faint and where it is seen."""

NOISY_GRID_DETAIL = 0.6
"""The same where the grid is seen and noise is, too. A training clip of MJPEG gains 1.3 dB by it, and loses
0.01 in LPIPS; with nothing kept it gains 1.4 and LPIPS rises by 0.023."""

SMOOTHING_CODECS = frozenset({"hevc", "av1", "vp9"})
"""Those that filter what they decode more than against blocks."""

SMOOTHED_PART = 0.55
"""Of their error that is told where somebody asks for it to be taken away. At CRF 30 two training clips
gain half as much by it as by all of it, and lose two thirds in LPIPS; one held-out clip at CRF 32 gains
at this and loses at all of it."""

SMALLEST_LOSSLESS_ERROR = 1.5
"""The same where no codec lost anything."""

SMALL_SHARPNESS, FOLLOWED_PART = (0.9, 1.15), (1.0, 0.5)
"""First octave over second of the busiest detail of a small picture that was averaged down and of one that
looks sharper than that, and how far a solver that enlarges it is followed. Of five clips made half as large
by a cubic without a filter, behind H.264 at CRF 24, half the way gains 0.12 to 0.75 dB over bicubic
enlargement (all of it -0.40 to 0.49); LPIPS falls by 0.7 to 0.8 as much on the three that it was measured
on. Three of the five are the zoo's own."""

NEARLY_CLEAN = 4.5
"""Levels of what a codec lost below which nobody sees that it did."""

PARTLY = "nothing is sure to help its cleanest part, which would suffer"
WHOLE = "make whole frames of its fields"


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """What would be done about a video."""

    degradation: Degradation | None
    """To be undone, besides fields; None where nothing is sure enough to be changed."""
    sentence: str
    keep_detail: float = 0.0
    """Part of the fine contrast that stays everywhere."""

    @property
    def options(self) -> tuple[str, ...]:
        """What says the same to `instantvir restore`; none where nothing is done."""
        if self.degradation is None:
            return ()
        kept = ("--keep-detail", f"{self.keep_detail:g}") if self.keep_detail else ()
        return ("--operator", self.degradation.spec, *kept)

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
    """Noise of which one is not quite sure counts as less: too little is taken away then, not too
    much."""
    return error.value if error.confidence == "high" else math.sqrt(error.low * error.value)


def detail_to_keep(traces: Traces, *, is_noisy: bool) -> float:
    """Part of the fine contrast that is to stay, 0 where most of it is noise.

    Args:
        is_noisy: whether there is noise besides what a codec did.
    """
    if traces.codec_name in LOOP_FILTERED:
        return 0.0 if is_noisy else _along(traces.edges, EDGES, FILTERED_DETAIL)
    if traces.is_lossless:
        return 0.0
    still, changing = (
        _along(traces.edges, BLOCKY_EDGES, kept) for kept in (BLOCKY_DETAIL, NOISY_BLOCKY_DETAIL)
    )
    kept = _along(traces.changing_fine, LITTLE_CHANGE, (still, changing))
    octaves, of_coarse = COARSE_DETAIL
    kept = _along(traces.sharpness, octaves, (of_coarse, kept))
    kept = _along(traces.blockiness, GRID, (kept, min(kept, SEEN_GRID_DETAIL)))
    if traces.changing_fine < MUCH_CHANGE:
        return kept
    if traces.blockiness > GRID[0]:
        return NOISY_GRID_DETAIL
    return _along(traces.changing_fine, (MUCH_CHANGE, STRONG_CHANGE), (kept, 0.0))


def told_factor(traces: Traces, *, is_noisy: bool) -> float:
    """How much more than its rms error is to be told of noise: solvers take it for white, and coarse
    noise shows them less of itself than it has."""
    is_strong = traces.changing_fine >= STRONG_CHANGE
    is_eaten = (
        traces.codec_name in LOOP_FILTERED
        and traces.step is not None
        and traces.step >= EATING_STEP
    )
    if not (is_noisy and (is_strong or is_eaten)):
        return 1.0
    return _along(traces.changing_middle / traces.changing_fine, COARSENESS, COARSE_FACTOR)


def codec_factor(traces: Traces, *, is_noisy: bool) -> float:
    """How much more than its rms error is to be told of what a codec did, where fine contrast stays: it
    is coarse, too."""
    if traces.codec_name in LOOP_FILTERED:
        return 1.0 if is_noisy else _along(traces.edges, SHARP, FILTERED_FACTOR)
    if traces.is_lossless or traces.changing_fine >= MUCH_CHANGE:
        return 1.0
    return _along(traces.edges, SOFT, BLOCKY_FACTOR)


def is_coarse(traces: Traces) -> bool:
    """Whether a codec's steps are so coarse that what is wrong is surely its own doing."""
    sharpness = max(1.0, traces.sharpness / USUAL_SHARPNESS)
    return traces.step is not None and traces.step >= COARSE_STEP * sharpness


def enlarged_part(traces: Traces) -> float:
    """How far to follow a solver that enlarges what was made smaller nobody knows how: it reckons with
    averages, and sharpens once more what came through a sharper kernel."""
    return _along(traces.sharpness, SMALL_SHARPNESS, FOLLOWED_PART)


def _along(value: float, where: Sequence[float], values: Sequence[float]) -> float:
    """What a line through these values says, and no more than they."""
    return round(float(np.interp(value, where, values)), 3)


def shows_noise(traces: Traces, error_levels: float, codec_levels: float) -> bool:
    """Whether noise has come through a codec; never in one frame, where texture looks the same."""
    if traces.is_lossless:
        return True
    ratio = error_levels / max(codec_levels, 0.1)
    change = traces.changing_fine
    return change >= MUCH_CHANGE or (change >= CHANGE_SHOWS and ratio >= NOISE_SHOWS)


def removable_part(codec_name: str | None, *, is_noisy: bool) -> float:
    """Which part of an error can be taken away: what codecs that smooth leave is mostly lost detail."""
    return 1.0 if is_noisy or codec_name not in SMOOTHING_CODECS else SMOOTHED_PART


def remedy_for(
    findings: Sequence[Finding],
    blur: BlurJudgement,
    *,
    is_lossy: bool,
    codec_name: str | None = None,
    is_noisy: bool = True,
    is_coarse: bool = False,
    keep_detail: float = 0.0,
    times_told: float = 1.0,
    is_mixed: bool = False,
) -> Remedy:
    """What is sure to help against these findings, and nothing else.

    Args:
        blur: what is sure to be undone.
        is_noisy: whether there is noise besides what a codec did.
        is_coarse: whether its steps are so coarse that what is wrong is surely its own doing.
        keep_detail: part of the fine contrast that is to stay, where no blur is undone.
        times_told: how much more than the error is told, where no blur is undone.
        is_mixed: whether its places differ, so that the findings are those of the cleanest.
    """
    by_kind: dict[Kind, Finding] = {finding.kind: finding for finding in findings}
    doubt = _doubt(by_kind, is_noisy=is_noisy)
    is_inverted = doubt is None and not blur.operator.is_identity
    error = by_kind.get("error")
    levels = 0.0 if error is None or doubt is not None else error.value
    if error is not None and not (is_lossy or is_inverted):
        levels = min(levels, careful_levels(error))
    is_filtered = codec_name in LOOP_FILTERED and not (is_noisy or is_inverted)
    if is_filtered:
        levels *= FILTERED_PART if is_coarse else 0.0
    is_large = levels >= (SMALLEST_ERROR if is_lossy else SMALLEST_LOSSLESS_ERROR)
    steps = [WHOLE] if "fields" in by_kind else []
    undone: list[Operator] = []
    if "dust" in by_kind:
        steps.append("fill dust and scratches")
        undone.append(Dust())
    if is_inverted:
        steps.append(f"undo the blur ({blur.operator.spec})")
        undone.insert(0, blur.operator)
    if is_large:
        what = "compression damage and noise" if is_lossy else "noise"
        kept = " but keep faint texture" if keep_detail and not is_inverted else ""
        steps.append(f"take away {what} ({levels:.1f} levels){kept}")
    if not undone and not is_large:
        is_clean = not is_filtered or error is None or error.value < NEARLY_CLEAN
        why = (
            "it is nearly clean"
            if is_clean
            else f"what {shown_name(codec_name)} lost does not come back"
        )
        why = PARTLY if is_mixed else doubt or why
        return _nothing(why, has_fields="fields" in by_kind)
    told_levels = levels if is_large or is_inverted else 0.0
    told_levels *= 1.0 if is_inverted else times_told
    noise_std = told_noise_std(told_levels, is_lossy=is_lossy, is_inverted=is_inverted)
    operator = Composition(undone) if len(undone) > 1 else next(iter(undone), Identity())
    said = Degradation(operator=operator, noise_std=noise_std).spec
    return Remedy(
        # as it is read back, so that the command does the same to the bit
        degradation=replace(parse_degradation(said), is_lossy=is_lossy),
        sentence=f"to do: {', '.join(steps)}",
        keep_detail=keep_detail if is_large and not is_inverted else 0.0,
    )


def _doubt(by_kind: Mapping[Kind, Finding], *, is_noisy: bool) -> str | None:
    """Why neither noise nor blur is touched; None where there is no reason."""
    error = by_kind.get("error")
    if error is None or error.confidence == "low":
        return "what is wrong could not be told"
    # of exaggerated edges solvers make more of the same, but noise beside them is taken away
    if "sharpening" in by_kind and not is_noisy:
        return "edges were sharpened, and that would only become more visible"
    return None


def _nothing(why: str, *, has_fields: bool) -> Remedy:
    what = f"{WHOLE}, and nothing else" if has_fields else "nothing"
    return Remedy(degradation=None, sentence=f"to do: {what}, for {why}")
