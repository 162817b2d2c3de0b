"""Time by arithmetic: what neighbouring frames know of this one, averaged along the motion.

Nothing here is learned. Each frame comes with the variance of its error; a neighbour is looked up
along optical flow, the variance of what does not fit is added to its own, and the two are averaged
in proportion to their precisions (the update of a Kalman filter). The past is carried as one mean
and one variance, so that memory stays constant however long the video is.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from instantvir_models.students.alignment import dense_flow, warp

WINDOW = 9
"""Side in pixels of the square over which misfit is measured."""

FORGETTING = 1.05
"""Factor on the variance of what is looked up: how much less a frame is trusted for each step away."""

DRIFT = 0.06
"""Part of the variance of a frame, where that is known best, that comes to that of its past at each
step where the past is looked up in the middle between pixels: that softens it, again and again. Found
on held-out crops: from the twelfth frame on .15 dB at noise of 25 levels, nothing lost before, nor
where the camera stands."""

CORRELATED_FLOOR = 0.5
"""Part of a frame's variance that averaging cannot take away where errors repeat over time, as those
of blur and down-sampling do."""

MEAN_STRIDE = 8
"""Pixels between samples of the local mean."""

MEAN_WINDOW = 3
"""Samples on a side that it is a mean of."""

GUIDE_LEVELS = 127.5
"""8-bit levels of the flow's guide per unit of luma."""

SURROUNDINGS = 13
"""Side of the square in the guide over which brightness is taken out."""

LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Belief:
    """A frame as far as it is known, float32."""

    mean: Tensor
    """[3, H, W] in about [-1, 1]."""
    variance: Tensor
    """[1, H, W] of the error of `mean`."""

    @cached_property
    def guide(self) -> NDArray[np.uint8]:
        """[H/2, W/2] what the flow is found on."""
        return flow_guide(self.mean)

    def on(self, device: torch.device) -> "Belief":
        """The same, there."""
        if self.mean.device == device:
            return self
        return Belief(self.mean.to(device), self.variance.to(device))


def flow_guide(mean: Tensor) -> NDArray[np.uint8]:
    """What the flow is found on, [H/2, W/2]: luma at half size less its surroundings, smoothed.

    Without the surroundings no brightness is cut off, and a constant added to every frame changes
    nothing.
    """
    red, green, blue = (weight * channel for weight, channel in zip(LUMA, mean, strict=True))
    luma: NDArray[Any] = (red + green + blue).cpu().numpy()
    half: NDArray[Any] = cv2.resize(luma, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    flat = half - cv2.blur(half, (SURROUNDINGS, SURROUNDINGS))
    smooth: NDArray[Any] = cv2.GaussianBlur(flat, (5, 5), 1.0)
    guide: NDArray[Any] = cv2.convertScaleAbs(smooth + 1, alpha=GUIDE_LEVELS)
    return guide


@dataclass(frozen=True)
class _Witness:
    """What a neighbour says of this frame."""

    mean: Tensor
    precision: Tensor


def _witness(other: Belief, here: Belief, *, drifts: bool = False) -> _Witness:
    """What `other` says of `here`.

    Args:
        drifts: whether it has been looked up before; see `DRIFT`.
    """
    flow = _flow(here, other)
    seen = warp(torch.cat([other.mean, other.variance])[None], flow[None])[0]
    mean, variance = seen[:3], seen[3:]
    doubt = _misfit(here, mean, variance).add_(variance, alpha=FORGETTING)
    if drifts:
        doubt += DRIFT * here.variance.amin() * _softening(flow)
    return _Witness(mean, 1 / doubt)


def _flow(here: Belief, other: Belief) -> Tensor:
    """Where the pixels of `here` are in `other`, [H, W, 2] (dx, dy) in pixels."""
    half = torch.from_numpy(dense_flow(here.guide, other.guide)).to(here.mean.device)
    flow = F.interpolate(
        half.permute(2, 0, 1)[None], scale_factor=2, mode="bilinear", align_corners=False
    )
    return flow[0].mul_(2).movedim(0, -1)


def _softening(flow: Tensor) -> Tensor:
    """How far between pixels it is looked, [1, H, W]: 0 at a pixel, 1 in the middle of four."""
    across, down = (beyond * (1 - beyond) for beyond in (flow - flow.floor()).unbind(-1))
    return across.add_(down).mul_(2)[None]


def _average(here: Belief, witnesses: list[_Witness], *, floor: Tensor) -> Belief:
    """`here` and its witnesses, weighted by precision."""
    precision = 1 / here.variance
    mean = here.mean * precision
    for witness in witnesses:
        mean.addcmul_(witness.mean, witness.precision)
        precision += witness.precision
    variance = 1 / precision
    return Belief(mean.mul_(variance), torch.maximum(variance, floor * here.variance))


def fused_block(
    frames: list[Belief], past: Belief | None, *, floor: Tensor
) -> tuple[list[Belief], Belief]:
    """Each frame of a block averaged with past and future, and the past of the next block.

    The past is what all frames before have come to; the future ends with the block.

    Args:
        floor: part of the variance of a frame that stays in any case, 0 to 1; a scalar.
    """
    ahead: list[list[_Witness]] = [[]]
    future = frames[-1]
    for frame in reversed(frames[:-1]):
        ahead.insert(0, [_witness(future, frame)])
        future = _average(frame, ahead[0], floor=floor)
    out = []
    for frame, witnesses in zip(frames, ahead, strict=True):
        before = [] if past is None else [_witness(past, frame, drifts=True)]
        past = _average(frame, before, floor=floor)
        out.append(_average(frame, before + witnesses, floor=floor) if witnesses else past)
    assert past is not None
    return out, past


def _misfit(here: Belief, seen: Tensor, variance: Tensor) -> Tensor:
    """Variance [1, H, W] of what two frames differ by beyond what their own errors explain.

    A mean over `WINDOW` x `WINDOW` pixels, in which pixels known precisely count most.
    """
    precision = 1 / (here.variance + variance)
    squared = (here.mean - seen).square_().mean(0, keepdim=True)
    excess = mean_around((squared * precision)[None], WINDOW, edges="reflect")[0] - 1
    return excess.clamp_min_(0) / mean_around(precision[None], WINDOW, edges="reflect")[0]


def mean_around(x: Tensor, side: int, *, edges: str = "replicate") -> Tensor:
    """Each pixel of x [n, C, h, w] at the mean of the odd `side` x `side` pixels around it.

    Args:
        edges: what is beyond them, as `torch.nn.functional.pad` calls it.
    """
    x = F.pad(x, (side // 2,) * 4, mode=edges)
    return _sums(_sums(x, side, -1), side, -2) / side**2


def _sums(x: Tensor, count: int, dim: int) -> Tensor:
    """Sums of an odd `count` of neighbours along `dim`, where there are so many.

    Of 2, 4, 8 ... neighbours each sum is that of two before, and such sums come together to any count.
    """
    length, width, covered = x.shape[dim] + 1 - count, 1, 1
    total = x.narrow(dim, 0, length)
    while covered < count:
        pairs = x.shape[dim] - width
        x = x.narrow(dim, 0, pairs) + x.narrow(dim, width, pairs)
        width *= 2
        if count & width:
            total = total + x.narrow(dim, covered, length)
            covered += width
    return total


def local_mean(x: Tensor) -> Tensor:
    """What a picture is over about 24 pixels, [n, C, H, W]; H and W are multiples of 8."""
    return enlarged_mean(mean_around(F.avg_pool2d(x, MEAN_STRIDE), MEAN_WINDOW))


def enlarged_mean(small: Tensor) -> Tensor:
    """Samples every 8 pixels, and what is between them: [n, C, 8h, 8w]."""
    return _stretched(_stretched(F.pad(small, (1, 1, 1, 1), mode="replicate"), -1), -2)


def _stretched(x: Tensor, dim: int) -> Tensor:
    """`MEAN_STRIDE` times as many samples along `dim`, linear between those of x; half a sample less at
    each end."""
    places = (torch.arange(MEAN_STRIDE, device=x.device) + 0.5) / MEAN_STRIDE
    pairs = x.shape[dim] - 1
    before, after = (x.narrow(dim, first, pairs).unsqueeze(dim) for first in (0, 1))
    between = torch.lerp(before, after, places.to(x).view(-1, *(1,) * (-1 - dim)))
    inner = (pairs - 1) * MEAN_STRIDE
    return between.flatten(dim - 1, dim).narrow(dim, MEAN_STRIDE // 2, inner)


def beliefs(x: Tensor, variance: Tensor) -> list[Belief]:
    """One for each frame of x [T, 3, H, W] with variance [T, 1, H, W]."""
    return [Belief(*parts) for parts in zip(x.float(), variance.float(), strict=True)]
