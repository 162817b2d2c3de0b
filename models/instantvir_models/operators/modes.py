"""An operator seen in the basis in which it is simple: the modes of the DCT-II.

Borders are mirrored everywhere, so every even blur multiplies each mode of the clean video by a
number, and every down-sampling adds modes that alias up to one (exactly, not as an approximation).
What such steps make of a quadratic problem is a division per mode.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Protocol

import torch
from torch import Tensor

from instantvir_models.operators.dct import dct, dct2, idct, idct2

BANDS = 24
"""Bands of spatial frequency in which the power of a video is looked at."""


@dataclass(frozen=True)
class Grid:
    """The modes of a video: frequencies over time, down and across."""

    frames: int
    height: int
    width: int


class ModeStep(Protocol):
    """One step of an operator between the modes [..., T, C, H, W] of two videos."""

    def forward(self, modes: Tensor) -> Tensor:
        """A x from x, both as modes."""

    def adjoint(self, modes: Tensor) -> Tensor:
        """A^T y from y, both as modes."""

    def power(self, power: Tensor) -> Tensor:
        """Power of each mode of A x where x has independent modes of `power` [T or 1, 1, H, W]."""

    def energy(self, later: Tensor) -> Tensor:
        """|A e|^2 of each mode e of x, where a mode of A x then counts `later` [T or 1, 1, h, w]."""


@dataclass(frozen=True, eq=False)
class Gain:
    """Every mode times a number: blur."""

    gain: Tensor
    """[T or 1, 1, H or 1, W or 1] float64."""

    def forward(self, modes: Tensor) -> Tensor:
        return modes * self.gain.to(modes)

    def adjoint(self, modes: Tensor) -> Tensor:
        return self.forward(modes)

    def power(self, power: Tensor) -> Tensor:
        return power * self.gain.square()

    def energy(self, later: Tensor) -> Tensor:
        return self.power(later)


@dataclass(frozen=True, eq=False)
class Fold:
    """Modes that look the same on a coarser grid, added up: down-sampling."""

    rows: Tensor
    """[h, H] float64, one number other than 0 in each column at most."""
    columns: Tensor
    """[w, W] likewise."""

    def forward(self, modes: Tensor) -> Tensor:
        return self.rows.to(modes) @ modes @ self.columns.to(modes).mT

    def adjoint(self, modes: Tensor) -> Tensor:
        wide = modes @ self.columns.to(modes)
        where = self.rows.abs().argmax(0)  # to copy rows takes a quarter of the time of a product
        weight = self.rows.gather(0, where[None])[0].to(modes)
        return wide.index_select(-2, where.to(modes.device)) * weight[:, None]

    def power(self, power: Tensor) -> Tensor:
        return self.rows.square() @ power @ self.columns.square().mT

    def energy(self, later: Tensor) -> Tensor:
        return self.rows.square().mT @ later @ self.columns.square()


Steps = Sequence[ModeStep]


def are_gains(steps: Steps) -> bool:
    """Whether all that they do to a mode is to multiply it."""
    return all(isinstance(step, Gain) for step in steps)


def forward(steps: Steps, modes: Tensor) -> Tensor:
    """A x from the modes of x."""
    return reduce(lambda v, step: step.forward(v), steps, modes)


def adjoint(steps: Steps, modes: Tensor) -> Tensor:
    """A^T y from the modes of y."""
    return reduce(lambda v, step: step.adjoint(v), reversed(steps), modes)


def power_after(steps: Steps, power: Tensor) -> Tensor:
    """Power of each mode of A x: the diagonal of A C A^T, which has nothing beside it."""
    return reduce(lambda v, step: step.power(v), steps, power)


def energy_before(steps: Steps, later: Tensor) -> Tensor:
    """|A e|^2 of each mode e of x, where a mode of A x counts `later`: the diagonal of A^T A."""
    return reduce(lambda v, step: step.energy(v), reversed(steps), later)


def to_modes(x: Tensor, *, over_time: bool) -> Tensor:
    """The modes of frames x [B, T, C, H, W], over time too if asked."""
    modes = dct2(x)
    return dct(modes, 1) if over_time else modes


def from_modes(modes: Tensor, *, over_time: bool) -> Tensor:
    """Inverse of `to_modes`."""
    return idct2(idct(modes, 1) if over_time else modes)


def shrunk(steps: Steps, b: Tensor, weight: Tensor | float) -> Tensor:
    """(I + weight A^T A)^-1 b, all as modes."""
    if are_gains(steps):
        gain = reduce(lambda v, step: step.power(v), steps, torch.ones(1, 1, 1, 1).double())
        return b / (1 + weight * gain.to(b))
    ones = torch.ones(1, 1, *b.shape[-2:], dtype=torch.float64)
    inner = forward(steps, b) / (1 + weight * power_after(steps, ones).to(b))  # Woodbury
    return b - weight * adjoint(steps, inner)


def most_probable(steps: Steps, y: Tensor, power: Tensor, variance: float) -> Tensor:
    """C A^T (A C A^T + variance)^-1 y, all as modes: the mean of x given y.

    Args:
        power: of each mode of x, [T or 1, 1, H, W] float64: the diagonal of C.
        variance: of the noise, the same for every mode.
    """
    inner = y / (power_after(steps, power) + variance).to(y)
    return adjoint(steps, inner) * power.to(y)


@lru_cache(maxsize=16)
def spatial_frequency(height: int, width: int) -> Tensor:
    """Cycles per pixel of each mode of a frame, [H, W] float64; that of the mean is nearly 0."""
    v = torch.arange(height, dtype=torch.float64)[:, None] / (2 * height)
    u = torch.arange(width, dtype=torch.float64) / (2 * width)
    return (v.square() + u.square()).sqrt().clamp_min(3e-5)


def band_means(power: Tensor) -> Tensor:
    """Means [T, bands] over bands of spatial frequency of power [T, h, w]; bands without modes left out.

    The mean of the frame, which tells nothing of what is in it, is in none.
    """
    band = _bands(*power.shape[-2:])[1:]
    count = torch.bincount(band, minlength=BANDS)
    used = count.nonzero()[:, 0]
    total = power.new_zeros(len(power), BANDS).index_add(
        1, band.to(power.device), power.flatten(1)[:, 1:]
    )
    return total[:, used.to(power.device)] / count[used].to(power.device)


@lru_cache(maxsize=16)
def _bands(height: int, width: int) -> Tensor:
    """Which of `BANDS` bands each mode of a frame is in, [h * w]."""
    highest = math.sqrt(0.5)
    return (
        (spatial_frequency(height, width) / highest * BANDS).long().clamp_max(BANDS - 1).flatten()
    )


def smooth_over_bands(power: Tensor) -> Tensor:
    """`power` [h, w] with each mode at the mean of its band."""
    means = power.new_zeros(BANDS)
    band = _bands(*power.shape)
    means[band[1:].unique()] = band_means(power[None])[0]
    smooth = means[band]
    smooth[0] = power[0, 0]
    return smooth.view_as(power)
