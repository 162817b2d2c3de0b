"""A student on a problem whose answer is known: what its losses and pictures do not show.

A still picture of Gaussian modes, x ~ N(0, S), seen T times through noise of standard deviation q: the
posterior mean is S / (S + q²/T) times the mean of what was seen, in every mode. Nothing that learned
from natural video meets it; where it stands, and which way it moves while it trains, is what tells.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from instantvir_models.operators.compose import Identity
from instantvir_models.operators.dct import dct2, idct2
from instantvir_models.operators.measurement import Degradation, Measurement

FIELD_STD = 0.2
"""Of a pixel of the picture, [-1, 1] range."""
NOISE_STD = 0.1
SIDE, FRAMES = 96, 6


@dataclass(frozen=True)
class Probed:
    """How a student compares with the posterior mean; each is 1 for that."""

    error_over_least: float
    """Its squared error in the last frame, over the least that anything can reach."""
    residual_over_expected: float
    """Root mean square of y - x_hat there, over that of the posterior mean: below 1 noise is copied."""
    flicker_over_noise: float
    """Mean change from frame to frame where nothing moves, over that of the measurement; 0 is best, and
    what the posterior mean of all frames has."""


@dataclass(frozen=True)
class KnownPicture:
    """A still picture, what was measured of it, and what is to be known of it."""

    x: Tensor
    """[1, T, 3, H, W]."""
    measurement: Measurement
    best: Tensor
    """The posterior mean of the last frame given all, [1, 1, 3, H, W]."""


def known_picture(*, seed: int = 0) -> KnownPicture:
    """A picture whose modes have a power that falls with the square of their frequency."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(*2 * [torch.arange(SIDE).double()], indexing="ij")
    power = 1 / (1 + rows**2 + columns**2)
    power *= FIELD_STD**2 / power.mean()
    modes = power.sqrt() * torch.randn(3, SIDE, SIDE, generator=generator, dtype=torch.float64)
    x = idct2(modes)[None, None].expand(1, FRAMES, -1, -1, -1)
    y = x + NOISE_STD * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    gain = power / (power + NOISE_STD**2 / FRAMES)
    best = idct2(gain * dct2(y.mean(1, keepdim=True)))
    given = Degradation(operator=Identity(), noise_std=NOISE_STD)
    return KnownPicture(x.float(), Measurement(y.float(), given), best.float())


def compared(x_hat: Tensor, given: KnownPicture) -> Probed:
    """The three numbers of a restored `KnownPicture`, x_hat of the shape of its x."""
    y, x = given.measurement.y, given.x
    last = slice(-1, None)
    return Probed(
        error_over_least=_power(x_hat[:, last] - x[:, last]) / _power(given.best - x[:, last]),
        residual_over_expected=math.sqrt(
            _power(y[:, last] - x_hat[:, last]) / _power(y[:, last] - given.best)
        ),
        flicker_over_noise=float(x_hat.diff(dim=1).abs().mean() / y.diff(dim=1).abs().mean()),
    )


def _power(x: Tensor) -> float:
    return float(x.square().mean())
