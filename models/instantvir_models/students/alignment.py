"""Where each pixel of one frame was in another: dense optical flow, and warping by it."""

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

SMALLEST_SIDE = 16
"""Frames with a shorter side (in pixels of the flow grid) are taken as not moving."""


FINEST_SCALE = 0
"""Of the flow's pyramid; 0 is the guide itself. A coarser one lets OpenCV choose scales of its own on
small or narrow frames, and what it chooses ends in NaN or past the end of a buffer."""


def flow_guide(x: Tensor) -> NDArray[np.uint8]:
    """Luma of frames [n, 3, H, W] in [-1, 1] at half size, lightly smoothed, [n, H/2, W/2] uint8."""
    luma = F.avg_pool2d(0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:], 2)[:, 0]
    levels = ((luma + 1) * 127.5).clamp_(0, 255).byte().numpy()
    return np.stack([cv2.GaussianBlur(level, (5, 5), 1.0) for level in levels])


def dense_flow(here: NDArray[np.uint8], there: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Flow [h, w, 2] (dx, dy) such that here[p] is about there[p + flow]; 0 on tiny frames.

    Depends on nothing but the two pictures: an estimator changes its own settings by what it is
    shown, so each pair gets a new one. Dense inverse search (Kroeger et al., 2016).
    """
    if min(here.shape) < SMALLEST_SIDE:
        return np.zeros((*here.shape, 2), np.float32)
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    estimator.setFinestScale(FINEST_SCALE)
    return estimator.calc(here, there, None)  # type: ignore[call-overload]


def backward_flow(
    here: NDArray[np.uint8], there: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The flow from `here` to `there` as `dense_flow` finds it, and the mismatch [h, w].

    The mismatch is |here - warped there| / 32, cut at 1.
    """
    flow = dense_flow(here, there)
    grid_x, grid_y = _grid(*here.shape)
    warped = cv2.remap(
        there,
        flow[..., 0] + grid_x,
        flow[..., 1] + grid_y,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    mismatch = cv2.absdiff(here, warped).astype(np.float32)
    return flow, np.minimum(mismatch * (1 / 32), 1)


def positions(flow: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Where to look, [H, W, 2] float32, by a flow at half size."""
    height, width = shape
    where: NDArray[Any] = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR)
    where *= 2
    where[..., 0] += np.arange(width, dtype=np.float32)
    where[..., 1] += np.arange(height, dtype=np.float32)[:, None]
    return where


@lru_cache(maxsize=4)
def _grid(height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    grid_x, grid_y = np.meshgrid(
        np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    )
    return grid_x, grid_y


def warp(features: Tensor, flow: Tensor) -> Tensor:
    """features [n, C, h, w] looked up at p + flow, bilinear, edges repeated; flow [n, h, w, 2]."""
    height, width = features.shape[-2:]
    centres, pixel = _places(height, width, features.device)
    where = torch.addcmul(centres, flow, pixel)
    return F.grid_sample(
        features, where.to(features.dtype), padding_mode="border", align_corners=False
    )


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def _places(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where pixels are, [h, w, 2], and how large they are, [2], in the units of `grid_sample`."""
    across, down = (
        (2 * torch.arange(size, dtype=torch.float64) + 1) / size - 1 for size in (width, height)
    )
    centres = torch.stack(torch.meshgrid(across, down, indexing="xy")).float()
    pixel = torch.tensor([2 / width, 2 / height])
    return centres.to(device).movedim(0, -1), pixel.to(device)
