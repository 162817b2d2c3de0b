"""Corrections of a prediction towards the measurement, each by its formula.

e = y - A x_0 is what the prediction x_0 leaves, q^2 the variance of the measurement's noise, r the
noise over signal at the present level.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from instantvir_models.operators.blur import GaussianBlur
from instantvir_models.operators.conjugate_gradients import conjugate_gradients
from instantvir_models.operators.consistency import data_consistency
from instantvir_models.operators.measurement import Measurement
from instantvir_models.operators.prior import noise_variance
from instantvir_models.solvers.iterative.levels import noise_std
from instantvir_models.solvers.iterative.loop import Step

CG_TOLERANCE = 1e-5
"""Of the residual, relative to A^T y."""


class PixelCorrection:
    """A correction of frames, without a gradient; in latents one decoding and one encoding."""

    @property
    def follows_gradients(self) -> bool:
        return False

    def corrected(self, step: Step) -> Tensor:
        return step.prior.encode(self.corrected_frames(step.x_0(), step))

    def corrected_frames(self, x: Tensor, step: Step) -> Tensor:
        """x_c of the predicted frames x."""
        raise NotImplementedError


@dataclass(frozen=True)
class NoCorrection(PixelCorrection):
    """x_0: what the prior says alone."""

    def corrected_frames(self, x: Tensor, step: Step) -> Tensor:
        return x


@dataclass(frozen=True)
class Projection(PixelCorrection):
    """x_0 + A_dagger e, where y is exact; where it has noise, weighed by it (DDNM and DDNM+)."""

    def corrected_frames(self, x: Tensor, step: Step) -> Tensor:
        measurement = step.measurement
        if measurement.noise_std > 0:
            std = noise_std(step.next_level)
            return data_consistency(x, measurement, estimate_std=std) if std > 0 else x
        return x + measurement.operator.A_dagger(left(x, measurement))


@dataclass(frozen=True)
class Prox(PixelCorrection):
    """argmin |A x - y|^2 / q^2 + weight |x - x_0|^2 / r^2 (DiffPIR)."""

    weight: float = 1.0
    skips_last: bool = True
    """Whether the last step does without."""

    def corrected_frames(self, x: Tensor, step: Step) -> Tensor:
        if self.skips_last and step.next_level == 0:
            return x
        std = step.prediction.std / math.sqrt(self.weight)
        return data_consistency(x, step.measurement, estimate_std=std)


@dataclass(frozen=True)
class ErrorProx(PixelCorrection):
    """argmin |A x - y|^2 / q^2 + |x - x_0|^2 / error^2, for a sample x_0 of the prior (LVTINO).

    A sample is off by twice the squared error of the mean, of which the prior knows.
    """

    def corrected_frames(self, x: Tensor, step: Step) -> Tensor:
        error = math.sqrt(2) * step.prior.error_std(step.prediction.std)
        return data_consistency(x, step.measurement, estimate_std=error)


@dataclass(frozen=True)
class Conjugate(PixelCorrection):
    """`steps` of conjugate gradients on A^T A x = A^T y from x_0, stopped early (SVI, VISION-XL).

    One step length for the whole clip. Noise of y is not thought of, unless `is_damped`: then
    (A^T A + d) x = A^T y + d x_0 is solved, d = q^2 over the prior's squared error at r.
    """

    steps: int
    is_damped: bool = False
    low_pass: bool = False
    """Whether frames are then softened, by sqrt(2 (1 - abar)) pixels (VISION-XL)."""

    def corrected_frames(self, x: Tensor, step: Step) -> Tensor:
        operator, measurement = step.measurement.operator, step.measurement
        weight = 0.0
        if self.is_damped and measurement.noise_std > 0:
            error = step.prior.error_std(step.prediction.std)
            weight = noise_variance(measurement) / error**2
        x = conjugate_gradients(
            lambda v: operator.A_adjoint(operator.A(v)) + weight * v,
            operator.A_adjoint(measurement.y) + weight * x,
            tolerance=CG_TOLERANCE,
            max_steps=self.steps,
            start=x,
        )
        return softened(x, step.prediction.std) if self.low_pass else x


def softened(x: Tensor, std: float) -> Tensor:
    """Frames blurred by sqrt(2 (1 - abar)) pixels, 1 - abar = r^2 / (1 + r^2)."""
    return GaussianBlur(math.sqrt(2 * std**2 / (1 + std**2))).A(x)


@dataclass(frozen=True)
class Guidance:
    """x_0 + weight (s^2 / (1 - s)) J^T A^T (A A^T R + q^2)^-1 e with J = d z_0 / d x_t.

    R = r^2 c^2 / (r^2 + c^2), what an error of x_0 would have as variance if natural video were white
    with a deviation c: PiGDM (Song et al., 2023). Without c, R is 0: DPS with its squared loss.

    Natural video is not white: where noise is strong, what neighbours have in common is pulled too far,
    r^2 / R times. The released code divides by 1 + r^2 (`falls_off`), and that does not happen.
    """

    signal_std: float | None = 1.0
    weight: float = 1.0
    falls_off: bool = False

    @property
    def follows_gradients(self) -> bool:
        return True

    def corrected(self, step: Step) -> Tensor:
        prediction, level = step.prediction, step.prediction.level
        with torch.enable_grad():
            x_0 = step.x_0()
            pull = self._pull(x_0.detach(), step)
            z_0 = prediction.z_0
            gradient = _pulled_back(x_0, prediction.x_t, pull)
        return z_0.detach() + self._weight(prediction.std) * level**2 / (1 - level) * gradient

    def _weight(self, std: float) -> float:
        return self.weight / (1 + std**2) if self.falls_off else self.weight

    def _pull(self, x_0: Tensor, step: Step) -> Tensor:
        """A^T (A A^T R + q^2)^-1 e."""
        measurement = step.measurement
        if self.signal_std is None:
            back = measurement.operator.A_adjoint(left(x_0, measurement))
            return back / noise_variance(measurement)
        r2, c2 = step.prediction.std**2, self.signal_std**2
        variance = r2 * c2 / (r2 + c2)
        consistent = data_consistency(x_0, measurement, estimate_std=math.sqrt(variance))
        return (consistent - x_0) / variance


@dataclass(frozen=True)
class NormGuidance:
    """The step of DPS: back along the gradient of |y - A x_0|, the norm, of each frame (Chung et al., 2023).

    Its steps are for frames of 256x256 and a thousand levels: it is the same step at other sizes and
    counts if it grows with the root of the number of measurements and with 1 / levels.
    """

    step_size: float
    """zeta."""
    levels: int = 1000

    REFERENCE_PIXELS = 256 * 256

    @property
    def follows_gradients(self) -> bool:
        return True

    def corrected(self, step: Step) -> Tensor:
        prediction, next_std = step.prediction, noise_std(step.next_level)
        with torch.enable_grad():
            x_0 = step.x_0()
            gradient = _gradient(norms(left(x_0, step.measurement)).sum(), prediction.x_t)
        # a step in the coordinates of DDPM, x / sqrt(1 + r^2), carried over to those of x_0
        ddpm = math.sqrt((1 + prediction.std**2) * (1 + next_std**2)) / (1 + prediction.std)
        return prediction.z_0.detach() - self._size(x_0) * ddpm * gradient

    def _size(self, x_0: Tensor) -> float:
        pixels = x_0.shape[-2] * x_0.shape[-1]
        return self.step_size * math.sqrt(pixels / self.REFERENCE_PIXELS) * 1000 / self.levels


@dataclass(frozen=True)
class Descent:
    """Steps down |B (y - A x)| of each frame, the norm, from z_0; then z_0 + s (what they found - z_0) (FlowDPS).

    B is A^+ where pixels are chosen or made smaller, else A^T. Steps are for `REFERENCE_VALUES` of a
    signal, and grow with the root of how many there are; the slope of a norm is 1 long, however far it is.
    """

    step_size: float = 15.0
    steps: int = 3

    REFERENCE_VALUES = 16 * 96 * 96
    """A latent of 768x768 pixels."""

    @property
    def follows_gradients(self) -> bool:
        return False

    def corrected(self, step: Step) -> Tensor:
        z_0, level = step.prediction.z_0, step.prediction.level
        z, size = z_0, self._size(z_0)
        for _ in range(self.steps):
            z = z - size * self._slope(z, step)
        return (1 - level) * z_0 + level * z

    def loss(self, missed: Tensor) -> Tensor:
        """What is gone down, of B (y - A x)."""
        return norms(missed).sum()

    def _slope(self, z: Tensor, step: Step) -> Tensor:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            return _gradient(self.loss(brought_back(z, step)), z)

    def _size(self, z: Tensor) -> float:
        return self.step_size * math.sqrt(z[0, 0].numel() / self.REFERENCE_VALUES)


def brought_back(z: Tensor, step: Step) -> Tensor:
    """B (y - A x) of frames x that are z."""
    operator = step.measurement.operator
    missed = left(step.prior.decode(z), step.measurement)
    if operator.only_selects or operator.traits.scale > 1:
        return operator.A_dagger(missed)
    return operator.A_adjoint(missed)


def norms(x: Tensor) -> Tensor:
    """|x| of each frame, [B, T]; its slope is 0 at 0."""
    return x.square().sum((2, 3, 4)).clamp_min(1e-24).sqrt()


def _pulled_back(x_0: Tensor, x_t: Tensor, pull: Tensor) -> Tensor:
    """(d x_0 / d x_t)^T pull; nothing where the prior was not asked."""
    if not x_0.requires_grad:
        return torch.zeros_like(x_t)
    return torch.autograd.grad(x_0, x_t, pull)[0]


def _gradient(loss: Tensor, x_t: Tensor) -> Tensor:
    return torch.autograd.grad(loss, x_t)[0] if loss.requires_grad else torch.zeros_like(x_t)


def left(x: Tensor, measurement: Measurement) -> Tensor:
    """y - A x: what frames x leave of the measurement."""
    return measurement.selected - measurement.operator.A(x)
