"""Unknown parameters read off the video itself: noise, blur and missing pixels.

Frames are uint8 or uint16 arrays [T, h, w, 3], a dozen or fewer.
"""

import math
import warnings
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instantvir_models.operators.estimate_blur import BlurParameter as BlurParameter
from instantvir_models.operators.estimate_blur import EstimatedBlur as EstimatedBlur
from instantvir_models.operators.estimate_blur import estimate_blur as estimate_blur
from instantvir_models.operators.measurement import LEVEL
from instantvir_models.operators.sample import Confidence, Frames, as_levels, luma_of

PATCH = 8
"""Side of a noise patch in pixels of the half-size diagonal band."""

FLATTEST = 0.1
"""Quantile of patches that are taken as free of texture."""

REACH = 2.0
"""Deviations of the noise that a patch has to be away from black and white."""

MOST_MARGIN = 100.0
"""Levels that it has to be away at most: beyond, nothing would be left."""

FLATTEST_BIAS = 0.93
"""What that quantile of the standard deviation of 192 Gaussian samples is, in units of sigma."""

SMALLEST_SIDE = 16
"""Frames with a shorter side have no spectrum worth the name."""

KNEE_BINS = 3
"""Bins of the radial spectrum over which its fall is taken."""

SLACK = 0.6
"""Where the spectrum falls by less than this part of its steepest fall so far, noise begins."""

STEEP = 5.0
"""A fall by this power of the frequency shows blur; sharp pictures stay below."""

LUMA_NOISE_POWER = 0.45
"""Noise power of luma over that of one channel: luma averages three."""

FLOOR_BIAS = 0.6
"""Inverse bias of the noise at the knee on eight training clips (blur of 2 and 3, noise 2.55, lossless
and CRF 18): it still holds some picture."""

KNEE_BIAS, KNEE_BIAS_PER_PIXEL = 0.27, 0.38
"""What that finds, over the true error of H.264: by the blur, for the wider it is, the lower the
frequency of the knee, and the more of a codec's error lies there. Medians over ten training clips at CRF
16 to 24: 0.85 at a blur of 1.6 pixels, 1.0 at 2, 1.35 at 3, 1.6 at 3.5, 2.1 at 4.5."""

FLATTEST_CHANNEL_BIAS = 0.89
"""The same of 64 samples."""

FEWEST_PATCHES = 4

FLAT_PART = 0.2
"""Of the patches, the flattest, whose single values are looked at."""

QUARTER = 0.3186
"""What a quarter of the sizes of Gaussian samples stays below, in units of sigma."""

FEWEST_FOR_TENTH = 10
"""Patches of a frame that have a flattest tenth; of fewer it is one patch, and may be texture."""

MOST_DOUBT = 0.4
"""Part of what was found by which its smallest values may fall short. Of 1001 small clips on which white
noise of 5 to 25 levels was found 2 in 100 fall short by more; of 327 clean ones on which texture or
letters were taken for 1.5 levels or more 64 in 100, letters and outlines by all of it."""

HOLE_LEVELS = (0, 127, 128, 255)
"""Values of missing pixels: black, the mid-grey that `degrade` writes, white."""


@dataclass(frozen=True)
class Estimated:
    """A number read off a video."""

    value: float
    std: float
    """Uncertainty, one standard deviation."""
    confidence: Confidence


@dataclass(frozen=True)
class EstimatedMask:
    """Missing pixels found in a video."""

    mask: Tensor
    """[1, 1, H, W], or [T, 1, H, W] if they change; 1 where a pixel is known."""
    missing_fraction: float
    confidence: Confidence
    per_frame: bool


def estimate_noise_std(frames: Frames) -> Estimated:
    """Standard deviation of white noise in the [-1, 1] range.

    The spread of the finest diagonal Haar band over small patches; the flattest tenth of the
    patches shows the noise, the others show texture too. Clipped patches do not count. Texture that
    fills all patches is taken for noise; it is unsure where there are few of them, and where most of
    a patch is flatter than the whole of it, as lines are and noise is not.
    """
    each = [_frame_noise(frame) for frame in as_levels(frames)]
    values = np.array([one.levels for one in each])
    usable = float(np.mean([one.usable for one in each]))
    patches = usable * max(one.patches for one in each)
    value = float(np.median(values))
    doubt = max(0.0, value - float(np.median([one.core_levels for one in each])))
    is_sparse = doubt > MOST_DOUBT * value
    std = max(float(values.std()), 0.05 * value, 0.2, doubt if is_sparse else 0.0)
    confidence: Confidence = "high" if usable > 0.3 else "medium" if usable > 0.05 else "low"
    if patches < FEWEST_FOR_TENTH or is_sparse:
        confidence = "low"
    return Estimated(value * LEVEL, std * LEVEL, confidence)


@dataclass(frozen=True)
class _FrameNoise:
    """What the finest band of one frame shows."""

    levels: float
    usable: float = 0.0
    """Part of the patches that could be used."""
    core_levels: float = 0.0
    """The same by the smallest values within the flattest patches: as much, where it is noise."""
    patches: int = 0


def _frame_noise(frame: NDArray[np.float32]) -> _FrameNoise:
    height, width = (size // (2 * PATCH) * 2 * PATCH for size in frame.shape[:2])
    if not height or not width:
        return _FrameNoise(0.0)
    frame = frame[:height, :width]
    a, b, c, d = frame[::2, ::2], frame[::2, 1::2], frame[1::2, ::2], frame[1::2, 1::2]
    diagonal = _patches((a - b - c + d) / 2)
    power, mean = (diagonal**2).mean(1), _patches((a + b + c + d) / 4).mean(1)  # [n, 3]
    whole = np.sqrt(power.mean(1, keepdims=True))
    found = _flattest(whole, mean, bias=FLATTEST_BIAS)
    if found is None:  # no patch is clear of black and white in all of its channels
        found = _flattest(np.sqrt(power), mean[..., None], bias=FLATTEST_CHANNEL_BIAS)
    levels, usable = found or (float(np.quantile(whole, FLATTEST)) / FLATTEST_BIAS, 0.0)
    return _FrameNoise(levels, usable, _core(diagonal, whole[:, 0], mean), len(whole))


def _core(
    diagonal: NDArray[np.floating], spread: NDArray[np.floating], mean: NDArray[np.floating]
) -> float:
    """Noise in levels by the smallest values in the flattest patches that are not black or white."""
    clear = _is_unclipped(mean, np.zeros_like(mean)).all(-1)
    clear = clear if clear.any() else np.ones_like(clear)
    flattest = clear & (spread <= np.quantile(spread[clear], FLAT_PART))
    return float(np.quantile(np.abs(diagonal[flattest]), 0.25)) / QUARTER


def _flattest(
    spread: NDArray[np.floating], mean: NDArray[np.floating], *, bias: float
) -> tuple[float, float] | None:
    """Noise in levels where it is cut off nowhere, and the share of it; None if that is hardly any.

    Args:
        spread: [n, 1 or 3] of patches, or of channels of patches.
        mean: [n, 3] or [n, 3, 1] of every channel in each.
        bias: of the quantile.
    """
    certain = _is_unclipped(mean, spread if mean.ndim == 2 else spread[..., None]).all(-1)
    if certain.sum() < FEWEST_PATCHES:
        return None
    values = spread[:, 0] if mean.ndim == 2 else spread
    usable = _is_unclipped(mean, np.quantile(values[certain], FLATTEST)).all(-1)
    return float(np.quantile(values[usable], FLATTEST)) / bias, float(usable.mean())


def _is_unclipped(mean: NDArray[np.floating], noise: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Where `noise` does not reach black or white from `mean`, all in levels: what is cut off there
    looks like less noise."""
    margin = np.clip(REACH * noise, 2, MOST_MARGIN) + 1
    return (mean > margin) & (mean < 255 - margin)


def _patches(x: NDArray[np.floating]) -> NDArray[np.floating]:
    """[n, PATCH * PATCH, 3] from [h, w, 3]."""
    rows, columns = x.shape[0] // PATCH, x.shape[1] // PATCH
    grid = x.reshape(rows, PATCH, columns, PATCH, 3).transpose(0, 2, 1, 3, 4)
    return grid.reshape(rows * columns, PATCH * PATCH, 3)


def estimate_blur_sigma(frames: Frames, noise_std: float) -> Estimated:
    """Standard deviation in pixels of the Gaussian nearest to the blur; 0 for a sharp video.

    Deprecated: `estimate_blur` also says which kind of blur it is.
    """
    warnings.warn(
        "`estimate_blur_sigma` leaves in 0.5: use `estimate_blur`, which says the kind of blur too",
        DeprecationWarning,
        stacklevel=2,
    )
    found = estimate_blur(frames)
    sigma = found.operator.traits.blur_sigma
    std = max((p.std for p in found.parameters if p.unit == "px"), default=0.5)
    return Estimated(sigma, std, found.confidence)


def _radial_spectrum(frame: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequencies in cycles per pixel and mean power in [-1, 1] units at them."""
    luma = luma_of(frame) * LEVEL
    height, width = (size // 2 * 2 for size in luma.shape)
    power = cv2.dct(np.ascontiguousarray(luma[:height, :width])) ** 2
    v = np.arange(height)[:, None] / (2 * height)
    u = np.arange(width)[None] / (2 * width)
    radius = np.sqrt(u**2 + v**2)
    edges = np.linspace(0.02, 0.48, 47)
    which = np.digitize(radius, edges)
    total = np.bincount(which.ravel(), power.ravel(), len(edges) + 1)[1:-1]
    count = np.bincount(which.ravel(), minlength=len(edges) + 1)[1:-1]
    return (edges[1:] + edges[:-1]) / 2, total / np.maximum(count, 1)


def estimate_codec_noise_std(frames: Frames, *, blur_sigma: float) -> float:
    """Standard deviation in the [-1, 1] range of what a codec left on a blurred video; 0 if none shows.

    A codec spares the finest band, where `estimate_noise_std` looks, so on blurred videos it finds
    too little; here the noise is read off the place where the spectrum stops falling.

    Args:
        blur_sigma: of the Gaussian nearest to the blur, in pixels.
    """
    if min(frames.shape[1:3]) < SMALLEST_SIDE:
        return 0.0
    floors = [_codec_floor(*_radial_spectrum(frame)) for frame in as_levels(frames)[:6]]
    at_knee = FLOOR_BIAS * math.sqrt(float(np.median(floors)) / LUMA_NOISE_POWER)
    return at_knee / (KNEE_BIAS + KNEE_BIAS_PER_PIXEL * blur_sigma)


def _codec_floor(frequency: NDArray[np.float64], power: NDArray[np.float64]) -> float:
    """Power at which the spectrum stops falling like that of a blurred picture; 0 if it never does.

    On a log-log plot a blurred picture falls ever more steeply. Where the fall slackens, what is
    left is noise. A codec's is not white, so the finest band alone does not show it.
    """
    log_f, log_power = np.log(frequency), np.log(np.maximum(power, 1e-12))
    fall = (log_power[:-KNEE_BINS] - log_power[KNEE_BINS:]) / (
        log_f[KNEE_BINS:] - log_f[:-KNEE_BINS]
    )
    steepest = np.maximum.accumulate(fall)
    slack = np.flatnonzero((fall < SLACK * steepest) & (steepest > STEEP))
    return float(power[slack[0]]) if len(slack) else 0.0


def estimate_mask(frames: Frames) -> EstimatedMask:
    """Pixels that hold nothing: of one extreme value, scattered or thin, unlike their neighbours.

    Large areas of one value (letterbox bars, night skies) are picture, not holes.
    """
    levels = as_levels(frames)
    found = [_holes(levels, hole) for hole in HOLE_LEVELS]
    holes = max(found, key=lambda h: float(h.mean()))
    always: NDArray[np.bool_] = np.asarray(holes.all(0))
    ever = float(holes.mean())
    fraction = float(always.mean())
    if ever < 0.001:
        known = torch.ones(1, 1, *holes.shape[1:])
        return EstimatedMask(known, 0.0, "high", False)
    per_frame = len(holes) > 1 and fraction < 0.6 * ever
    kept = holes if per_frame else always[None]
    missing = float(kept.mean())
    mask = torch.from_numpy(1 - kept.astype(np.float32))[:, None]
    confidence: Confidence = "high" if missing > 0.02 and len(holes) > 1 else "medium"
    return EstimatedMask(mask, missing, confidence, per_frame)


def _holes(levels: NDArray[np.float32], hole: int) -> NDArray[np.bool_]:
    """[T, h, w], True where all channels are `hole`, the surroundings differ and are not solid."""
    candidates: NDArray[np.bool_] = np.asarray((np.abs(levels - hole) <= 0.5).all(-1))
    if candidates.mean() < 0.001:
        return np.zeros_like(candidates)
    out = np.empty_like(candidates)
    for t, (frame, candidate) in enumerate(zip(levels, candidates, strict=True)):
        core = cv2.erode(candidate.astype(np.uint8), np.ones((7, 7), np.uint8))
        solid = cv2.dilate(core, np.ones((15, 15), np.uint8)) > 0
        known = (~candidate).astype(np.float32)
        weight = cv2.boxFilter(known, -1, (9, 9), normalize=False)
        around = cv2.boxFilter(frame.mean(-1) * known, -1, (9, 9), normalize=False)
        contrast = np.abs(around / np.maximum(weight, 1) - hole)
        # an exact mid-grey in all three channels is rare in pictures, black and white are not
        is_unlike = contrast > (12 if hole in (0, 255) else -1)
        out[t] = candidate & np.logical_not(solid) & (weight > 0) & is_unlike
    if out.mean() < 0.3 * candidates.mean():  # mostly picture that happens to have this value
        return np.zeros_like(candidates)
    return out
