"""How far an estimate of a noisy video goes from it: as far as the error it expects of itself allows.

Small type on a noisy screen is hardly better known to a student than to the measurement, and it says
so. Of y with an error of variance n and x_hat = y + d with one of variance s, the best video between
the two is y + a d with a = (n + |d|^2 - s) / (2 |d|^2): its error is (1 - a) n + a s - a (1 - a) |d|^2.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from instantvir_models.operators.compose import Identity
from instantvir_models.operators.measurement import unexplained_std
from instantvir_models.solvers.base import Window
from instantvir_models.solvers.guard import pooled
from instantvir_models.students.base import ERROR_CELL, Estimate

TILE_CELLS = 8
"""Side of a tile in cells of an error map. Over fewer, |d|^2 and the expected error say less than they
cost: .1 dB at noise of 5 levels with single cells, nothing with tiles."""


def as_far_as_sure(estimate: Estimate, window: Window) -> Estimate:
    """`estimate`, nearer to y where it expects to be hardly closer to the truth than y is.

    Of noise alone: behind a codec nobody knows how far y is off in one place. A student without an
    error map, or whose estimate is still to be made consistent with y, is left as it is.
    """
    degradation = window.measurement.degradation
    if estimate.std_map is None or not estimate.is_final or degradation.is_lossy:
        return estimate
    if not isinstance(degradation.operator, Identity):
        return estimate
    y, noise = window.measurement.y[:, window.inside], unexplained_std(degradation) ** 2
    d = estimate.x_hat - y
    squared, error = (
        pooled(d.square().mean(2, keepdim=True), ERROR_CELL),
        estimate.std_map.square(),
    )
    share = best_share(pooled(squared, TILE_CELLS), pooled(error, TILE_CELLS), noise)
    if bool((share == 1).all()):
        return estimate
    by_cell = _enlarged(share, TILE_CELLS, error.shape[-2:])
    a = _enlarged(share, TILE_CELLS * ERROR_CELL, y.shape[-2:])
    error = (1 - by_cell) * noise + by_cell * error - by_cell * (1 - by_cell) * squared
    error = error.clamp_min(0)
    std = error.mean((1, 2, 3, 4)).sqrt()
    return replace(estimate, x_hat=y + a * d, std=std, std_map=error.sqrt())


def best_share(squared: Tensor, error: Tensor, noise: float) -> Tensor:
    """Of a correction, how much of it makes the expected error least, in [0, 1].

    Args:
        squared: mean square of the correction.
        error: expected mean square error with all of it.
        noise: expected mean square error with none of it.
    """
    return ((noise + squared - error) / (2 * squared).clamp_min(1e-12)).clamp(0, 1)


def _enlarged(values: Tensor, factor: int, size: torch.Size) -> Tensor:
    """[B, T, 1, *size] of squares of a side of `factor`, without seams."""
    large = F.interpolate(values.flatten(0, 1), scale_factor=factor, mode="bilinear")
    return large[..., : size[0], : size[1]].unflatten(0, values.shape[:2])
