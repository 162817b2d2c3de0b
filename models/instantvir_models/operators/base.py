"""The degradation operator A of the measurement model y = A x + n.

Shape legend: B batch, T frames, C channels, H W pixels of the clean video, h w of the measurement.
Every method takes and returns [B, T, C, H, W] or [B, T, C, h, w] in float32 or float64, is
differentiable, and works on any device. Method names follow DeepInverse.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from instantvir_models.operators.conjugate_gradients import conjugate_gradients
from instantvir_models.operators.modes import (
    Grid,
    Steps,
    energy_before,
    from_modes,
    most_probable,
    power_after,
    shrunk,
    smooth_over_bands,
    to_modes,
)

CG_TOLERANCE = 1e-4
"""Relative residual at which conjugate gradients stop."""

CG_MAX_STEPS = 40

WEAKEST_GAIN = 1e-3
"""Modes that an operator weakens more than this count as lost in its pseudo-inverse."""


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

    only_selects: bool = False
    """True where A leaves every pixel as it is or loses it, so that there is nothing to invert."""

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

    def mode_steps(self, grid: Grid) -> Steps | None:
        """A as steps between DCT modes of a clean video of `grid`; None if they do not suffice."""
        return None

    def mode_energy(self, grid: Grid, later: Tensor) -> Tensor:
        """About |A e|^2 of each mode e of the clean video, [T or 1, 1, H, W] float64.

        How fast conjugate gradients converge depends on it, where they converge does not. Where an
        operator neither has mode steps nor says better, it is tried on one video of random modes.

        Args:
            later: what a mode of A x counts, [T or 1, 1, h, w].
        """
        steps = self.mode_steps(grid)
        if steps is not None:
            return energy_before(steps, later)
        return _probed_energy(self, grid) * later.mean()

    def measured_power(self, grid: Grid, power: Tensor) -> Tensor:
        """Power of each mode of A x where x has independent modes of `power` [T or 1, 1, H, W];
        [T or 1, 1, h, w] float64. About, where modes do not stay apart."""
        steps = self.mode_steps(grid)
        if steps is not None:
            return power_after(steps, power)
        height, width = self.measured_size(grid.height, grid.width)
        flat = torch.ones(1, 1, height, width, dtype=torch.float64)
        return (power * self.mode_energy(grid, flat))[..., :height, :width]

    def solve(self, b: Tensor, weight: Tensor | float) -> Tensor:
        """(I + weight A^T A)^-1 b, [B, T, C, H, W]; exact where the DCT diagonalises A.

        Falls back to conjugate gradients, stopped at a relative residual of `CG_TOLERANCE`.

        Args:
            b: [B, T, C, H, W].
            weight: non-negative number or scalar tensor.
        """
        grid = Grid(b.shape[1], *b.shape[-2:])
        steps = self.mode_steps(grid)
        if steps is None:
            return conjugate_gradients(
                lambda v: v + weight * self.A_adjoint(self.A(v)),
                b,
                tolerance=CG_TOLERANCE,
                max_steps=CG_MAX_STEPS,
            )
        over_time = self.temporal_radius > 0
        return from_modes(
            shrunk(steps, to_modes(b, over_time=over_time), weight), over_time=over_time
        )

    def nearest_to(self, x_hat: Tensor, y: Tensor, weight: Tensor | float) -> Tensor:
        """argmin_x weight |A x - y|^2 + |x - x_hat|^2: (I + weight A^T A)^-1 (x_hat + weight A^T y).

        Args:
            x_hat: [B, T, C, H, W].
            y: [B, T, C, h, w].
            weight: non-negative number or scalar tensor.
        """
        return self.solve(x_hat + weight * self.A_adjoint(y), weight)

    def A_dagger(self, y: Tensor) -> Tensor:
        """The video of least energy that explains y, [B, T, C, H, W]: the pseudo-inverse, plain.

        What A weakens below `WEAKEST_GAIN` is not raised to its old strength; noise is not thought
        of (`prior.initial_estimate` does).
        """
        grid = Grid(y.shape[1], *self.clean_size(*y.shape[-2:]))
        steps = self.mode_steps(grid)
        floor = WEAKEST_GAIN**2
        if steps is None:
            explained = conjugate_gradients(
                lambda v: self.A(self.A_adjoint(v)) + floor * v,
                y,
                tolerance=CG_TOLERANCE,
                max_steps=CG_MAX_STEPS,
            )
            return self.A_adjoint(explained)
        over_time = self.temporal_radius > 0
        y_modes = to_modes(y, over_time=over_time)
        flat = torch.ones(1, 1, grid.height, grid.width, dtype=torch.float64)
        return from_modes(most_probable(steps, y_modes, flat, floor), over_time=over_time)

    def completed(self, y: Tensor) -> Tensor:
        """y with what was not measured filled in, [B, T, C, H, W], of an operator that `only_selects`."""
        raise NotImplementedError(f"{self!r} does more than to select pixels")

    @property
    def parts(self) -> "tuple[Operator, ...]":
        """The operators this one applies one after the other."""
        return (self,)

    def measured_size(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) of the measurement of a clean video of `height` x `width`."""
        return height, width

    def clean_size(self, height: int, width: int) -> tuple[int, int]:
        """(H, W) of the clean video whose measurement has `height` x `width`."""
        return height, width

    @property
    def shows_pixels(self) -> bool:
        """Whether what it leaves are pixels of the clean video, each at its place."""
        return all(part.only_selects or part.is_identity for part in self.parts)

    @property
    def is_identity(self) -> bool:
        """True where A x = x for every x."""
        return False

    def known_pixels(self, y: Tensor) -> Tensor | None:
        """Mask that broadcasts to [B, T, 1, H, W], 1 where a pixel was measured; None if all were."""
        return None

    def at_frame(self, first_frame: int) -> "Operator":
        """The operator as it acts on frames from index `first_frame` on (masks change over time)."""
        return self

    def cropped(self, rows: slice, columns: slice) -> "Operator":
        """The operator as it acts on these rows and columns of the clean video alone."""
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


@lru_cache(maxsize=16)
def _probed_energy(operator: Operator, grid: Grid) -> Tensor:
    """About |A e|^2 of each mode e, [1, 1, H, W] float64, smooth over frequency (Hutchinson 1990)."""
    over_time = operator.temporal_radius > 0
    generator = torch.Generator().manual_seed(0)
    size = (1, grid.frames, 3, grid.height, grid.width)
    signs = 2.0 * torch.randint(0, 2, size, generator=generator).double() - 1
    x = from_modes(signs, over_time=over_time)
    seen = to_modes(operator.A_adjoint(operator.A(x)), over_time=over_time)
    return smooth_over_bands((signs * seen).mean((0, 1, 2))).clamp_min(1e-6)[None, None]


def separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows @ x @ columns^T over the last two dimensions; rows [h, H], columns [w, W]."""
    return torch.matmul(rows.to(x), torch.matmul(x, columns.to(x).mT))
