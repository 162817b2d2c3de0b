"""What natural video looks like, in its simplest form, and the most probable video under it.

The one place that knows the power of natural frames, and the one rule of how far a measurement may
be off. Initial estimates of every operator follow from the two.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import torch
from torch import Tensor

from instantvir_models.operators.base import Operator
from instantvir_models.operators.compose import Identity
from instantvir_models.operators.conjugate_gradients import conjugate_gradients
from instantvir_models.operators.measurement import LEAST_LOSSY_STD, ROUNDING_STD, Measurement
from instantvir_models.operators.modes import (
    Grid,
    band_means,
    from_modes,
    most_probable,
    spatial_frequency,
    to_modes,
)

EXACT_STD = 1e-4
"""Standard deviation given to a pixel that is known exactly, in the [-1, 1] range."""

MAP_TOLERANCE = 3e-4
"""Residual at which conjugate gradients stop, relative, each mode over the root of its weight."""

MAP_MAX_STEPS = 30

EXPONENTS = (1.5, 2.0, 2.5, 3.0)
SOFTNESSES = (0.0, 4.0, 8.0, 16.0, 32.0)
SPEEDS = (0.03, 0.1, 0.3, 1.0, 3.0)
POWERS = tuple(4e-3 * 2.0 ** (k / 2) for k in range(-28, 13))
"""Candidates that a video's own prior is a mean of; 4e-3 is the power of the training clips at an
exponent of 2."""

SMALLER_SIDE = 160
"""Modes per side that stand for those of a larger frame where every candidate is tried over time."""

SEEN_WEIGHT = 400.0
"""What is seen of a video counts as this many modes, however many they are, so that its prior is a
smooth mean over candidates that does not jump from block to block."""


IDENTITY = Identity()
"""One object, since what is known of an operator is kept by it."""


@dataclass(frozen=True)
class NaturalPrior:
    """Independent modes of power S(f) = power / f^exponent exp(-softness f^2), f in cycles per pixel.

    Natural frames have an exponent near 2 (Field 1987); lenses and enlargement soften them. Over time
    the power of a spatial frequency f spreads to the temporal frequencies f v of all speeds v (Dong
    and Atick 1995), Cauchy-distributed here.
    """

    power: float
    """At one cycle per pixel, [-1, 1] range."""
    exponent: float
    softness: float
    """Square pixels."""
    speed: float
    """Half width of the distribution of speeds, pixels per frame."""

    def spectrum(self, grid: Grid, *, over_time: bool) -> Tensor:
        """Power of each mode, [T or 1, 1, H, W] float64."""
        log_f = spatial_frequency(grid.height, grid.width).log()
        log_power = -self.exponent * log_f - self.softness * (2 * log_f).exp()
        power = self.power * log_power.exp()
        if not over_time:
            return power[None, None]
        w = torch.arange(grid.frames, dtype=torch.float64)[:, None, None] / (2 * grid.frames)
        reach = self.speed * log_f.exp()
        spread = reach / (reach.square() + w.square())
        return (power * spread / spread.mean(0))[:, None]


def noise_variance(measurement: Measurement) -> float:
    """Variance of what the measurement may be off by, rounding to 8 bits included.

    Pixels that were selected without noise and stored without loss count as exact, so that they come
    out bit for bit. No other operator's do: an inverse would amplify the rounding.
    """
    degradation = measurement.degradation
    is_exact = degradation.noise_std == 0 and not degradation.is_lossy
    if is_exact and (degradation.operator.only_selects or degradation.operator.is_identity):
        return EXACT_STD**2
    is_inverse = degradation.is_lossy and not degradation.operator.only_selects
    least = LEAST_LOSSY_STD if is_inverse else 0.0
    return max(degradation.noise_std, least) ** 2 + ROUNDING_STD**2


def initial_estimate(measurement: Measurement) -> Tensor:
    """The most probable x [B, T, C, H, W] under the prior alone: where every solver may start.

    Where A only selects pixels there is nothing to invert: known ones stay as they were measured, for
    noise that is still white is easier to take away later, and holes are filled as a thin plate bends.
    """
    operator, y = measurement.operator, measurement.y
    if operator.is_identity:
        return y
    if operator.only_selects:
        return operator.completed(y)
    return map_estimate(measurement, noise_variance(measurement))


def map_estimate(measurement: Measurement, variance: float) -> Tensor:
    """argmin_x |A x - y|^2 / variance + x^T C^-1 x, [B, T, C, H, W], C of the video's own prior.

    In closed form where the DCT diagonalises A, else by preconditioned conjugate gradients.
    """
    operator, y = measurement.operator, measurement.y
    over_time = operator.temporal_radius > 0
    grid = Grid(y.shape[1], *operator.clean_size(*y.shape[-2:]))
    steps = operator.mode_steps(grid)
    if steps is None:
        return _iterated_map(measurement, variance, grid)
    modes = measurement.y_modes
    prior = fitted_prior(modes, operator, variance, grid, over_time=over_time)
    power = prior.spectrum(grid, over_time=over_time)
    return from_modes(most_probable(steps, modes, power, variance), over_time=over_time)


def _iterated_map(measurement: Measurement, variance: float, grid: Grid) -> Tensor:
    """`map_estimate` by conjugate gradients on the modes, from a guess that undoes part by part."""
    operator, y = measurement.operator, measurement.y
    over_time = operator.temporal_radius > 0
    guess = to_modes(_undone_by_parts(measurement, variance), over_time=over_time)
    if any(part.only_selects for part in operator.parts):
        # holes look like detail: the slope is read off where they are filled
        prior = fitted_prior(guess, IDENTITY, variance, grid, over_time=over_time)
    else:
        prior = fitted_prior(measurement.y_modes, operator, variance, grid, over_time=over_time)
    power = prior.spectrum(grid, over_time=over_time)
    penalty = variance / power
    energy = operator.mode_energy(grid, torch.ones(1, 1, *y.shape[-2:], dtype=torch.float64))

    def normal(modes: Tensor) -> Tensor:
        x = from_modes(modes, over_time=over_time)
        seen = to_modes(operator.A_adjoint(operator.A(x)), over_time=over_time)
        return seen + penalty.to(modes) * modes

    solution = conjugate_gradients(
        normal,
        to_modes(operator.A_adjoint(y), over_time=over_time),
        tolerance=MAP_TOLERANCE,
        max_steps=MAP_MAX_STEPS,
        start=guess,
        preconditioner=(energy + penalty).to(y),
    )
    return from_modes(solution, over_time=over_time)


def _undone_by_parts(measurement: Measurement, variance: float) -> Tensor:
    """A first guess of x: every part of the operator undone as if it were alone."""
    y, degradation = measurement.y, measurement.degradation
    for part in reversed(measurement.operator.parts):
        if part.only_selects:
            y = part.completed(y)
        elif part.mode_steps(Grid(y.shape[1], *part.clean_size(*y.shape[-2:]))) is not None:
            y = map_estimate(Measurement(y, replace(degradation, operator=part)), variance)
        else:
            y = part.A_adjoint(y)
    return y


def fitted_prior(
    modes: Tensor, operator: Operator, variance: float, grid: Grid, *, over_time: bool
) -> NaturalPrior:
    """The prior under which the measurement is most probable (Whittle's likelihood, band by band).

    Args:
        modes: of the measured frames, [B, T, C, h, w], holes filled.
        variance: of their noise.
        grid: of the clean frames.
        over_time: whether `modes` are modes over time too.
    """
    power = modes.square().mean((0, 2))
    seen = band_means((power if over_time else power.mean(0, keepdim=True)).double())
    powers = torch.tensor(POWERS, dtype=torch.float64)
    if not over_time:
        grid = replace(grid, frames=1)  # they do not matter: one table for blocks of any length
    shapes = _shown_by_shapes(operator, grid, over_time)
    losses = torch.stack(
        [_losses(powers, bands, variance, seen.cpu()) for bands in shapes.values()]
    )
    weights = torch.softmax(-SEEN_WEIGHT * losses.flatten(), 0).view_as(losses)  # [shapes, powers]
    exponent, softness, log_speed = weights.sum(1) @ torch.tensor(list(shapes), dtype=torch.float64)
    power = (weights.sum(0) @ powers.log()).exp()
    return NaturalPrior(float(power), float(exponent), float(softness), float(log_speed.exp()))


def _losses(powers: Tensor, bands: Tensor, variance: float, seen: Tensor) -> Tensor:
    """Minus the log-likelihood of what was seen in bands [T or 1, n] under each of `powers` [k]."""
    expected = powers[:, None, None] * bands + variance
    return (expected.log() + seen / expected).mean((-2, -1))


@lru_cache(maxsize=8)
def _shown_by_shapes(
    operator: Operator, grid: Grid, over_time: bool
) -> dict[tuple[float, float, float], Tensor]:
    """What priors of power 1 let a noise-free measurement show in each band, [T or 1, n] float64, by
    exponent, softness and logarithm of the speed."""
    if over_time and operator.mode_steps(grid) is not None:
        grid = _smaller(grid, operator)  # bands know frequencies, not how many modes they hold
    shown = {}
    for speed, exponent, softness in product(
        SPEEDS if over_time else (1.0,), EXPONENTS, SOFTNESSES
    ):
        unit = NaturalPrior(1.0, exponent, softness, speed).spectrum(grid, over_time=over_time)
        shape = exponent, softness, math.log(speed)
        shown[shape] = band_means(operator.measured_power(grid, unit)[:, 0])
    return shown


def _smaller(grid: Grid, operator: Operator) -> Grid:
    """A grid of the same frequencies, fewer of them, on which `operator` can act."""
    factors = operator.clean_size(1, 1)
    height, width = (
        min(side, factor * math.ceil(SMALLER_SIDE / factor))
        for side, factor in zip((grid.height, grid.width), factors, strict=True)
    )
    return Grid(grid.frames, height, width)
