"""The prior whose every answer is known: a Gaussian, dense, for small problems."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from instantvir_models.operators.measurement import Measurement
from instantvir_models.operators.prior import noise_variance
from instantvir_models.priors.noise import NoiseLevel

Linear = Callable[[Tensor], Tensor]

NOTHING_SEEN = 1e6
"""Noise level, against a signal of order one."""


@dataclass(frozen=True)
class GaussianPrior:
    """N(mean, covariance) over whole small videos; implements `Prior`.

    Args:
        mean: [T, C, H, W].
        covariance: [n, n] with n = T C H W, positive definite.
    """

    mean: Tensor
    covariance: Tensor

    @property
    def accepts_maps(self) -> bool:
        return True

    @property
    def largest_std(self) -> float:
        return NOTHING_SEEN

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, z: Tensor) -> Tensor:
        return z

    def denoise(self, z: Tensor, noise: NoiseLevel) -> Tensor:
        """mean + C (C + S^2)^-1 (z - mean), exactly."""
        # C W (W C W + I)^-1 W with W = S^-1: well conditioned however strong the noise
        whitening = matrices_of(noise, torch.reciprocal, z)
        seen = whitening @ (z - self.mean).flatten(1)[..., None]
        known = whitening @ self.covariance @ whitening
        known = known + torch.eye(len(self.covariance), dtype=z.dtype)
        gained = self.covariance @ whitening @ torch.linalg.solve(known, seen)
        return self.mean + gained[..., 0].view_as(z)

    def error_std(self, noise_std: float) -> float:
        size = len(self.covariance)
        noisy = self.covariance + noise_std**2 * torch.eye(size, dtype=self.covariance.dtype)
        left = self.covariance - self.covariance @ torch.linalg.solve(noisy, self.covariance)
        return float((left.trace() / size).sqrt())

    def posterior(self, measurement: Measurement) -> "GaussianPrior":
        """p(x | y): mean + G (y - A mean), (I - G A) C with G = C A^T (A C A^T + q^2)^-1."""
        return self._given(
            matrix_of(measurement.operator.A, self.mean),
            measurement.y[0].flatten(),
            noise_variance(measurement) * torch.eye(measurement.y[0].numel()).to(self.covariance),
        )

    def _given(self, matrix: Tensor, y: Tensor, noise: Tensor) -> "GaussianPrior":
        seen = matrix @ self.covariance
        gain = torch.linalg.solve(seen @ matrix.mT + noise, seen).mT
        mean = self.mean.flatten() + gain @ (y - matrix @ self.mean.flatten())
        covariance = self.covariance - gain @ seen
        return GaussianPrior(mean.view_as(self.mean), covariance)


def matrices_of(noise: NoiseLevel, function: Linear, like: Tensor) -> Tensor:
    """function(S) as matrices [B, n, n] over videos `like` [B, T, C, H, W]."""
    basis = torch.eye(like[0].numel(), dtype=like.dtype).view(-1, 1, *like.shape[1:])
    columns = [noise.apply(function, e.expand_as(like)).flatten(1) for e in basis]
    return torch.stack(columns, -1)


def matrix_of(linear: Linear, like: Tensor) -> Tensor:
    """A linear map of videos as a matrix [m, n]; `like` [T, C, H, W] is one that it takes."""
    basis = torch.eye(like.numel(), dtype=like.dtype).view(-1, *like.shape)
    return torch.stack([linear(e[None]).flatten() for e in basis], 1)


def white_prior(shape: tuple[int, ...], *, variance: float = 1.0) -> GaussianPrior:
    """Independent pixels with mean 0, float64: the scalar problem, as often as there are pixels."""
    size = torch.Size(shape).numel()
    mean = torch.zeros(shape, dtype=torch.float64)
    return GaussianPrior(mean, variance * torch.eye(size, dtype=torch.float64))
