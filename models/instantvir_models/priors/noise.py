"""How noisy a signal is, where the noise may differ between parts that do not mix.

White noise is white in every orthonormal basis. So a look at a video z = x + S e may have a level
of its own for each pixel, or one for the means of boxes of pixels and another for the rest: what a
measurement knows of masked or enlarged videos is of this kind.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Function = Callable[[Tensor], Tensor]


class NoiseLevel(ABC):
    """S of z = x + S e with e ~ N(0, I): a symmetric map, known by what its functions do."""

    @abstractmethod
    def apply(self, function: Function, x: Tensor) -> Tensor:
        """function(S) x, [B, T, C, H, W]; `function` acts on standard deviations one by one."""

    @abstractmethod
    def variance(self, like: Tensor) -> Tensor:
        """Variance of the noise of each pixel, [B, T, 1, H, W]."""

    @abstractmethod
    def band_variance(self, like: Tensor) -> Tensor:
        """Variance of the noise of each 2x2 Haar band, about where bands mix, [B, T, 4, H/2, W/2]."""

    @abstractmethod
    def codes(self, like: Tensor) -> Tensor:
        """[B, NUM_CODES] the level in numbers of order one."""

    @abstractmethod
    def padded(self, below: int, right: int) -> "NoiseLevel":
        """The same with edges repeated over so many rows and columns more."""

    @abstractmethod
    def of_frames(self, like: Tensor) -> "NoiseLevel":
        """The same for each frame of `like` as a video by itself, [B T, 1, ...] for [B, T, ...]."""

    def drawn(self, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """S e for a random e, of the shape and type of `like`."""
        e = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
        return self.apply(lambda s: s, e)


NUM_CODES = 3


@dataclass(frozen=True)
class PixelNoise(NoiseLevel):
    """A level for each pixel.

    Args:
        std: [B or 1, T or 1, 1, H or 1, W or 1], positive, in the [-1, 1] range.
    """

    std: Tensor

    def __post_init__(self) -> None:
        if self.std.ndim != 5 or self.std.shape[2] != 1:
            raise ValueError(f"levels of pixels are [B, T, 1, H, W], got {tuple(self.std.shape)}")

    def apply(self, function: Function, x: Tensor) -> Tensor:
        return function(self.std.to(x)) * x

    def variance(self, like: Tensor) -> Tensor:
        batch, frames, _, height, width = like.shape
        return self.std.to(like).square().expand(batch, frames, 1, height, width)

    def band_variance(self, like: Tensor) -> Tensor:
        mean = F.avg_pool2d(self.variance(like).flatten(0, 1), 2)
        return mean.unflatten(0, like.shape[:2]).expand(-1, -1, 4, -1, -1)

    def codes(self, like: Tensor) -> Tensor:
        level = self.variance(like).log().mean((1, 2, 3, 4)) / 8
        return torch.stack([level, torch.zeros_like(level), torch.zeros_like(level)], 1)

    def padded(self, below: int, right: int) -> "PixelNoise":
        height, width = self.std.shape[-2:]
        sides = (0, right if width > 1 else 0, 0, below if height > 1 else 0)
        if not any(sides):
            return self
        flat = F.pad(self.std.flatten(0, 1), sides, mode="replicate")
        return PixelNoise(flat.unflatten(0, self.std.shape[:2]))

    def of_frames(self, like: Tensor) -> "PixelNoise":
        wide = self.std.expand(*like.shape[:2], *self.std.shape[2:])
        return PixelNoise(wide.flatten(0, 1)[:, None])


@dataclass(frozen=True)
class PooledNoise(NoiseLevel):
    """A level for the means of boxes of `factor` x `factor` pixels, another for all the rest.

    Args:
        std: [B or 1, 1, 1, 1, 1] of everything orthogonal to the means.
        pooled_std: the same of the means, as coefficients of length one: noise of level `std`
            everywhere has `pooled_std` equal to `std`.
        factor: side of a box in pixels, 2 or more.
    """

    std: Tensor
    pooled_std: Tensor
    factor: int

    def __post_init__(self) -> None:
        if (
            self.std.ndim != 5
            or self.std[0].numel() != 1
            or self.std.shape != self.pooled_std.shape
        ):
            raise ValueError(
                f"levels are [B, 1, 1, 1, 1] each, got {tuple(self.std.shape)} and "
                f"{tuple(self.pooled_std.shape)}"
            )
        if self.factor < 2:
            raise ValueError(f"boxes have a side of 2 or more, got {self.factor}")

    def apply(self, function: Function, x: Tensor) -> Tensor:
        rest = function(self.std.to(x))
        return rest * x + (function(self.pooled_std.to(x)) - rest) * box_means(x, self.factor)

    def variance(self, like: Tensor) -> Tensor:
        batch, frames, _, height, width = like.shape
        return self._mixed(self.factor**2, like).expand(batch, frames, 1, height, width)

    def band_variance(self, like: Tensor) -> Tensor:
        batch, frames, _, height, width = like.shape
        rest = self.std.to(like).square()
        # a 2x2 mean is one of the factor^2 / 4 that a box is made of
        low = self._mixed(max(1.0, self.factor**2 / 4), like)
        bands = torch.cat([low, rest, rest, rest], 2)
        return bands.expand(batch, frames, 4, height // 2, width // 2)

    def _mixed(self, count: float, like: Tensor) -> Tensor:
        """Variance of one of `count` equal parts that the mean of a box is made of."""
        rest, pooled = self.std.to(like).square(), self.pooled_std.to(like).square()
        return (pooled + (count - 1) * rest) / count

    def codes(self, like: Tensor) -> Tensor:
        level = self.std.to(like).log().flatten() / 4
        ratio = self.pooled_std.to(like).log().flatten() / 4 - level
        factor = torch.full_like(level, float(torch.tensor(self.factor).log2()) / 2)
        return torch.stack([level, ratio, factor], 1).expand(len(like), -1)

    def padded(self, below: int, right: int) -> "PooledNoise":
        return self

    def of_frames(self, like: Tensor) -> "PooledNoise":
        std, pooled = (
            each.expand(len(like), -1, -1, -1, -1).repeat_interleave(like.shape[1], 0)
            for each in (self.std, self.pooled_std)
        )
        return PooledNoise(std, pooled, self.factor)


def white(std: float | Tensor, *, dtype: torch.dtype = torch.float32) -> PixelNoise:
    """The same level everywhere; `std` is a number or one for each video, [B]."""
    return PixelNoise(torch.as_tensor(std, dtype=dtype).reshape(-1, 1, 1, 1, 1))


def box_means(x: Tensor, factor: int) -> Tensor:
    """x [B, T, C, H, W] with every box of `factor` x `factor` pixels at its mean."""
    means = F.avg_pool2d(x.flatten(0, 1), factor)
    return enlarged_boxes(means, factor).unflatten(0, x.shape[:2])


def enlarged_boxes(y: Tensor, factor: int) -> Tensor:
    """y [..., h, w] with every pixel as a box of `factor` x `factor`."""
    return y.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
