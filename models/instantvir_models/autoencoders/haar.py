"""The lossless latent of the embedded student: one level of the orthonormal 2x2 Haar transform."""

import torch
from torch import Tensor


def haar(x: Tensor) -> Tensor:
    """[n, C, H, W] -> [n, 4C, H/2, W/2]: average, horizontal, vertical, diagonal bands.

    Orthonormal, so energies and noise levels are the same on both sides. H and W are even.
    """
    top, bottom = x[..., ::2, :], x[..., 1::2, :]
    bands = []
    for rows in (top + bottom, top - bottom):
        left, right = rows[..., ::2], rows[..., 1::2]
        bands += [left + right, left - right]
    return torch.cat(bands, 1) * 0.5


def inverse_haar(bands: Tensor) -> Tensor:
    """Inverse of `haar`: [n, 4C, H, W] -> [n, C, 2H, 2W]."""
    average, horizontal, vertical, diagonal = (bands * 0.5).unflatten(1, (4, -1)).unbind(1)
    n, channels, height, width = average.shape
    pixels = bands.new_empty(n, channels, height, 2, width, 2)
    for row, even, odd in (
        (0, average + vertical, horizontal + diagonal),
        (1, average - vertical, horizontal - diagonal),
    ):
        pixels[..., row, :, 0] = even + odd
        pixels[..., row, :, 1] = even - odd
    return pixels.flatten(4).flatten(2, 3)
