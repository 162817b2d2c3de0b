"""Down-sampling by area average or antialiased bicubic, as two small matrices."""

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from instantvir_models.errors import UsageError
from instantvir_models.operators.base import Operator, OperatorTraits, separable

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
def _shrink_matrix(size_in: int, factor: int, kernel: DownsampleKernel) -> Tensor:
    if kernel == "area":
        small = torch.eye(size_in // factor, dtype=torch.float64)
        return small.repeat_interleave(factor, 1) / factor
    return _cubic_matrix(size_in // factor, size_in)


@lru_cache(maxsize=32)
def _grow_matrix(size_in: int, factor: int) -> Tensor:
    return _cubic_matrix(size_in * factor, size_in)


@lru_cache(maxsize=32)
def _eigen(size_in: int, factor: int, kernel: DownsampleKernel) -> tuple[Tensor, Tensor]:
    """Eigenvalues [n] and vectors [n, n] of R R^T for the shrinking matrix R."""
    shrink = _shrink_matrix(size_in, factor, kernel)
    values, vectors = torch.linalg.eigh(shrink @ shrink.T)
    return values.clamp_min(0), vectors


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
        return separable(x, *self._matrices(*x.shape[-2:]))

    def A_adjoint(self, y: Tensor) -> Tensor:
        rows, columns = self._matrices(*self.clean_size(*y.shape[-2:]))
        return separable(y, rows.mT, columns.mT)

    def _inverse_gram(self, y: Tensor, damping: Tensor | float) -> Tensor:
        """(A A^T + damping I)^-1 y, exact, in the eigenbasis of the two small matrices."""
        height, width = self.clean_size(*y.shape[-2:])
        row_values, row_vectors = (t.to(y) for t in _eigen(height, self.factor, self.kernel))
        column_values, column_vectors = (t.to(y) for t in _eigen(width, self.factor, self.kernel))
        inner = separable(y, row_vectors.mT, column_vectors.mT)
        inner = inner / (torch.outer(row_values, column_values) + damping)
        return separable(inner, row_vectors, column_vectors)

    def solve(self, b: Tensor, weight: Tensor | float) -> Tensor:
        return b - self.A_adjoint(self._inverse_gram(self.A(b), 1 / weight))  # Woodbury

    def A_dagger(self, y: Tensor, noise_std: float = 0.0) -> Tensor:
        """The video of least energy that explains y, [B, T, C, H, W]."""
        return self.A_adjoint(self._inverse_gram(y, noise_std**2 + 1e-7))

    def initial_estimate(self, y: Tensor, noise_std: float = 0.0) -> Tensor:
        """Bicubic enlargement, then corrected to explain y as far as the noise allows."""
        height, width = y.shape[-2:]
        grown = separable(y, _grow_matrix(height, self.factor), _grow_matrix(width, self.factor))
        damping = (noise_std / 0.06) ** 2 / self.factor**2 + 1e-7
        return grown + self.A_adjoint(self._inverse_gram(y - self.A(grown), damping))

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
