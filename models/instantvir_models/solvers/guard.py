"""Nothing leaves that contradicts the measurement, or departs from it without reason.

Whatever a student says is held against what is known without it, in tiles of `TILE_PIXELS`:

- what A x leaves of y, its residual, may be no larger than noise explains;
- what x adds to the initial estimate may have no more contrast than that has there;
- a number that is none is no picture.

A tile that fails becomes the initial estimate, which is consistent with y; tiles are blended over
`BLEND_PIXELS`, so there is no seam. All of it is a function of the block alone.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from instantvir_models.operators.consistency import consistent_and_measured
from instantvir_models.operators.measurement import LEVEL, LOSSY_STD, unexplained_std
from instantvir_models.solvers.base import Restored, Window
from instantvir_models.solvers.classical.initial import InitialEstimate
from instantvir_models.students.base import ERROR_CELL, Estimate

TILE_PIXELS = 32
"""Side of a tile of the clean video: small enough to keep what is right beside what is not, large
enough for 3072 values to tell what noise explains."""

BLEND_PIXELS = 8
"""A tile is blended with its neighbours up to twice as far into them."""

RESIDUAL_MARGIN = 1.25
"""How much larger than noise, and than that of the initial estimate, a residual may be. On held-out
clips, every task, the largest of any tile is 1.08 (1.24 in tiles of half the size)."""

CONTRAST_SHARE = 1.0
"""How large a correction may be, of the contrast of the initial estimate within quarters of the tile.
On held-out clips it comes to 0.95 where noise of 50 levels is taken away, elsewhere to 0.2 (enlargement
by two) to 0.8 (holes, blur)."""

CLIPPED_SHIFT = 0.5
"""By how much of the noise the mean of a picture may move: noise on black can only go up, which makes
it brighter by 0.4 of its deviation."""

CORRECTION_FLOOR = 2 * LEVEL
"""How large a correction may be where there is no contrast at all."""

SEEN_BEFORE = 64.0
"""Measured pixels of the expected noise that count beside those of a tile: of a tile with few
measured ones little can be said."""

BOUND = 4.0
"""No pixel is as far from mid-grey, nor is an estimate that has not been made consistent yet."""


def is_sound(estimate: Estimate) -> Tensor:
    """[B, T, 1, H, W], False where the estimate is no number, or one that no picture holds."""
    return estimate.x_hat.abs().amax(2, keepdim=True) <= BOUND


def bounded(estimate: Estimate, x_init: Tensor, *, is_sound: Tensor) -> Estimate:
    """`estimate`, that of x_init where it is not sound, so that consistency spreads no such thing."""
    x_hat = torch.where(is_sound, estimate.x_hat, x_init)
    std_map = None if estimate.std_map is None else _sound_std(estimate.std_map)
    return replace(estimate, x_hat=x_hat, std=_sound_std(estimate.std), std_map=std_map)


def _sound_std(std: Tensor) -> Tensor:
    return std.nan_to_num(InitialEstimate.std, InitialEstimate.std).clamp(0, BOUND)


@dataclass(frozen=True)
class Held:
    """What a solver made of a window, held against y."""

    restored: Restored
    """With A x."""
    residual: Tensor
    """[B, frames inside, 1, rows, columns], see `_residual`."""

    @classmethod
    def against(cls, window: Window, restored: Restored) -> "Held":
        """`restored`, held against the y of `window`."""
        A_x = restored.A_x
        if A_x is None:
            A_x = window.measurement.operator.A(restored.x)
        return cls(replace(restored, A_x=A_x), _residual(A_x, window))


def consistent(estimate: Estimate, x_init: Tensor, window: Window) -> Held:
    """The whole window, consistent with y.

    Where the student has weighed y already, only tiles that contradict it are corrected.

    Args:
        estimate: bounded, of the frames inside.
        x_init: [B, T, 3, H, W], the initial estimate of the whole window.
    """
    x_hat = window.joined(estimate.x_hat, x_init)
    restored = Restored(x_hat, estimate.std, std_map=estimate.std_map)
    is_wrong = None
    if estimate.is_final:
        held = Held.against(window, restored)
        is_wrong = _contradicts(held.residual, window)
        if not is_wrong.any():
            return held
    x, A_x = consistent_and_measured(x_hat, window.measurement, estimate_std=float(estimate.std[0]))
    if is_wrong is None:
        return Held.against(window, replace(restored, x=x, A_x=A_x))
    kept = kept_part(is_wrong, _clean_tile(window), x.shape[-2:])
    x[:, window.inside] = torch.lerp(x[:, window.inside], estimate.x_hat, kept)
    return Held.against(window, replace(restored, x=x))


def guarded(held: Held, x_init: Tensor, window: Window, *, is_sound: Tensor) -> Restored:
    """What is held, the tiles of it that cannot be right replaced and counted.

    Args:
        x_init: [B, T, 3, H, W], the initial estimate of the whole window.
        is_sound: [B, frames inside, 1, H, W], False where there was nothing to go by.
    """
    inside, tile = window.inside, _clean_tile(window)
    restored, residual = held.restored, held.residual
    is_wrong = _departs(restored.x[:, inside], x_init[:, inside], window)
    is_wrong |= pooled(1 - is_sound.float(), tile) > 0
    contradicts = _contradicts(residual, window)
    if not (is_wrong | contradicts).any():
        return restored
    fallback = InitialEstimate().corrected(x_init, window)
    least = Held.against(window, fallback).residual
    is_wrong |= contradicts & (residual > RESIDUAL_MARGIN * least)
    return _blended(restored, fallback, is_wrong, window, tile) if is_wrong.any() else restored


def _contradicts(residual: Tensor, window: Window) -> Tensor:
    return residual > RESIDUAL_MARGIN * unexplained_std(window.measurement.degradation)


def _blended(
    restored: Restored, fallback: Restored, is_wrong: Tensor, window: Window, tile: int
) -> Restored:
    inside = window.inside
    kept = kept_part(is_wrong, tile, restored.x.shape[-2:])
    x = restored.x.clone()
    x[:, inside] = torch.lerp(fallback.x[:, inside], x[:, inside], kept)
    part = kept.mean((1, 2, 3, 4))
    std = torch.lerp(fallback.std.square(), restored.std.square(), part).sqrt()
    replaced = tuple(round(part, 4) for part in (1 - kept).mean((0, 2, 3, 4)).tolist())
    std_map = restored.std_map
    if std_map is not None:
        share = F.avg_pool2d(
            kept.flatten(0, 1), ERROR_CELL, ceil_mode=True, count_include_pad=False
        )
        share = share.unflatten(0, std_map.shape[:2])
        std_map = torch.lerp(fallback.std.square()[0], std_map.square(), share).sqrt()
    return Restored(x, std, replaced, std_map=std_map)


def kept_part(is_wrong: Tensor, tile: int, size: tuple[int, int] | torch.Size) -> Tensor:
    """[B, T, 1, H, W] what is kept: 0 in wrong tiles [B, T, 1, rows, columns], smooth, 1 far away."""
    cell = math.gcd(tile, BLEND_PIXELS)  # in cells of that size, all of it is one number
    rows, columns = (-(-length // cell) for length in size)
    cells = is_wrong.float().repeat_interleave(tile // cell, -2)
    cells = cells.repeat_interleave(tile // cell, -1)[..., :rows, :columns].flatten(0, 1)
    reach = BLEND_PIXELS // cell
    wider = F.max_pool2d(cells, 2 * reach + 1, 1, reach)
    down, across = (_near(length, cell).to(wider) for length in size)
    counts = down.sum(1, keepdim=True) * across.sum(1)
    return (1 - down @ wider @ across.mT / counts).unflatten(0, is_wrong.shape[:2])


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _near(length: int, cell: int) -> Tensor:
    """[pixels, cells] how many pixels of each cell are up to `BLEND_PIXELS` away from each pixel."""
    places = torch.arange(length)
    near = (places[:, None] - places).abs() <= BLEND_PIXELS
    return F.pad(near, (0, -length % cell)).unflatten(1, (-1, cell)).sum(-1)


def _departs(x: Tensor, x_init: Tensor, window: Window) -> Tensor:
    """[B, T, 1, rows, columns], whether x is further from x_init than its contrast allows."""
    tile, free = _clean_tile(window), _free(window)
    mean = pooled(x_init, tile // 2)
    squared = pooled(x_init.square().mean(2, keepdim=True), tile // 2)
    contrast = squared - mean.square().mean(2, keepdim=True)
    contrast = pooled(contrast.clamp_min(0), 2)
    degradation = window.measurement.degradation
    lossy = LOSSY_STD if degradation.is_lossy else 0.0
    allowed = (contrast + (CLIPPED_SHIFT * degradation.noise_std) ** 2 + lossy**2).sqrt()
    correction = (x - x_init).square().mean(2, keepdim=True)
    correction = pooled(correction * free, tile) / (pooled(free, tile) + SEEN_BEFORE / tile**2)
    return correction.sqrt() > CONTRAST_SHARE * allowed + CORRECTION_FLOOR


def _free(window: Window) -> Tensor:
    """[1, 1 or T, 1, H, W], 0 where a pixel of the frames inside was measured itself."""
    operator, y = window.measurement.operator, window.measurement.y
    known = operator.known_pixels(y) if operator.only_selects else None
    if known is None:
        return y.new_ones(1, 1, 1, *operator.clean_size(*y.shape[-2:]))
    return 1 - (known if known.shape[1] == 1 else known[:, window.inside])


def _residual(A_x: Tensor, window: Window) -> Tensor:
    """[B, frames inside, 1, rows, columns] root mean square of A x - y over what was measured."""
    operator, y = window.measurement.operator, window.measurement.y
    tile, inside = _measured_tile(window), window.inside
    error = (A_x - y)[:, inside].square().mean(2, keepdim=True)
    if not any(part.only_selects for part in operator.parts):
        return pooled(error, tile).sqrt()
    ones = y.new_ones(1, y.shape[1], 1, *operator.clean_size(*y.shape[-2:]))
    seen = (operator.A(ones) != 0)[:, inside].float()
    expected = unexplained_std(window.measurement.degradation) ** 2
    prior = SEEN_BEFORE / tile**2
    total = pooled(error * seen, tile) + prior * expected
    return (total / (pooled(seen, tile) + prior)).sqrt()


def _factor(window: Window) -> int:
    """How many pixels of the clean video there are to one of the measurement, along a side."""
    height = window.measurement.y.shape[-2]
    return window.measurement.operator.clean_size(height, height)[0] // height


def _measured_tile(window: Window) -> int:
    """Side of a tile in measured pixels, an even number."""
    return 2 * max(1, TILE_PIXELS // 2 // _factor(window))


def _clean_tile(window: Window) -> int:
    return _measured_tile(window) * _factor(window)


def pooled(x: Tensor, tile: int) -> Tensor:
    """Means over tiles, [B, T, C, rows, columns]; those at the lower and right edge may be smaller."""
    pooled = F.avg_pool2d(x.flatten(0, 1), tile, ceil_mode=True, count_include_pad=False)
    return pooled.unflatten(0, x.shape[:2])
