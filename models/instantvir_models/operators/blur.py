"""Blur in space and over time, and its opposite. Borders are mirrored (half-sample symmetric), so
Gaussians and other even kernels are diagonal in the DCT-II and every formula below is exact."""

import math
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from instantvir_models.operators.base import Operator, OperatorTraits
from instantvir_models.operators.dct import dct, dct2, idct, idct2
from instantvir_models.operators.modes import Gain, Grid, Steps, forward

LINES_PER_PIXEL = 32
"""Lines on which the part of a pixel that a disc covers is measured."""


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
@torch.inference_mode(False)
def _gaussian_spectrum(sigma: float, size: int) -> Tensor:
    return even_spectrum(gaussian_kernel(sigma), size)


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def _gaussian_gain(sigma_y: float, sigma_x: float, height: int, width: int) -> Gain:
    rows, columns = _gaussian_spectrum(sigma_y, height), _gaussian_spectrum(sigma_x, width)
    return Gain(torch.outer(rows, columns)[None, None])


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

    def mode_steps(self, grid: Grid) -> Steps:
        return (_gaussian_gain(self.sigma_y, self.sigma_x, grid.height, grid.width),)

    def A(self, x: Tensor) -> Tensor:
        return _multiplied(self, x)

    def A_adjoint(self, y: Tensor) -> Tensor:
        return self.A(y)  # an even kernel with mirrored borders is symmetric

    @property
    def is_identity(self) -> bool:
        return self.sigma_y == 0 and self.sigma_x == 0

    def halved(self) -> "GaussianBlur":
        return _blur(self.sigma_y / 2, self.sigma_x / 2)

    @property
    def traits(self) -> OperatorTraits:
        return OperatorTraits(
            blur_sigma=math.sqrt(self.sigma_x * self.sigma_y),
            blur_departure=_departure_of_gaussian(self.sigma_y, self.sigma_x),
        )


class UnsharpMask(Operator):
    """What sharpens a picture: x + amount (x - G x), G a round Gaussian blur.

    Where it is clipped at black and white, as every file is, it is linear no more.

    Args:
        amount: 1 adds once what the blur takes away.
        sigma: standard deviation of the blur in pixels.
    """

    def __init__(self, amount: float, sigma: float) -> None:
        self.amount, self.sigma = float(amount), float(sigma)
        self.spec = f"sharpen:amount={self.amount:g},sigma={self.sigma:g}"

    def mode_steps(self, grid: Grid) -> Steps:
        rows = _gaussian_spectrum(self.sigma, grid.height)
        columns = _gaussian_spectrum(self.sigma, grid.width)
        return (Gain((1 + self.amount * (1 - torch.outer(rows, columns)))[None, None]),)

    def A(self, x: Tensor) -> Tensor:
        return _multiplied(self, x)

    def A_adjoint(self, y: Tensor) -> Tensor:
        return self.A(y)

    @property
    def is_identity(self) -> bool:
        return self.amount == 0 or self.sigma == 0

    def halved(self) -> "UnsharpMask":
        return _unsharp_mask(self.amount, self.sigma / 2)

    @property
    def traits(self) -> OperatorTraits:
        return OperatorTraits()  # nothing is lost


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

    def mode_steps(self, grid: Grid) -> Steps:
        return (Gain(even_spectrum(self.taps, grid.frames)[:, None, None, None]),)

    def A(self, x: Tensor) -> Tensor:
        (step,) = self.mode_steps(Grid(x.shape[1], *x.shape[-2:]))
        return idct(step.forward(dct(x, 1)), 1)

    def A_adjoint(self, y: Tensor) -> Tensor:
        return self.A(y)

    @property
    def is_identity(self) -> bool:
        return len(self.taps) == 1

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
        self._known_transfers: tuple[Tensor, Tensor] | None = None
        is_odd = psf.shape[0] % 2 == 1 and psf.shape[1] % 2 == 1
        self._is_even = is_odd and all(
            torch.allclose(self.psf, self.psf.flip(dim), rtol=1e-9, atol=1e-15) for dim in (0, 1)
        )

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

    @property
    def is_identity(self) -> bool:
        return self.psf.numel() == 1

    def mode_steps(self, grid: Grid) -> Steps | None:
        if not self._is_even:
            return None
        return (Gain(self._transfers(grid.height, grid.width)[0].real[None, None]),)

    @torch.inference_mode(False)
    def _transfers(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Fourier transforms of the point spread and of its mirror image at the frequencies of DCT
        modes, [H, W] complex128 each; those of the last size are kept."""
        if self._known_transfers is None or self._known_transfers[0].shape != (height, width):

            def waves(size: int, taps: int) -> Tensor:
                offsets = torch.arange(taps, dtype=torch.float64) - taps // 2
                phase = torch.arange(size, dtype=torch.float64)[:, None] * offsets
                return torch.polar(torch.ones_like(phase), phase * (-math.pi / size))

            rows, columns = waves(height, self.psf.shape[0]), waves(width, self.psf.shape[1])
            down = rows @ self.psf.to(torch.complex128)
            self._known_transfers = down @ columns.mT, down @ columns.mH
        return self._known_transfers

    def mode_energy(self, grid: Grid, later: Tensor) -> Tensor:
        """A mode of the DCT is two plane waves, mirror images of each other."""
        straight, mirrored = self._transfers(grid.height, grid.width)
        return later * (straight.abs().square() + mirrored.abs().square()) / 2

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


@lru_cache(maxsize=16)
def _blur(sigma_y: float, sigma_x: float) -> GaussianBlur:
    """One object for each blur, since what is known of an operator is kept by it."""
    return GaussianBlur(sigma_y, sigma_x)


@lru_cache(maxsize=16)
def _unsharp_mask(amount: float, sigma: float) -> UnsharpMask:
    """One object for each, as with `_blur`."""
    return UnsharpMask(amount, sigma)


def _multiplied(operator: GaussianBlur | UnsharpMask, x: Tensor) -> Tensor:
    return idct2(forward(operator.mode_steps(Grid(x.shape[1], *x.shape[-2:])), dct2(x)))


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


def disc(radius: float) -> Tensor:
    """Point spread of a lens out of focus: the part of each pixel that a disc covers, [k, k] float64.

    Its second moment is that of a Gaussian of half the radius.
    """
    reach = math.floor(radius + 0.5)
    pixels = torch.arange(-reach, reach + 1, dtype=torch.float64)[:, None]
    edges = torch.linspace(-reach - 0.5, reach + 0.5, LINES_PER_PIXEL * len(pixels) + 1).double()
    middles = (edges[1:] + edges[:-1]) / 2
    half_chord = (radius**2 - middles.square()).clamp_min(0).sqrt()
    right = torch.minimum(pixels + 0.5, half_chord)
    left = torch.maximum(pixels - 0.5, -half_chord)
    covered = (right - left).clamp_min(0).view(len(pixels), len(pixels), -1).mean(-1)
    covered = (covered + covered.mT) / 2  # exact across the lines only
    return covered / covered.sum()


def line(length: float, angle_degrees: float) -> Tensor:
    """Point spread of a camera moved evenly: the time a point spends in each pixel, [k, l] float64.

    Args:
        length: of its path, in pixels; an odd whole number gives as many equal taps along an axis.
        angle_degrees: from the x axis, turned as `rotated_gaussian` is: 90 is down.
    """
    angle = math.radians(angle_degrees)
    direction = torch.tensor([math.sin(angle), math.cos(angle)], dtype=torch.float64)
    direction[direction.abs() < 1e-9] = 0
    reach = (direction.abs() * length / 2 + 0.5 - 1e-9).floor().long()
    crossings = [
        (torch.arange(-int(n), int(n)) + 0.5) / step
        for n, step in zip(reach, direction, strict=True)
        if n > 0
    ]
    ends = torch.tensor([-length / 2, length / 2], dtype=torch.float64)
    moments = torch.cat([ends, *crossings]).sort().values
    middles = (moments[1:] + moments[:-1]) / 2
    row, column = (middles[:, None] * direction).round().long().add(reach).unbind(1)
    psf = torch.zeros(*(2 * reach + 1).tolist(), dtype=torch.float64)
    psf.index_put_((row, column), moments.diff(), accumulate=True)
    return (psf + psf.flip(0, 1)) / (2 * length)


class Defocus(PointSpread):
    """The blur of a lens out of focus: a disc of `radius` pixels."""

    def __init__(self, radius: float) -> None:
        self.radius = float(radius)
        super().__init__(disc(self.radius), spec=f"defocus:radius={self.radius:g}")

    def halved(self) -> "Defocus":
        return _defocus(self.radius / 2)


class MotionBlur(PointSpread):
    """The blur of a camera that moves evenly while it exposes: a line of `length` pixels.

    Args:
        length: pixels.
        angle: degrees from the x axis; 90 is down.
    """

    def __init__(self, length: float, angle: float = 0.0) -> None:
        self.length, self.angle = float(length), float(angle)
        super().__init__(
            line(self.length, self.angle),
            spec=f"motion:length={self.length:g},angle={self.angle:g}",
        )

    def halved(self) -> "MotionBlur":
        return _motion_blur(self.length / 2, self.angle)


@lru_cache(maxsize=16)
def _defocus(radius: float) -> Defocus:
    """One object for each, as with `_blur`."""
    return Defocus(radius)


@lru_cache(maxsize=16)
def _motion_blur(length: float, angle: float) -> MotionBlur:
    return MotionBlur(length, angle)
