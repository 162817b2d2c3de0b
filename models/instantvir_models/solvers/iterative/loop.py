"""The loop that every iterative solver is: predict, correct towards the measurement, add less noise.

    for s -> s' along the levels:
        x_0, e_0 = what the prior makes of x_t at s
        x_c      = correction(x_0)
        x_t      = (1 - s') x_c + s' (sqrt(1 - eta^2) n + eta f),   f ~ N(0, I) fresh

n is either the noise of the *uncorrected* prediction (`keep`: DDNM, SVI, VISION-XL, DPS) or that
implied by the corrected one (`refit`: DiffPIR, and a guided probability-flow step). A guided score
is a correction too: x_c = x_0 + (s^2 / (1 - s)) g.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from instantvir_models.operators.measurement import Measurement
from instantvir_models.priors.base import Prior
from instantvir_models.priors.noise import white
from instantvir_models.solvers.iterative.levels import noise_std
from instantvir_models.solvers.iterative.whole_clip import WholeClipSolver


@dataclass(frozen=True)
class Prediction:
    """What the prior makes of a noisy signal."""

    x_t: Tensor
    """(1 - s) z_0 + s e, of the shape of the prior's signal; with a gradient where one is wanted."""
    z_0: Tensor
    """E[z_0 | x_t], or a sample of what it may be."""
    level: float
    """s."""

    @property
    def std(self) -> float:
        """Noise over signal."""
        return noise_std(self.level)

    @property
    def noise(self) -> Tensor:
        """E[e | x_t]."""
        return (self.x_t - (1 - self.level) * self.z_0) / self.level


@dataclass(frozen=True)
class Step:
    """All that a correction may look at."""

    prediction: Prediction
    measurement: Measurement
    prior: Prior
    next_level: float
    """s', 0 for the last one."""

    def x_0(self) -> Tensor:
        """The predicted frames [B, T, 3, H, W]."""
        return self.prior.decode(self.prediction.z_0)


class Correction(Protocol):
    """The first idea of a solver: where the prediction should rather be."""

    @property
    def follows_gradients(self) -> bool:
        """Whether it looks back through the prior; the prediction then has a gradient."""

    def corrected(self, step: Step) -> Tensor:
        """z_c, of the shape of the prior's signal."""


@dataclass(frozen=True)
class Renoising:
    """The second idea: which noise is added on the way to the next level."""

    kind: Literal["keep", "refit"]
    eta: float | Literal["ancestral", "rising"] = 0.0
    """Share of it that is fresh, 0 to 1; `ancestral` is that of DDPM, which depends on the levels;
    `rising` is sqrt(1 - s'), the more the less noise is left (FlowDPS)."""
    is_shared: bool = False
    """Whether all frames get the same fresh noise, and the same to start from."""

    def fresh_share(self, level: float, next_level: float) -> float:
        """eta between two levels."""
        if self.eta == "ancestral":
            return math.sqrt(1 - (noise_std(next_level) / noise_std(level)) ** 2)
        return math.sqrt(1 - next_level) if self.eta == "rising" else self.eta

    def noisy(
        self, z_c: Tensor, prediction: Prediction, next_level: float, draws: "Draws"
    ) -> Tensor:
        """x_t at the next level."""
        if next_level == 0:
            return z_c
        level = prediction.level
        noise = prediction.noise
        if self.kind == "refit":
            noise = (prediction.x_t - (1 - level) * z_c) / level
        eta = self.fresh_share(level, next_level)
        if eta > 0:
            noise = math.sqrt(1 - eta**2) * noise + eta * draws.fresh(z_c)
        return (1 - next_level) * z_c + next_level * noise


STREAM = 1 << 31
"""Added to seeds, of which the generator sees 32 bits: the noise of a measurement with the same seed is
another."""


class Draws:
    """The random numbers of one restoration.

    Args:
        is_shared: whether all frames get the same ones.
    """

    def __init__(self, seed: int, *, is_shared: bool) -> None:
        self._generator = torch.Generator().manual_seed(STREAM + seed)
        self._is_shared = is_shared

    def fresh(self, like: Tensor) -> Tensor:
        """N(0, I) of the shape and type of `like` [B, T, ...]."""
        batch, frames, *rest = like.shape
        drawn = torch.randn(
            batch,
            1 if self._is_shared else frames,
            *rest,
            generator=self._generator,
            dtype=like.dtype,
        )
        return drawn.to(like.device).expand(like.shape)


def predicted(
    prior: Prior, x_t: Tensor, level: float, *, follows_gradients: bool = False
) -> Prediction:
    """What the prior makes of x_t at s.

    Where there is more noise than the prior takes nothing is seen: the prediction is mid-grey, and
    the prior is not asked.
    """
    std = noise_std(level)
    if std > prior.largest_std:
        return Prediction(x_t, torch.zeros_like(x_t), level)
    if not follows_gradients:
        return Prediction(x_t, prior.denoise(x_t / (1 - level), white(std, dtype=x_t.dtype)), level)
    with torch.enable_grad():
        x_t = x_t.detach().requires_grad_()
        z_0 = prior.denoise(x_t / (1 - level), white(std, dtype=x_t.dtype))
    return Prediction(x_t, z_0, level)


def sampled(prior: Prior, x_t: Tensor, level: float, steps: int) -> Prediction:
    """One z_0 that may be behind x_t: down its probability flow in `steps` equal steps of s."""
    x = x_t
    for index in range(steps):
        here, below = (level * (steps - i) / steps for i in (index, index + 1))
        prediction = predicted(prior, x, here)
        x = (1 - below) * prediction.z_0 + below * prediction.noise
    return Prediction(x_t, x, level)


@dataclass(frozen=True)
class Start:
    """Where a loop begins: pure noise."""

    def begun(self, measurement: Measurement, prior: Prior, level: float, draws: Draws) -> Tensor:
        """x_t at the first level."""
        return level * draws.fresh(empty_signal(measurement, prior))


@dataclass(frozen=True, kw_only=True)
class Iterative(WholeClipSolver):
    """A solver by a prior and a schedule, whole clips at once.

    Args:
        levels: falling, of the flow path; after the last comes 0.
        returns_prediction: the last prediction comes out, not what its correction makes of it.
        is_clipped: whether predicted frames are cut to [-1, 1].
        flow_steps: steps down the probability flow that a prediction is: of one it is the mean of what
            may be behind x_t, of more a sample, without gradients.
        seed: of all noise: the same seed, the same video.
    """

    prior: Prior
    levels: tuple[float, ...]
    correction: Correction
    renoising: Renoising
    start: Start = Start()
    returns_prediction: bool = False
    is_clipped: bool = False
    flow_steps: int = 1
    seed: int = 0

    def solved(self, measurement: Measurement) -> Tensor:
        draws = Draws(self.seed, is_shared=self.renoising.is_shared)
        if not self.levels:
            return self.prior.decode(self.start.begun(measurement, self.prior, 0.0, draws))
        x_t = self.start.begun(measurement, self.prior, self.levels[0], draws)
        for level, next_level in zip(self.levels, (*self.levels[1:], 0.0), strict=True):
            prediction = self._predicted(x_t, level)
            if self.returns_prediction and next_level == 0:
                return self.prior.decode(prediction.z_0).detach()
            step = Step(prediction, measurement, self.prior, next_level)
            z_c = self.correction.corrected(step).detach()
            x_t = self.renoising.noisy(z_c, _detached(prediction), next_level, draws)
        return self.prior.decode(x_t)

    def _predicted(self, x_t: Tensor, level: float) -> Prediction:
        if self.flow_steps > 1:
            return sampled(self.prior, x_t, level, self.flow_steps)
        wanted = self.correction.follows_gradients
        found = predicted(self.prior, x_t, level, follows_gradients=wanted)
        if not self.is_clipped:
            return found
        with torch.set_grad_enabled(wanted):
            clipped = self.prior.encode(self.prior.decode(found.z_0).clamp(-1, 1))
        return replace(found, z_0=clipped)


def _detached(prediction: Prediction) -> Prediction:
    return replace(prediction, x_t=prediction.x_t.detach(), z_0=prediction.z_0.detach())


def empty_frames(measurement: Measurement) -> Tensor:
    """Zeros of the shape of the clean frames."""
    y = measurement.y
    return y.new_zeros(*y.shape[:-2], *measurement.operator.clean_size(*y.shape[-2:]))


def empty_signal(measurement: Measurement, prior: Prior) -> Tensor:
    """Zeros of the shape of the prior's signal."""
    return torch.zeros_like(prior.encode(empty_frames(measurement)))
