"""Blur in space and over time. Borders are mirrored (half-sample symmetric), so Gaussians
and other even kernels are diagonal in the DCT-II and every formula below is exact."""

import math
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from instantvir_models.operators.base import Operator, OperatorTraits
from instantvir_models.operators.dct import dct, dct2, idct, idct2

NATURAL_VIDEO_POWER = 4e-3
"""Power of natural frames at one cycle per pixel, [-1, 1] range, in S(f) = power / f^2: the prior
of the Wiener filter. Measured on the training clips."""


def gaussian_kernel(sigma: float, radius: int | None = None) -> Tensor:
    """Normalised Gaussian taps, [2 radius + 1] float64; radius defaults to 4 sigma."""
    if radius is None:
        radius = max(1, math.ceil(4 * sigma))
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    taps = torch.exp(-0.5 * (offsets / sigma) ** 2) if sigma > 0 else (offsets == 0).double()
    return taps / taps.sum()


def even_spectrum(taps: Tensor, size: int) -> Tensor:
    """Eigenvalues [size] of the convolution with even, odd-length `taps` and mirrored borders."""
    radius = len(taps) // 2
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    frequencies = torch.arange(size, dtype=torch.float64)
    return torch.cos(math.pi * frequencies[:, None] * offsets / size) @ taps


@lru_cache(maxsize=64)
def _gaussian_spectrum(sigma: float, size: int) -> Tensor:
    return even_spectrum(gaussian_kernel(sigma), size)


@lru_cache(maxsize=16)
def _prior_power(height: int, width: int) -> Tensor:
    """Expected power of each DCT coefficient of a natural frame, [H, W] float64."""
    v = torch.arange(height, dtype=torch.float64) / (2 * height)
    u = torch.arange(width, dtype=torch.float64) / (2 * width)
    squared = v[:, None] ** 2 + u**2
    squared[0, 0] = 1e-9
    return NATURAL_VIDEO_POWER / squared


class GaussianBlur(Operator):
    """Spatial Gaussian blur with axis-aligned standard deviations.

    Args:
        sigma_y, sigma_x: standard deviations in pixels, >= 0.
    """

    def __init__(self, sigma_y: float, sigma_x: float | None = None) -> None:
        self.sigma_y = float(sigma_y)
        self.sigma_x = float(sigma_y if sigma_x is None else sigma_x)
        if self.sigma_x == self.sigma_y:
            self.spec = f"blur:sigma={self.sigma_y:g}"
        else:
            self.spec = f"blur:sigma_y={self.sigma_y:g},sigma_x={self.sigma_x:g}"

    def _spectrum(self, x: Tensor) -> Tensor:
        rows = _gaussian_spectrum(self.sigma_y, x.shape[-2])
        columns = _gaussian_spectrum(self.sigma_x, x.shape[-1])
        return torch.outer(rows, columns).to(x)

    def A(self, x: Tensor) -> Tensor:
        return idct2(dct2(x) * self._spectrum(x))

    def A_adjoint(self, y: Tensor) -> Tensor:
        return self.A(y)  # an even kernel with mirrored borders is symmetric

    def solve(self, b: Tensor, weight: Tensor | float) -> Tensor:
        return idct2(dct2(b) / (1 + weight * self._spectrum(b).square()))

    def A_dagger(self, y: Tensor, noise_std: float = 0.0) -> Tensor:
        """Wiener filter for frames with a 1/f^2 power spectrum, [B, T, C, H, W]."""
        spectrum = self._spectrum(y)
        ratio = (max(noise_std, 2e-3) ** 2 / _prior_power(*y.shape[-2:])).to(y)
        return idct2(dct2(y) * (spectrum / (spectrum.square() + ratio)))

    def halved(self) -> "GaussianBlur":
        return GaussianBlur(self.sigma_y / 2, self.sigma_x / 2)

    @property
    def traits(self) -> OperatorTraits:
        return OperatorTraits(
            blur_sigma=math.sqrt(self.sigma_x * self.sigma_y),
            blur_departure=_departure_of_gaussian(self.sigma_y, self.sigma_x),
        )


class TemporalBlur(Operator):
    """Blur over time with an even kernel, mirrored at the first and last frame.

    Args:
        taps: [2 radius + 1], even, positive; normalised here.
        spec: how this kernel is written in a specification.
    """

    def __init__(self, taps: Tensor, *, spec: str) -> None:
        if taps.ndim != 1 or len(taps) % 2 == 0 or not torch.allclose(taps, taps.flip(0)):
            raise ValueError(f"a temporal kernel is even and of odd length, got {taps.tolist()}")
        self.taps = (taps / taps.sum()).double()
        self.temporal_radius = len(taps) // 2
        self.spec = spec

    @classmethod
    def uniform(cls, size: int) -> "TemporalBlur":
        """The average of `size` frames around each frame."""
        return cls(torch.ones(size), spec=f"temporal:kernel=uniform,size={size}")

    @classmethod
    def gaussian(cls, size: int, sigma: float) -> "TemporalBlur":
        """A Gaussian of `sigma` frames cut to `size` taps."""
        taps = gaussian_kernel(sigma, radius=size // 2)
        return cls(taps, spec=f"temporal:kernel=gaussian,size={size},sigma={sigma:g}")

    def _spectrum(self, x: Tensor) -> Tensor:
        return even_spectrum(self.taps, x.shape[1]).to(x)[:, None, None, None]

    def A(self, x: Tensor) -> Tensor:
        return idct(dct(x, 1) * self._spectrum(x), 1)

    def A_adjoint(self, y: Tensor) -> Tensor:
        return self.A(y)

    def solve(self, b: Tensor, weight: Tensor | float) -> Tensor:
        return idct(dct(b, 1) / (1 + weight * self._spectrum(b).square()), 1)

    def A_dagger(self, y: Tensor, noise_std: float = 0.0) -> Tensor:
        """Tikhonov-regularised inverse over time, damped at least by 1 %."""
        spectrum = self._spectrum(y)
        damping = max((noise_std / 0.1) ** 2, 1e-2)
        return idct(dct(y, 1) * (spectrum * (1 + damping) / (spectrum.square() + damping)), 1)

    @property
    def traits(self) -> OperatorTraits:
        offsets = torch.arange(len(self.taps)) - self.temporal_radius
        return OperatorTraits(temporal_sigma=float((self.taps * offsets**2).sum().sqrt()))


class PointSpread(Operator):
    """Convolution with an arbitrary point spread function (motion blur, rotated Gaussians).

    Args:
        psf: [k, l], non-negative, any size; normalised here. Its centre is [k // 2, l // 2].
        spec: how this function is written in a specification.
    """

    def __init__(self, psf: Tensor, *, spec: str) -> None:
        if psf.ndim != 2 or not torch.isfinite(psf).all() or (psf < 0).any() or psf.sum() <= 0:
            raise ValueError(f"a point spread function is a non-negative image, got {psf.shape}")
        self.psf = (psf / psf.sum()).double()
        self.spec = spec

    def A(self, x: Tensor) -> Tensor:
        return self._convolve(self._pad(x))

    def A_adjoint(self, y: Tensor) -> Tensor:
        top, left = self.psf.shape[0] // 2, self.psf.shape[1] // 2
        height, width = y.shape[-2:]
        grown = [height + self.psf.shape[0] - 1, width + self.psf.shape[1] - 1]
        transfer = torch.fft.rfft2(self.psf.to(y), s=grown)
        correlated = torch.fft.irfft2(torch.fft.rfft2(y, s=grown) * transfer.conj(), s=grown)
        # row r of the padded frame met y[r - (k - 1)] last, so the correlation starts k - 1 early
        padded = correlated.roll((self.psf.shape[0] - 1, self.psf.shape[1] - 1), (-2, -1))
        rows = _mirrored(height, self.psf.shape[0] - 1 - top, top, y.device)
        columns = _mirrored(width, self.psf.shape[1] - 1 - left, left, y.device)
        folded = y.new_zeros(*y.shape[:-2], height, padded.shape[-1]).index_add(-2, rows, padded)
        return torch.zeros_like(y).index_add(-1, columns, folded)

    def _pad(self, x: Tensor) -> Tensor:
        top, left = self.psf.shape[0] // 2, self.psf.shape[1] // 2
        rows = _mirrored(x.shape[-2], self.psf.shape[0] - 1 - top, top, x.device)
        columns = _mirrored(x.shape[-1], self.psf.shape[1] - 1 - left, left, x.device)
        return x.index_select(-2, rows).index_select(-1, columns)

    def _convolve(self, padded: Tensor) -> Tensor:
        size = padded.shape[-2:]
        transfer = torch.fft.rfft2(self.psf.to(padded), s=size)
        full = torch.fft.irfft2(torch.fft.rfft2(padded) * transfer, s=size)
        return full[..., self.psf.shape[0] - 1 :, self.psf.shape[1] - 1 :]

    def A_dagger(self, y: Tensor, noise_std: float = 0.0) -> Tensor:
        """Tikhonov-regularised inverse by conjugate gradients."""
        weight = 1.0 / max(noise_std, 2e-2) ** 2
        return self.solve(weight * self.A_adjoint(y) + _mean(y), weight)

    @property
    def traits(self) -> OperatorTraits:
        return self._traits

    @cached_property
    def _traits(self) -> OperatorTraits:
        rows = torch.arange(self.psf.shape[0]) - self.psf.shape[0] // 2
        columns = torch.arange(self.psf.shape[1]) - self.psf.shape[1] // 2
        variance = (self.psf.sum(1) * rows**2).sum() + (self.psf.sum(0) * columns**2).sum()
        return OperatorTraits(
            blur_sigma=float((variance / 2).sqrt()), blur_departure=departure(self.psf)
        )


def departure(psf: Tensor) -> float:
    """The part of the light of `psf` [k, l] that a round Gaussian of its variance sends elsewhere.

    Half the sum of the differences, from 0 (equal) to 1; `psf` is normalised.
    """
    squared = _squared_distance(psf)
    variance = float((psf * squared).sum()) / 2
    gaussian = torch.exp(-squared / (2 * max(variance, 1e-6)))
    return float((psf - gaussian / gaussian.sum()).abs().sum()) / 2


@lru_cache(maxsize=64)
def _departure_of_gaussian(sigma_y: float, sigma_x: float) -> float:
    if sigma_x == sigma_y:
        return 0.0
    psf = rotated_gaussian(max(sigma_x, 0.1), max(sigma_y, 0.1), 0)
    return departure(psf / psf.sum())


def _squared_distance(psf: Tensor) -> Tensor:
    """Of each place of `psf` [k, l] from its centre."""
    rows = torch.arange(psf.shape[0], dtype=psf.dtype) - psf.shape[0] // 2
    columns = torch.arange(psf.shape[1], dtype=psf.dtype) - psf.shape[1] // 2
    return rows[:, None] ** 2 + columns**2


def _mean(y: Tensor) -> Tensor:
    return y.mean((-2, -1), keepdim=True)


def _mirrored(size: int, before: int, after: int, device: torch.device) -> Tensor:
    """Source index of each of before + size + after positions, mirrored half-sample, any reach."""
    position = torch.arange(-before, size + after, device=device) % (2 * size)
    return torch.minimum(position, 2 * size - 1 - position)


def rotated_gaussian(sigma_long: float, sigma_short: float, angle_degrees: float) -> Tensor:
    """Point spread of a Gaussian whose long axis is turned by `angle_degrees` from x, [k, k]."""
    radius = max(1, math.ceil(4 * max(sigma_long, sigma_short)))
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    y, x = torch.meshgrid(offsets, offsets, indexing="ij")
    angle = math.radians(angle_degrees)
    along = x * math.cos(angle) + y * math.sin(angle)
    across = -x * math.sin(angle) + y * math.cos(angle)
    return torch.exp(-0.5 * ((along / sigma_long) ** 2 + (across / sigma_short) ** 2))
