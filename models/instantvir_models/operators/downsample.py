"""Down-sampling by area average or antialiased bicubic, as two small matrices."""

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from instantvir_models.errors import UsageError
from instantvir_models.operators.base import Operator, OperatorTraits, separable
from instantvir_models.operators.dct import dct
from instantvir_models.operators.modes import Fold, Grid, Steps

DownsampleKernel = Literal["area", "bicubic"]


def cubic(distance: Tensor) -> Tensor:
    """Keys' cubic convolution kernel (1981) with a = -0.5, at `distance` in samples."""
    d = distance.abs()
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


def _cubic_matrix(size_out: int, size_in: int) -> Tensor:
    """Resampling matrix [size_out, size_in], antialiased when it shrinks, borders mirrored."""
    ratio = size_in / size_out
    stretch = max(ratio, 1.0)
    centre = (torch.arange(size_out, dtype=torch.float64) + 0.5) * ratio - 0.5
    reach = int(2 * stretch) + 2
    source = centre.floor().long()[:, None] + torch.arange(-reach, reach + 1)
    weights = cubic((source - centre[:, None]) / stretch)
    weights = weights / weights.sum(1, keepdim=True)
    position = source % (2 * size_in)
    position = torch.minimum(position, 2 * size_in - 1 - position)
    return torch.zeros(size_out, size_in, dtype=torch.float64).scatter_add(1, position, weights)


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _shrink_matrix(size_in: int, factor: int, kernel: DownsampleKernel) -> Tensor:
    if kernel == "area":
        small = torch.eye(size_in // factor, dtype=torch.float64)
        return small.repeat_interleave(factor, 1) / factor
    return _cubic_matrix(size_in // factor, size_in)


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _fold_matrix(size_in: int, factor: int, kernel: DownsampleKernel) -> Tensor:
    """The shrinking matrix between DCT modes: what aliases to each mode of the small side."""
    fold = dct(dct(_shrink_matrix(size_in, factor, kernel), 0), 1)
    return fold * (fold.abs() > 1e-12)


class Downsample(Operator):
    """Fewer pixels: every `factor` x `factor` cell becomes one.

    Args:
        factor: 2, 3, 4, ...
        kernel: `area` averages the cell; `bicubic` is the antialiased cubic of image editors.

    Raises:
        UsageError: at call time, if H or W is not a multiple of `factor`.
    """

    def __init__(self, factor: int, kernel: DownsampleKernel = "area") -> None:
        self.factor = factor
        self.kernel = kernel
        self.spec = f"down:factor={factor},kernel={kernel}"

    def _matrices(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        return (
            _shrink_matrix(height, self.factor, self.kernel),
            _shrink_matrix(width, self.factor, self.kernel),
        )

    def A(self, x: Tensor) -> Tensor:
        self.measured_size(*x.shape[-2:])
        if self.kernel == "area":
            return F.avg_pool2d(x.flatten(0, 1), self.factor).unflatten(0, x.shape[:2])
        return separable(x, *self._matrices(*x.shape[-2:]))

    def A_adjoint(self, y: Tensor) -> Tensor:
        if self.kernel == "area":
            shares = y / self.factor**2
            return shares.repeat_interleave(self.factor, -1).repeat_interleave(self.factor, -2)
        rows, columns = self._matrices(*self.clean_size(*y.shape[-2:]))
        return separable(y, rows.mT, columns.mT)

    def solve(self, b: Tensor, weight: Tensor | float) -> Tensor:
        if self.kernel != "area":
            return super().solve(b, weight)
        return b - self._share(weight) * self.A_adjoint(self.A(b))

    def nearest_to(self, x_hat: Tensor, y: Tensor, weight: Tensor | float) -> Tensor:
        if self.kernel != "area":
            return super().nearest_to(x_hat, y, weight)
        return x_hat + self._share(weight) * self.A_adjoint(y - self.A(x_hat))

    def _share(self, weight: Tensor | float) -> Tensor | float:
        """weight (1 + weight A A^T)^-1: cells do not overlap, so A A^T is a number."""
        return weight / (1 + weight / self.factor**2)

    def mode_steps(self, grid: Grid) -> Steps:
        self.measured_size(grid.height, grid.width)
        rows = _fold_matrix(grid.height, self.factor, self.kernel)
        return (Fold(rows, _fold_matrix(grid.width, self.factor, self.kernel)),)

    def measured_size(self, height: int, width: int) -> tuple[int, int]:
        if height % self.factor or width % self.factor:
            raise UsageError(
                f"a frame of {width}x{height} cannot be shrunk by {self.factor}",
                hint=f"crop it to a multiple of {self.factor} in both directions",
            )
        return height // self.factor, width // self.factor

    def clean_size(self, height: int, width: int) -> tuple[int, int]:
        return height * self.factor, width * self.factor

    @property
    def traits(self) -> OperatorTraits:
        return OperatorTraits(scale=self.factor, is_antialiased_cubic=self.kernel == "bicubic")
