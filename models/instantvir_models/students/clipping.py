"""What storage took away: noise below black and above white.

Where a picture is nearly black, noise can only go up, and its mean is brighter than the picture.
"""

import math

import torch
from torch import Tensor

STEPS = 257
"""Brightnesses at which the mean of a clipped pixel is tabulated; linear in between."""


def clipped_mean(x: Tensor, noise_std: Tensor) -> Tensor:
    """Mean of x + noise after clipping to [-1, 1]; x in [-1, 1], noise_std > 0, broadcast."""
    below, above = (-1 - x) / noise_std, (x - 1) / noise_std
    return x + noise_std * (_excess(below) - _excess(above))


def unclipped_mean(mean: Tensor, noise_std: Tensor) -> Tensor:
    """The picture [n, ...] in [-1, 1] whose clipped noisy mean is `mean`: inverse of `clipped_mean`.

    Args:
        noise_std: [n], 0 for none.
    """
    x = torch.linspace(-1, 1, STEPS, device=mean.device)
    means = clipped_mean(x, noise_std.clamp_min(1e-4)[:, None])
    flat = mean.float().flatten(1).contiguous()
    right = torch.searchsorted(means, flat).clamp(1, STEPS - 1)
    low, high = means.gather(1, right - 1), means.gather(1, right)
    part = ((flat - low) / (high - low)).clamp(0, 1)
    return (x[right - 1] + part * (x[1] - x[0])).view_as(mean)


def _excess(z: Tensor) -> Tensor:
    """Mean of max(z - normal, 0)."""
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    return density + z * 0.5 * (1 + torch.erf(z / math.sqrt(2)))
