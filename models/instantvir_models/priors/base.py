"""The protocol of priors: what every teacher of distillation and every iterative solver asks."""

import math
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from instantvir_models.priors.noise import NoiseLevel


class Prior(Protocol):
    """A network, or a formula, that knows natural video: E[z_0 | z] at a noise level.

    z_0 is the signal that it knows, pixels or latents; z = z_0 + S e is seen of it. Its score is
    (E[z_0 | z] - z) / S^2 (Tweedie's formula; Robbins 1956).
    """

    @property
    def accepts_maps(self) -> bool:
        """Whether noise may differ between pixels, or between means of boxes and the rest."""

    @property
    def largest_std(self) -> float:
        """The most noise that it takes; of a signal with so much noise nothing is seen."""

    def encode(self, x: Tensor) -> Tensor:
        """z_0 of frames x [B, T, 3, H, W] in [-1, 1], differentiable."""

    def decode(self, z: Tensor) -> Tensor:
        """Frames [B, T, 3, H, W] of z_0, differentiable."""

    def denoise(self, z: Tensor, noise: NoiseLevel) -> Tensor:
        """E[z_0 | z], of the shape and type of z.

        Raises:
            ValueError: if the noise differs over z and `accepts_maps` is False.
        """

    def error_std(self, noise_std: float) -> float:
        """Root mean squared error of `denoise` at that level on natural video."""


@dataclass(frozen=True)
class ErrorTable:
    """Errors of a prior as they were measured once, on clean clips, by noise level."""

    noise_std: tuple[float, ...]
    """Rising."""
    error_std: tuple[float, ...]

    def __post_init__(self) -> None:
        rises = all(a < b for a, b in zip(self.noise_std, self.noise_std[1:], strict=False))
        if len(self.noise_std) != len(self.error_std) or not self.noise_std or not rises:
            raise ValueError("a table of errors has rising noise levels and an error for each")

    def at(self, noise_std: float) -> float:
        """The error at that level, between and beyond entries along straight lines of logarithms.

        Beyond the last entry it stays; below the first it is proportional to the noise.
        """
        levels, errors = self.noise_std, self.error_std
        if noise_std >= levels[-1]:
            return errors[-1]
        if noise_std <= levels[0]:
            return errors[0] * noise_std / levels[0]
        above = next(i for i, level in enumerate(levels) if level > noise_std)
        low, high = levels[above - 1], levels[above]
        part = math.log(noise_std / low) / math.log(high / low)
        return math.exp((1 - part) * math.log(errors[above - 1]) + part * math.log(errors[above]))
