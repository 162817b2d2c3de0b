"""The lossless latent of the embedded student: one level of the orthonormal 2x2 Haar transform."""

import torch
from torch import Tensor
from torch.nn import functional as F


def haar(x: Tensor) -> Tensor:
    """[n, C, H, W] -> [n, 4C, H/2, W/2]: average, horizontal, vertical, diagonal bands.

    Orthonormal, so energies and noise levels are the same on both sides. H and W are even.
    """
    a, b, c, d = F.pixel_unshuffle(x, 2).unflatten(1, (-1, 4)).unbind(2)
    top, bottom, left, right = a + b, c + d, a - b, c - d
    bands = (top + bottom, left + right, top - bottom, left - right)
    return torch.cat(bands, 1) * 0.5


def inverse_haar(bands: Tensor) -> Tensor:
    """Inverse of `haar`: [n, 4C, H, W] -> [n, C, 2H, 2W]."""
    average, horizontal, vertical, diagonal = bands.unflatten(1, (4, -1)).unbind(1)
    top, bottom = average + vertical, average - vertical
    left, right = horizontal + diagonal, horizontal - diagonal
    pixels = torch.stack((top + left, top - left, bottom + right, bottom - right), 2).flatten(1, 2)
    return F.pixel_shuffle(pixels * 0.5, 2)
