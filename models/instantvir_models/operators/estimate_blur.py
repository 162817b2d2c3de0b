"""Which blur a video has, read off its spectrum: a Gaussian, a lens out of focus or a camera that moved.

The power of natural pictures falls smoothly with frequency. A blur multiplies it by |H|^2, which for
a disc and a line has zeros, and noise, which a codec makes fall with frequency too, is added. The
spectrum that each candidate would leave is fitted to the one that is seen; the one that is nearest is
taken, if it is nearer than no blur at all by enough.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from instantvir_models.operators.base import Operator
from instantvir_models.operators.blur import Defocus, GaussianBlur, MotionBlur, PointSpread
from instantvir_models.operators.compose import Identity
from instantvir_models.operators.measurement import LEVEL
from instantvir_models.operators.sample import Confidence, Frames, as_levels, luma_of

BlurKind = Literal["gaussian", "defocus", "motion"]
Array = NDArray[np.float64]

LARGEST_TILE, SMALLEST_TILE = 128, 32
"""Sides of the square windows that spectra are averaged over."""

RINGS, DIRECTIONS = 25, 12
"""Bins of frequency, from `LOWEST` to `HIGHEST`, and of direction over half a turn."""

LOWEST, HIGHEST = 0.025, 0.49
"""Cycles per pixel. Below, a window shows its own edges; above, codecs and cameras do what they like."""

NATURAL_EXPONENT, EXPONENT_STD = 2.3, 0.35
"""Of the fall of power with frequency in pictures that nobody blurred."""

SOFTNESS, SOFTNESS_STD = 12.0, 10.0
"""Square pixels: what lenses and enlargement leave of sharpness, from none to twice this. It is that
of a Gaussian of 0.55 px."""

FLOOR_FALL, FLOOR_FALL_STD = 7.0, 6.0
"""By how many nepers per cycle per pixel the power of noise falls with frequency: 0 for white noise,
14 for H.264 at CRF 36."""

FLOOR_SHAPE_STD = (20.0, 1.5)
"""Spread of the bend of that fall, and of how much more noise there is along the axes."""

AXIS_WEIGHT = 0.05
"""What bins along the axes count: houses, screens and the blocks of a codec have ridges there."""

SOFT = 0.7
"""Differences of logarithms above this are outliers: a fence, a test card."""

FIT_STEPS = 12

MOST_FRAMES = 4
FLAT_LEVELS = 2.0
"""Standard deviation of luma in levels below which there is nothing to see a blur by."""

SMALLEST_SIGMA, SIGMA_PER_CODEC_LEVEL = 1.1, 0.03
"""Pixels: sharp video is as soft as the first, and codecs make that more."""

BLURRED: dict[BlurKind, float] = {"gaussian": 2.0, "defocus": 2.0, "motion": 1.6}
"""How many times farther off no blur at all must be; a line leaves the spectrum across it alone."""

SHARP = 1.3
"""How many times farther off it may be where it is sure that there is none."""

DEFOCUS_NEARER, SMALLEST_RADIUS = 1.03, 2.5
"""Misfit of a disc over that of a Gaussian below which it is taken for one, since pictures have a
floor of fine detail that hides its zeros; and the radius in pixels from which that matters."""

MOTION_NEARER = 0.55
"""Misfit of a line over that of the others below which it is taken for one."""

TOLD_APART, HIDDEN = 1.1, 1.35
"""Where some other kind fits as well and all fit about as well, nothing was seen but noise."""

NEAR, CERTAIN = 0.15, 1.5
"""Misfit, and that of the next kind over it, of what is told with high confidence."""

GAUSSIAN_BIAS = 1.07
"""Found over true sigma on three training clips (1.2 to 3 px, lossless and CRF 18): what is out of focus
by itself is softer still. The zeros of discs and lines are where they are."""

PART_STD: dict[Confidence, float] = {"high": 0.08, "medium": 0.12, "low": 0.25}
"""Standard deviation of a size, as a part of it."""

KINDS: tuple[BlurKind, ...] = ("gaussian", "defocus", "motion")
SIZE_NAMES: dict[BlurKind, str] = {
    "gaussian": "blur sigma",
    "defocus": "defocus radius",
    "motion": "motion length",
}
LOOKS_LIKE: dict[BlurKind, str] = {
    "gaussian": "a round, soft blur",
    "defocus": "a lens out of focus",
    "motion": "a camera that moved",
}

Candidate = tuple[BlurKind | None, tuple[float, ...]]
"""A kind of blur and its parameters: sigma; radius; length and angle."""

LARGEST: dict[BlurKind, float] = {"gaussian": 6.5, "defocus": 8.5, "motion": 28.0}
"""Of sigma, radius and length: a larger one shows in too few rings of the spectrum to be told."""

LENGTHS = (4.0, 5.0, 6.0, 7.0, 8.5, 10.0, 12.0, 14.0, 16.5, 19.5, 23.0, 27.0)
"""Of lines that are tried first."""

Best = dict[BlurKind | None, tuple[float, Candidate]]
"""Of each kind the least misfit and the candidate whose it is."""

NO_BLUR: Candidate = (None, ())


def _seeds() -> list[Candidate]:
    sigmas = (0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0)
    radii = (1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0)
    seeds: list[Candidate] = [NO_BLUR]
    seeds += [("gaussian", (sigma,)) for sigma in sigmas]
    seeds += [("defocus", (radius,)) for radius in radii]
    seeds += [("motion", (n, float(angle))) for n in LENGTHS for angle in range(0, 180, 10)]
    return seeds


SEEDS = _seeds()
"""What is tried first; the best of each kind is then refined."""


@dataclass(frozen=True, kw_only=True)
class BlurParameter:
    """A number that describes a blur."""

    name: str
    value: float
    std: float
    """Uncertainty, one standard deviation."""
    unit: str


@dataclass(frozen=True, kw_only=True)
class EstimatedBlur:
    """What was found out about the blur of a video."""

    kind: BlurKind | None
    """None where there is none, or none that could be told from what a codec does."""
    operator: Operator
    """The blur, to be undone; the identity where `kind` is None."""
    parameters: tuple[BlurParameter, ...]
    confidence: Confidence
    """Of kind and parameters; of there being nothing to undo, where `kind` is None."""
    reason: str
    """A sentence for people: what was seen."""


@dataclass(frozen=True)
class _Bins:
    """Bins of frequency and direction over the half plane of a real Fourier transform."""

    index: NDArray[np.int64]
    """[side, side / 2 + 1]: which bin each frequency is in; `count.size` where in none."""
    count: Array
    """Frequencies in each bin."""
    frequency: Array
    """Mean of each bin, cycles per pixel."""
    weight: Array
    """How much each bin counts."""
    picture: Array
    """[bins, 6]: logarithm of the power of natural pictures, linear in what is fitted: its level, how
    that depends on direction (two harmonics, one of them straight), exponent and softness, as in
    `NaturalPrior`."""
    noise: Array
    """[bins, 4]: likewise of noise: its level, its fall, the bend of that, and what is more of it
    across and down than askew."""

    def mean(self, power: Array) -> Array:
        """Means [bins] of `power` [side, side / 2 + 1]."""
        return _binned(power, self.index, self.count)


def _binned(power: Array, index: NDArray[np.int64], count: Array) -> Array:
    total = np.bincount(index.ravel(), power.ravel(), len(count) + 1)
    return np.asarray(total[:-1] / count)


@lru_cache(maxsize=4)
def _bins(side: int) -> _Bins:
    v, u = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    frequency, angle = np.hypot(u, v), np.arctan2(v, u)
    ring = np.digitize(frequency, np.linspace(LOWEST, HIGHEST, RINGS + 1)) - 1
    direction = np.round(angle / math.pi * DIRECTIONS).astype(int) % DIRECTIONS
    is_repeated = (u == 0) & (v < 0)
    is_used = (ring >= 0) & (ring < RINGS) & ~is_repeated
    numbered = np.where(is_used, ring * DIRECTIONS + direction, RINGS * DIRECTIONS)
    used = np.unique(numbered[is_used])
    index = np.searchsorted(used, numbered)
    count = np.bincount(index[is_used], minlength=len(used)).astype(float)
    f, across, askew, straight = (
        _binned(what, index, count)
        for what in (frequency, np.cos(2 * angle), np.sin(2 * angle), np.cos(4 * angle))
    )
    one = np.ones_like(f)
    is_axis = used % DIRECTIONS % (DIRECTIONS // 2) == 0
    weight = np.minimum(count, 40) * np.where(is_axis, AXIS_WEIGHT, 1)
    picture = np.stack([one, across, askew, straight, -np.log(f), -(f**2)], 1)
    noise = np.stack([one, f, f**2 - f / 2, f * straight], 1)
    return _Bins(index, count, f, weight, picture, noise)


def _tile_side(frames: Frames) -> int:
    """The largest power of two that fits into the frames, up to `LARGEST_TILE`."""
    return min(LARGEST_TILE, 1 << int(math.log2(max(1, min(frames.shape[1:3])))))


def _log_power(luma: NDArray[np.float32], side: int) -> Array:
    """Logarithm of the mean power of tiles in each bin; luma [T, h, w] in levels (Welch 1967)."""
    line = np.hanning(side + 1)[:side].astype(np.float32)
    window = np.outer(line, line)
    window /= np.sqrt((window**2).mean())
    total, tiles = np.zeros((side, side // 2 + 1)), 0
    for frame in luma:
        for top in range(0, frame.shape[0] - side + 1, side // 2):
            for left in range(0, frame.shape[1] - side + 1, side // 2):
                tile = frame[top : top + side, left : left + side]
                tile = (tile - np.average(tile, weights=window**2)) * window
                total += np.abs(np.fft.rfft2(tile)) ** 2
                tiles += 1
    return np.log(np.maximum(_bins(side).mean(total / (tiles * side**2)), 1e-6))


def _operator(candidate: Candidate) -> Operator:
    kind, values = candidate
    makers: dict[BlurKind | None, Callable[..., Operator]] = {
        None: Identity,
        "gaussian": GaussianBlur,
        "defocus": Defocus,
        "motion": MotionBlur,
    }
    return makers[kind](*values)


@lru_cache(maxsize=1024)
def _log_transfer(candidate: Candidate, side: int) -> Array:
    """Logarithm of |H|^2 in each bin, as a window of `side` pixels shows it."""
    bins, operator = _bins(side), _operator(candidate)
    if isinstance(operator, PointSpread):
        transfer = np.abs(np.fft.fft2(operator.psf.numpy(), s=(side, side))) ** 2
    else:
        f = np.fft.fftfreq(side)
        squared = f[:, None] ** 2 + f**2
        sigma = operator.traits.blur_sigma
        transfer = np.exp(-((2 * math.pi * sigma) ** 2) * squared)
    for axis in (0, 1):  # the window smears what is seen over neighbouring frequencies
        around = np.roll(transfer, 1, axis) + np.roll(transfer, -1, axis)
        transfer = transfer * 2 / 3 + around / 6
    return np.log(bins.mean(transfer[:, : side // 2 + 1]) + 1e-9)


def _misfits(log_power: Array, candidates: Sequence[Candidate], side: int) -> Array:
    """How far the spectrum that each candidate would leave is from the one seen, [candidates].

    Mean square of the difference of logarithms, of large ones the mean. The power of the picture
    behind the blur and of the noise are fitted to each (Levenberg-Marquardt), near what is usual.
    """
    bins = _bins(side)
    transfers = np.stack([_log_transfer(candidate, side) for candidate in candidates])
    usual, stiffness, reach = _usual(log_power, bins)
    sought = np.tile(usual, (len(candidates), 1))

    def parted(sought: Array) -> tuple[Array, Array]:
        """(log power expected, part of it that is picture)."""
        picture = sought[:, :6] @ bins.picture.T + transfers
        noise = sought[:, 6:] @ bins.noise.T
        expected = np.logaddexp(picture, noise)
        return expected, np.exp(picture - expected)

    def cost(expected: Array, sought: Array) -> Array:
        misfit = _softened((log_power - expected) ** 2) * bins.weight
        return misfit.sum(1) + (((sought - usual) * stiffness) ** 2).sum(1)

    expected, share = parted(sought)
    costs, damping = cost(expected, sought), np.full(len(candidates), 1e-2)
    for _ in range(FIT_STEPS):
        rest = log_power - expected
        weight = (bins.weight / np.sqrt(1 + (rest / SOFT) ** 2))[..., None]
        slope = np.concatenate(
            [share[..., None] * bins.picture, (1 - share)[..., None] * bins.noise], 2
        )
        normal = slope.mT @ (slope * weight) + np.diag(stiffness**2)
        normal *= 1 + damping[:, None, None] * np.eye(slope.shape[-1])
        pull = slope.mT @ (rest[..., None] * weight)
        step = np.linalg.solve(normal, pull - ((sought - usual) * stiffness**2)[..., None])
        tried = sought + step[..., 0]
        tried = tried.clip(usual - reach, usual + reach)
        tried_expected, tried_share = parted(tried)
        tried_costs = cost(tried_expected, tried)
        is_better = tried_costs < costs
        sought[is_better], expected[is_better] = tried[is_better], tried_expected[is_better]
        share[is_better], costs[is_better] = tried_share[is_better], tried_costs[is_better]
        damping = np.where(is_better, 0.3 * damping, 5 * damping).clip(1e-6, 1e6)
    return np.asarray(costs / bins.weight.sum())


def _softened(square: Array) -> Array:
    """Squares of differences, growing like the difference itself where that is above `SOFT`."""
    return np.asarray(2 * SOFT**2 * (np.sqrt(1 + square / SOFT**2) - 1))


def _usual(log_power: Array, bins: _Bins) -> tuple[Array, Array, Array]:
    """What is fitted, as it usually is, how stiffly each number is held there, and its reach."""
    low, high = bins.frequency < 0.12, bins.frequency > 0.4
    level = np.median(log_power[low] + NATURAL_EXPONENT * np.log(bins.frequency[low]))
    floor = np.percentile(log_power[high], 40) + 0.45 * FLOOR_FALL
    usual = np.array([level, 0, 0, 0, NATURAL_EXPONENT, SOFTNESS, floor, -FLOOR_FALL, 0, 0])
    held = (EXPONENT_STD, SOFTNESS_STD, 4, FLOOR_FALL_STD, *FLOOR_SHAPE_STD)
    spread = np.array([1e3, 3, 3, 3, *held])
    reach = np.array([50, 9, 9, 9, 1, SOFTNESS, 30, 18, 60, 5])
    return usual, 0.15 * math.sqrt(bins.weight.sum()) / spread, reach


def _refined(log_power: Array, best: tuple[float, Candidate], side: int) -> tuple[float, Candidate]:
    """The misfit and candidate of least misfit near a good one."""
    for step in (1.0, 0.5, 0.25):
        near = _neighbours(best[1], step)
        if not near:
            return best
        misfits = _misfits(log_power, near, side)
        least = int(misfits.argmin())
        best = min(best, (float(misfits[least]), near[least]), key=lambda found: found[0])
    return best


def _neighbours(candidate: Candidate, step: float) -> list[Candidate]:
    kind, values = candidate
    if kind is None:
        return []
    changes = (-0.15, -0.07, 0.07, 0.15) if kind != "motion" else (-0.15, 0.0, 0.15)
    sizes = [round(min(values[0] * (1 + change * step), LARGEST[kind]), 3) for change in changes]
    if kind != "motion":
        return [(kind, (size,)) for size in sizes]
    angles = [round((values[1] + turn * step) % 180, 1) for turn in (-8, 0, 8)]
    return [(kind, (size, angle)) for size in sizes for angle in angles]


def _best_of_each_kind(log_power: Array, side: int) -> Best:
    """Of each kind the least misfit and whose it is."""
    misfits = _misfits(log_power, SEEDS, side)
    best: Best = {}
    for misfit, candidate in sorted(zip(misfits.tolist(), SEEDS, strict=True), key=lambda s: s[0]):
        best.setdefault(candidate[0], (misfit, candidate))
    return {kind: _refined(log_power, found, side) for kind, found in best.items()}


def estimate_blur(frames: Frames, *, codec_std: float = 0.0) -> EstimatedBlur:
    """The blur of a video, its size and how sure that is; or that there is none to undo, and why.

    Args:
        frames: [T, h, w, 3]; some from different moments show more than many of one.
        codec_std: root mean square error that the codec is expected to have left, in the [-1, 1] range,
            0 where nothing is known of it. A blur smaller than what such a codec does to sharp video is
            not told.
    """
    side = _tile_side(frames)
    if side < SMALLEST_TILE:
        return _nothing("low", "the frames are too small to show a blur")
    luma = luma_of(as_levels(frames[:: max(1, len(frames) // MOST_FRAMES)][:MOST_FRAMES]))
    if float(luma.std()) < FLAT_LEVELS:
        return _nothing("low", "the picture is too flat to show a blur")
    best = _best_of_each_kind(_log_power(luma, side), side)
    return _judged(best, _smallest_told(codec_std))


def _smallest_told(codec_std: float) -> float:
    """Sigma in pixels below which a blur could as well be the softness of lens and codec."""
    return SMALLEST_SIGMA + SIGMA_PER_CODEC_LEVEL * codec_std / LEVEL


def _judged(best: Best, smallest_sigma: float) -> EstimatedBlur:
    """What the misfits of the best candidate of each kind come to."""
    misfit = {kind: found[0] for kind, found in best.items()}
    kind = _nearest_kind(best)
    candidate = best[kind][1]
    sigma = _operator(candidate).traits.blur_sigma
    if misfit[None] < BLURRED[kind] * misfit[kind] or sigma < smallest_sigma:
        is_sharp = misfit[None] < SHARP * min(misfit.values())
        return _nothing(
            "high" if is_sharp else "low", "no blur shows beyond the softness of lenses and codecs"
        )
    if candidate[1][0] >= LARGEST[kind]:
        return _nothing("low", "the blur is larger than what the spectrum can tell")
    others = [misfit[other] for other in KINDS if other != kind]
    if min(others) < TOLD_APART * misfit[kind] and max(others) < HIDDEN * misfit[kind]:
        return _nothing("low", "noise or codec hide the spectrum that would show which blur it is")
    return _told(candidate, _confidence(misfit, kind))


def _nearest_kind(best: Best) -> BlurKind:
    """The kind that fits best; a Gaussian, which does least harm, where a small disc is hardly nearer."""
    gaussian, defocus, motion = (best[kind][0] for kind in KINDS)
    if motion < MOTION_NEARER * min(gaussian, defocus):
        return "motion"
    is_large = best["defocus"][1][1][0] >= SMALLEST_RADIUS
    if defocus < (DEFOCUS_NEARER if is_large else 1 / DEFOCUS_NEARER) * gaussian:
        return "defocus"
    return "gaussian"


def _confidence(misfit: Mapping[BlurKind | None, float], kind: BlurKind) -> Confidence:
    nearest_other = min(misfit[other] for other in KINDS if other != kind)
    if misfit[kind] < NEAR and nearest_other > CERTAIN * misfit[kind]:
        return "high"
    return "medium" if misfit[None] > 1.5 * BLURRED[kind] * misfit[kind] else "low"


def _told(candidate: Candidate, confidence: Confidence) -> EstimatedBlur:
    kind, values = candidate
    assert kind is not None
    if kind == "gaussian":
        values = (round(values[0] / GAUSSIAN_BIAS, 3),)
    part = PART_STD[confidence]
    size = BlurParameter(name=SIZE_NAMES[kind], value=values[0], std=part * values[0], unit="px")
    angle = tuple(
        BlurParameter(name="motion angle", value=turn, std=max(3.0, 60 * part), unit="degrees")
        for turn in values[1:]
    )
    return EstimatedBlur(
        kind=kind,
        operator=_operator((kind, values)),
        parameters=(size, *angle),
        confidence=confidence,
        reason=f"the spectrum is that of {LOOKS_LIKE[kind]}",
    )


def _nothing(confidence: Confidence, reason: str) -> EstimatedBlur:
    sigma = BlurParameter(name=SIZE_NAMES["gaussian"], value=0.0, std=0.5, unit="px")
    return EstimatedBlur(
        kind=None,
        operator=Identity(),
        parameters=(sigma,),
        confidence=confidence,
        reason=reason,
    )
