"""Orthonormal DCT-II, the basis in which blur with mirrored borders is diagonal."""

import math
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # kept: also for who will ask for gradients
def _twiddle(size: int, real: torch.dtype, device: torch.device) -> Tensor:
    """exp(-i pi k / 2N) for k = 0 .. N//2, scaled so that the transform is orthonormal."""
    k = torch.arange(size // 2 + 1, device=device, dtype=torch.float64)
    twiddle = torch.polar(torch.full_like(k, math.sqrt(2 / size)), -math.pi * k / (2 * size))
    twiddle[0] /= math.sqrt(2)
    return twiddle.to(torch.complex64 if real == torch.float32 else torch.complex128)


def dct(x: Tensor, dim: int = -1) -> Tensor:
    """Orthonormal DCT-II of `x` along `dim`; same shape and dtype (float32 or float64).

    Makhoul's reordering (1980): one real FFT of the same length and a rotation.
    """
    x = x.movedim(dim, -1)
    size = x.shape[-1]
    reordered = torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], -1)
    rotated = torch.fft.rfft(reordered) * _twiddle(size, x.dtype, x.device)
    upper = -rotated.imag[..., 1 : (size + 1) // 2].flip(-1)
    return torch.cat([rotated.real, upper], -1).movedim(-1, dim)


def idct(coefficients: Tensor, dim: int = -1) -> Tensor:
    """Inverse of `dct` along `dim`."""
    c = coefficients.movedim(dim, -1)
    size = c.shape[-1]
    half = size // 2 + 1
    # W_k = X_k - i X_{N-k}, with X_N = 0; the rotation is undone by its conjugate over its power.
    mirrored = torch.cat([torch.zeros_like(c[..., :1]), c.flip(-1)[..., : half - 1]], -1)
    twiddle = _twiddle(size, c.dtype, c.device)
    spectrum = torch.complex(c[..., :half].contiguous(), -mirrored) / twiddle
    reordered = torch.fft.irfft(spectrum, n=size)
    x = torch.empty_like(c)
    x[..., ::2] = reordered[..., : (size + 1) // 2]
    x[..., 1::2] = reordered[..., (size + 1) // 2 :].flip(-1)
    return x.movedim(-1, dim)


def dct2(x: Tensor) -> Tensor:
    """Two-dimensional orthonormal DCT-II over the last two dimensions."""
    return dct(dct(x, -1), -2)


def idct2(coefficients: Tensor) -> Tensor:
    """Inverse of `dct2`."""
    return idct(idct(coefficients, -2), -1)
