"""How much fine contrast a restoration may take away: what looks like damage can be texture.

A solver that is told of an error takes the mean of all that a place may have looked like; where texture
is as faint as the error, that mean is smooth. Nearer to the truth it is, and yet people, and LPIPS,
rather see the texture that was there. So each place is moved only as far towards the solver's result
as it keeps a wanted part of the fine contrast that it had: edges are mended, grass stays. Of fine contrast
in colour less is to be kept: no usual codec does, and what is there is mostly its error.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from instantvir_models.operators.measurement import LEVEL
from instantvir_models.solvers.base import Restored, Window
from instantvir_models.students.base import bounded_estimate
from instantvir_models.students.fusion import LUMA

FINE_PIXELS = 5
"""Fine is what differs from the mean over a square of this side."""

AROUND_PIXELS = 9
"""Side of the square over which contrast is compared."""

FLOOR = (0.15 * LEVEL) ** 2
"""Of fine contrast: less of it nobody sees."""

COLOUR_PART = 0.6
"""Of the wanted part that is kept in colour. Fourteen training clips of MPEG-2 gain 0.02 dB less by all of it,
and LPIPS is 0.003 higher; with none of it a drawn picture has its coloured edges blurred (LPIPS 0.003
higher)."""


def with_detail_kept(restored: Restored, window: Window, part: float) -> Restored:
    """`restored`, moved back towards the initial estimate where it lost more fine contrast than wanted.

    Args:
        part: of the initial estimate's fine contrast that stays everywhere, 0 to 1.
    """
    x_init = bounded_estimate(window.measurement)
    return replace(restored, x=kept_detail(x_init, restored.x, part), A_x=None)


def followed(restored: Restored, window: Window, part: float) -> Restored:
    """`restored`, moved back towards the initial estimate everywhere.

    Args:
        part: of the way from the initial estimate to it that is gone, 0 to 1.
    """
    x_init = bounded_estimate(window.measurement)
    return replace(restored, x=torch.lerp(x_init, restored.x, part), A_x=None)


def kept_detail(x_init: Tensor, x: Tensor, part: float) -> Tensor:
    """[B, T, 3, H, W] between `x_init` and `x`, brightness and colour each as near to `x` as keeps its part
    of the contrast."""
    before, after = luma(x_init), luma(x)
    colour = _kept(x_init - before, x - after, COLOUR_PART * part)
    return _kept(before, after, part) + colour


def _kept(x_init: Tensor, x: Tensor, part: float) -> Tensor:
    """[B, T, C, H, W], all channels moved alike."""
    before = _fine(x_init)
    step = _fine(x) - before
    energy, along, length = (
        _around(product.sum(1, keepdim=True))
        for product in (before * before, before * step, step * step)
    )
    share = _around(_first_root(energy + FLOOR, along, length, 1 - part**2))
    return torch.lerp(x_init, x, share.unflatten(0, x.shape[:2]))


def _first_root(energy: Tensor, along: Tensor, length: Tensor, lost: float) -> Tensor:
    """The smallest s from 0 to 1 at which energy + 2 s along + s^2 length is down by the part `lost`,
    else 1."""
    discriminant = along.square() - length * energy * lost
    # written so that it is exact where there is next to nothing of `length`
    root = energy * lost / (discriminant.clamp_min(0).sqrt() - along).clamp_min(1e-12)
    falls = (along < 0) & (discriminant > 0)
    return torch.where(falls, root, torch.ones_like(root)).clamp(0, 1)


def luma(x: Tensor) -> Tensor:
    """[B, T, 1, H, W] the brightness of frames [B, T, 3, H, W]."""
    return (x * x.new_tensor(LUMA).view(3, 1, 1)).sum(2, keepdim=True)


def _fine(x: Tensor) -> Tensor:
    """[B * T, C, H, W] less its mean around."""
    frames = x.flatten(0, 1)
    return frames - mean_over(frames, FINE_PIXELS)


def _around(values: Tensor) -> Tensor:
    return mean_over(values, AROUND_PIXELS)


def mean_over(values: Tensor, side: int) -> Tensor:
    """Means of values [n, C, H, W] over squares, of what lies inside the picture."""
    half = side // 2
    rows = F.avg_pool2d(values, (side, 1), 1, (half, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, side), 1, (0, half), count_include_pad=False)
