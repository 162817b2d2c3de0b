"""Orthonormal DCT-II, the basis in which blur with mirrored borders is diagonal."""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F


def _exact_twiddle(size: int) -> Tensor:
    """exp(-i pi k / 2N) for k = 0 .. N//2, scaled so that the transform is orthonormal."""
    k = torch.arange(size // 2 + 1, dtype=torch.float64)
    twiddle = torch.polar(torch.full_like(k, math.sqrt(2 / size)), -math.pi * k / (2 * size))
    twiddle[0] /= math.sqrt(2)
    return twiddle


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # kept: also for who will ask for gradients
def _twiddle(size: int, real: torch.dtype, device: torch.device) -> Tensor:
    return _exact_twiddle(size).to(device, _complex(real))


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _inverse_twiddle(size: int, real: torch.dtype, device: torch.device) -> Tensor:
    """One over `_twiddle`: to multiply complex numbers takes a fifth of the time."""
    return _exact_twiddle(size).reciprocal().to(device, _complex(real))


def _complex(real: torch.dtype) -> torch.dtype:
    return torch.complex64 if real == torch.float32 else torch.complex128


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
    mirrored = F.pad(-c[..., size - half + 1 :].flip(-1), (1, 0))
    rotated = torch.complex(c[..., :half], mirrored)
    reordered = torch.fft.irfft(rotated * _inverse_twiddle(size, c.dtype, c.device), n=size)
    x = torch.empty_like(c)
    x[..., ::2] = reordered[..., : (size + 1) // 2]
    x[..., 1::2] = reordered[..., (size + 1) // 2 :].flip(-1)
    return x.movedim(-1, dim)


# Rows first and last, so that modes lie in memory as frames do.


def dct2(x: Tensor) -> Tensor:
    """Two-dimensional orthonormal DCT-II over the last two dimensions."""
    return dct(dct(x, -2), -1)


def idct2(coefficients: Tensor) -> Tensor:
    """Inverse of `dct2`."""
    return idct(idct(coefficients, -1), -2)
