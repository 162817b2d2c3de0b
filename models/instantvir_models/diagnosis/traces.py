"""What damage leaves in pictures: numbers that later are read as noise and as codec error.

Frames are uint8 or uint16 arrays [T, h, w, 3], a dozen or fewer. Nothing here judges.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from instantvir_models.media.coding import FrameCoding
from instantvir_models.media.frame import Pixels
from instantvir_models.operators.estimate import estimate_noise_std
from instantvir_models.operators.measurement import LEVEL

Levels = NDArray[np.float32]

PATCH = 8
"""Side in pixels of the patches that are compared."""

FLATTEST = 0.1
"""Quantile of patches that are taken as free of texture and of wrong motion."""

BUSIEST = 0.8
"""Quantile of patches from which on they count as busy."""

LARGEST_SIDE = 640
"""Of the middle of the frame that is looked at."""

SMALLEST_SIDE = 32
"""Frames with a shorter side have too few patches."""

LUMA = np.array([[0.299, 0.587, 0.114]], np.float32)

SMOOTH = np.array([1, 4, 6, 4, 1], np.float32) / 16
"""Separable low pass between the bands."""


@dataclass(frozen=True, kw_only=True)
class Traces:
    """Of one video, in 8-bit levels unless said otherwise; luma unless said otherwise."""

    finest: float
    """Noise by the finest diagonal Haar band, of all channels (`estimate_noise_std`)."""
    fine: float
    """Spread of the flattest patches in the first octave."""
    middle: float
    """The same in the second octave."""
    coarse: float
    """The same in the third."""
    changing_fine: float
    """What is left in flat patches of a frame less its motion-compensated neighbour: first octave,
    divided by the square root of two. 0 where there is one frame only."""
    changing_clear: float
    """The same where noise is cut off at neither black nor white, in any channel."""
    changing_middle: float
    """The same as `changing_fine` in the second octave."""
    changing_chroma: float
    """The same of the colour differences, all octaves."""
    chroma: float
    """Spread of colour differences in the first two octaves of the flattest patches of a frame."""
    texture: float
    """Typical spread of all patches in the first two octaves."""
    edges: float
    """Rms gradient, of noise and of picture."""
    blockiness: float
    """Steps across the lines of the 8x8 grid over those elsewhere; 1 where there is no grid."""
    clipped: float
    """Part of the picture that is black or white."""
    step: float | None
    """Rms quantiser step, None where the codec does not tell."""
    bits_per_pixel: float | None
    """None where nothing tells."""
    codec_name: str | None
    """None for pictures without a codec."""
    is_lossless: bool
    """Whether that codec loses nothing."""
    num_frames: int
    is_small: bool
    """Whether the frame is too small to be looked at."""
    sharpness: float = 0.0
    """First octave over second where the picture is busiest, less the noise of flat patches: about .7
    in pictures as they are, more than 1 where edges were exaggerated."""


def traces_of(frames: Pixels, codings: Sequence[FrameCoding | None] = ()) -> Traces:
    """The traces of a few consecutive frames [T, h, w, 3] and of how they were stored."""
    levels = _levels(middle_of(frames))
    levels = levels if frames.dtype == np.uint8 else levels / np.float32(257)
    luma = [luma_of(frame) for frame in levels]
    octaves = [_octaves(one) for one in luma]
    fine, middle, coarse = (_median(_flat_spread(o[n]) for o in octaves) for n in range(3))
    finest = estimate_noise_std(frames).value / LEVEL
    changes = [_changes(*pair, noise=finest) for pair in itertools.pairwise(levels)]
    changing = [_median(change[n] for change in changes) for n in range(4)]
    known = [coding for coding in codings if coding is not None]
    return Traces(
        finest=finest,
        fine=fine,
        middle=middle,
        coarse=coarse,
        changing_fine=changing[0],
        changing_middle=changing[1],
        changing_chroma=changing[2],
        changing_clear=changing[3],
        chroma=_median(_chroma_spread(frame) for frame in levels),
        texture=_median(float(np.median(_spreads(o[0] + o[1]))) for o in octaves),
        edges=_median(_gradient(one) for one in luma),
        blockiness=_median(_blockiness(one) for one in luma),
        clipped=float(np.mean([np.mean((one < 2) | (one > 253)) for one in luma])),
        step=_rms_step(known),
        bits_per_pixel=_bits_per_pixel(known, frames.shape[1] * frames.shape[2]),
        codec_name=known[0].codec_name if known else None,
        is_lossless=not known or known[0].is_lossless,
        num_frames=len(frames),
        is_small=min(frames.shape[1:3]) < SMALLEST_SIDE,
        sharpness=_median(_sharpness(*o[:2]) for o in octaves),
    )


def middle_of(frames: Pixels) -> Pixels:
    """The middle of the frames, cut on the 8x8 grid, so that blocks stay blocks."""
    height, width = frames.shape[1:3]
    top, left = (max(0, size - LARGEST_SIDE) // 2 // 16 * 16 for size in (height, width))
    return frames[:, top : top + LARGEST_SIDE, left : left + LARGEST_SIDE]


def luma_of(frame: Levels) -> Levels:
    """[h, w] of [h, w, 3]."""
    return _levels(cv2.transform(frame, LUMA))


def _levels(picture: Any) -> Levels:
    return np.asarray(picture, np.float32)


def _octaves(luma: Levels) -> list[Levels]:
    """Three bands at full size: luma less its low pass, and so on with a wider one."""
    bands, rest = [], luma
    for octave in range(3):
        smooth: Levels = _levels(cv2.sepFilter2D(rest, -1, _dilated(octave), _dilated(octave)))
        bands.append(rest - smooth)
        rest = smooth
    return bands


def _dilated(octave: int) -> Levels:
    kernel = np.zeros(4 * 2**octave + 1, np.float32)
    kernel[:: 2**octave] = SMOOTH
    return kernel


def flat_map(luma: Levels) -> Levels:
    """[h / 8, w / 8] spread of every patch in the first octave: noise where the picture is flat."""
    return _spread_grid(_octaves(luma)[0])


def _spreads(band: Levels) -> Levels:
    """Rms of every patch of a band [h, w]; at least one."""
    return _spread_grid(band).ravel()


def _spread_grid(band: Levels) -> Levels:
    rows, columns = (max(1, size // PATCH) for size in band.shape)
    height, width = min(band.shape[0], PATCH * rows), min(band.shape[1], PATCH * columns)
    means = cv2.resize(
        np.square(band[:height, :width]), (columns, rows), interpolation=cv2.INTER_AREA
    )
    return np.sqrt(means).reshape(rows, columns)


def _sharpness(fine: Levels, middle: Levels) -> float:
    first, second = _spreads(fine), _spreads(middle)
    busiest = second >= np.quantile(second, BUSIEST)
    noise = np.quantile(first, FLATTEST)
    signal = np.sqrt(np.maximum(first[busiest] ** 2 - noise**2, 0))
    return float(np.median(signal / np.maximum(second[busiest], 0.1)))


def _flat_spread(band: Levels) -> float:
    return float(np.quantile(_spreads(band), FLATTEST))


def _chroma_spread(frame: Levels) -> float:
    chroma = frame - luma_of(frame)[..., None]
    bands = [_octaves(np.ascontiguousarray(chroma[..., c]))[:2] for c in (0, 2)]
    return float(np.mean([_flat_spread(fine + middle) for fine, middle in bands]))


def _changes(before: Levels, after: Levels, *, noise: float) -> tuple[float, float, float, float]:
    """Flat spreads of what changes along the motion: fine, middle, chroma, and fine where `noise` is
    cut off nowhere."""
    shifted = moved(before, after)
    difference = (after - shifted) / np.float32(math.sqrt(2))
    luma = luma_of(difference)
    fine, middle, _ = _octaves(luma)
    chroma = difference - luma[..., None]
    spread = np.sqrt(np.mean([_spreads(chroma[..., c]) ** 2 for c in range(3)], 0))
    grid = _spread_grid(fine)
    clear = grid[_is_clear(after, grid.shape, noise)]
    return (
        _flat_spread(fine),
        _flat_spread(middle),
        float(np.quantile(spread, FLATTEST)),
        float(np.quantile(clear if clear.size else grid, FLATTEST)),
    )


def _is_clear(frame: Levels, shape: tuple[int, ...], noise: float) -> NDArray[np.bool_]:
    """Patches `shape` that are further than the noise goes from black and white in every channel."""
    rows, columns = shape
    height, width = min(frame.shape[0], PATCH * rows), min(frame.shape[1], PATCH * columns)
    means = cv2.resize(frame[:height, :width], (columns, rows), interpolation=cv2.INTER_AREA)
    margin = min(2 * noise, 100.0) + 1
    near = np.abs(means.reshape(rows, columns, 3) - 127.5).max(-1)
    return np.asarray(near < 127.5 - margin)


def moved(before: Levels, after: Levels) -> Levels:
    """The frame before, moved onto the one after; whole pixels, so that its noise stays white."""
    height, width = after.shape[:2]
    if min(height, width) < SMALLEST_SIDE:
        return before
    guides = [_guide(frame) for frame in (after, before)]
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    estimator.setFinestScale(0)
    flow = estimator.calc(*guides, None)  # type: ignore[call-overload]
    flow = 2 * cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR)
    rows, columns = np.indices((height, width), np.float32)
    looked_up = cv2.remap(
        before,
        columns + flow[..., 0],
        rows + flow[..., 1],
        cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return _levels(looked_up)


def _guide(frame: Levels) -> NDArray[np.uint8]:
    half = cv2.resize(luma_of(frame), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.convertScaleAbs(cv2.GaussianBlur(half, (5, 5), 1.0)), np.uint8)


def _gradient(luma: Levels) -> float:
    if min(luma.shape) < 2:
        return 0.0
    return math.sqrt(float(np.mean(np.diff(luma, axis=0) ** 2) + np.mean(np.diff(luma) ** 2)))


def _blockiness(luma: Levels) -> float:
    """Second differences across every eighth line against those beside it, rows and columns."""
    return math.sqrt(_grid_ratio(luma) * _grid_ratio(luma.T))


def _grid_ratio(luma: Levels) -> float:
    if luma.shape[1] < 4 * PATCH:
        return 1.0
    step = np.abs(np.diff(luma)).mean(0)
    jump = step[1:-1] - (step[:-2] + step[2:]) / 2
    at = np.arange(1, len(step) - 1)
    on_grid, elsewhere = at % PATCH == PATCH - 1, at % PATCH == PATCH // 2 - 1
    scale = step.mean() + 0.25
    return float(max(0.2, 1 + (jump[on_grid].mean() - jump[elsewhere].mean()) / scale))


def _rms_step(codings: Sequence[FrameCoding]) -> float | None:
    steps = [coding.step for coding in codings if coding.step is not None]
    return math.sqrt(float(np.mean(np.square(steps)))) if steps else None


def _bits_per_pixel(codings: Sequence[FrameCoding], pixels: int) -> float | None:
    sizes = [coding.num_bytes for coding in codings if coding.num_bytes is not None]
    return 8 * float(np.mean(sizes)) / pixels if sizes else None


def _median(values: object) -> float:
    listed = list(values)  # type: ignore[call-overload]
    return float(np.median(listed)) if listed else 0.0
