"""Between stored integers and the one float range of the project, [-1, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # who only decodes does not pay for it
    from torch import Tensor


def to_unit(frames: NDArray[np.uint8] | NDArray[np.uint16]) -> Tensor:
    """float32 [1, T, 3, H, W] in [-1, 1], from uint8 or uint16 [T, H, W, 3].

    `to_uint8` (or `to_uint16`) gives exactly the same integers back.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"expected frames of shape [T, H, W, 3], got {list(frames.shape)}")
    if frames.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"expected uint8 or uint16 frames, got {frames.dtype}")
    import torch

    half = float(np.iinfo(frames.dtype).max) / 2
    channels_first = np.ascontiguousarray(frames.transpose(0, 3, 1, 2), dtype=np.float32)
    return torch.from_numpy(channels_first).unsqueeze(0).div_(half).sub_(1.0)


def to_uint8(x: Tensor) -> NDArray[np.uint8]:
    """uint8 [T, H, W, 3], from float [1, T, 3, H, W] clamped to [-1, 1]; halves round to even.

    A value that is not a number is a fault upstream: it raises ValueError, not a black pixel.
    """
    return _to_integers(x, 255).astype(np.uint8)


def to_uint16(x: Tensor) -> NDArray[np.uint16]:
    """uint16 [T, H, W, 3] on the full scale 0..65535; otherwise as `to_uint8`."""
    return _to_integers(x, 65535).astype(np.uint16)


def _to_integers(x: Tensor, maximum: int) -> NDArray[np.int32]:
    if x.ndim != 5 or x.shape[0] != 1 or x.shape[2] != 3:
        raise ValueError(f"expected a tensor of shape [1, T, 3, H, W], got {list(x.shape)}")
    levels = x.detach()[0].permute(0, 2, 3, 1).float().add(1.0).mul(maximum / 2).round()
    if bool(levels.isnan().any()):
        raise ValueError("the frames contain NaN")
    integers: NDArray[np.int32] = levels.clamp(0, maximum).int().cpu().numpy()
    return integers
