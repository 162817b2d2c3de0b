"""The degradation operator A of the measurement model y = A x + n.

Shape legend: B batch, T frames, C channels, H W pixels of the clean video, h w of the measurement.
Every method takes and returns [B, T, C, H, W] or [B, T, C, h, w] in float32 or float64, is
differentiable, and works on any device. Method names follow DeepInverse.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

CG_TOLERANCE = 1e-4
"""Relative residual at which conjugate gradients stop."""

CG_MAX_STEPS = 40


@dataclass(frozen=True, kw_only=True)
class OperatorTraits:
    """What a student is told about an operator: a few numbers that describe its strength."""

    blur_sigma: float = 0.0
    """Standard deviation of the equivalent Gaussian blur, in pixels of the clean video."""
    scale: int = 1
    """Down-sampling factor."""
    is_antialiased_cubic: bool = False
    """True when the down-sampling kernel is bicubic rather than the area average."""
    known_fraction: float = 1.0
    """Fraction of pixels that were measured."""
    temporal_sigma: float = 0.0
    """Standard deviation of the blur over time, in frames."""
    blur_departure: float = 0.0
    """How far the blur is from a round Gaussian of `blur_sigma`: the part of its light that lands
    elsewhere, from 0 to 1."""


class Operator(ABC):
    """A linear, deterministic map from clean frames to measured frames."""

    spec: str
    """The operator as a specification string that `parse_operator` reads back."""

    temporal_radius: int = 0
    """Frames on each side of a frame that its measurement depends on."""

    @abstractmethod
    def A(self, x: Tensor) -> Tensor:
        """A x: what the camera would have recorded, [B, T, C, h, w], without noise."""

    @abstractmethod
    def A_adjoint(self, y: Tensor) -> Tensor:
        """A^T y, the transpose of `A` (not an inverse), [B, T, C, H, W]."""

    @property
    @abstractmethod
    def traits(self) -> OperatorTraits:
        """The operator in a few numbers."""

    def solve(self, b: Tensor, weight: Tensor | float) -> Tensor:
        """(I + weight A^T A)^-1 b, [B, T, C, H, W]; exact where A diagonalises.

        Falls back to conjugate gradients, stopped at a relative residual of `CG_TOLERANCE`.

        Args:
            b: [B, T, C, H, W].
            weight: non-negative number or scalar tensor.
        """
        return conjugate_gradients(lambda v: v + weight * self.A_adjoint(self.A(v)), b)

    def A_dagger(self, y: Tensor, noise_std: float = 0.0) -> Tensor:
        """Regularised pseudo-inverse of y, [B, T, C, H, W].

        Without noise and where A is well conditioned, A(A_dagger(A(x))) = A(x).
        """
        weight = 1.0 / max(noise_std, 1e-3) ** 2
        return self.solve(weight * self.A_adjoint(y), weight)

    def initial_estimate(self, y: Tensor, noise_std: float = 0.0) -> Tensor:
        """The best cheap guess of x from y alone, [B, T, C, H, W]: where a student starts."""
        return self.A_dagger(y, noise_std)

    def measured_size(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) of the measurement of a clean video of `height` x `width`."""
        return height, width

    def clean_size(self, height: int, width: int) -> tuple[int, int]:
        """(H, W) of the clean video whose measurement has `height` x `width`."""
        return height, width

    def known_pixels(self, y: Tensor) -> Tensor | None:
        """Mask that broadcasts to [B, T, 1, H, W], 1 where a pixel was measured; None if all were."""
        return None

    def at_frame(self, first_frame: int) -> "Operator":
        """The operator as it acts on frames from index `first_frame` on (masks change over time)."""
        return self

    def halved(self) -> "Operator | None":
        """What acts on the area average of 2x2 pixels as this does on the frames; None if unknown."""
        return None

    @property
    def changes_over_time(self) -> bool:
        """True when it matters which frame of the video a frame is (a mask of its own for each)."""
        return False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.spec}>"


def conjugate_gradients(normal: Callable[[Tensor], Tensor], b: Tensor) -> Tensor:
    """Solution v of normal(v) = b for a symmetric positive definite `normal`, starting at b."""
    v = b
    residual = b - normal(v)
    direction, energy = residual, residual.square().sum()
    goal = CG_TOLERANCE**2 * b.square().sum()
    for _ in range(CG_MAX_STEPS):
        if energy <= goal:
            break
        image = normal(direction)
        step = energy / (direction * image).sum()
        v = v + step * direction
        residual = residual - step * image
        energy, previous = residual.square().sum(), energy
        direction = residual + energy / previous * direction
    return v


def separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows @ x @ columns^T over the last two dimensions; rows [h, H], columns [w, W]."""
    return torch.matmul(rows.to(x), torch.matmul(x, columns.to(x).mT))
