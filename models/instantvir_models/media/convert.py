"""Between stored integers and the one float range of the project, [-1, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # who only decodes does not pay for it
    import torch
    from torch import Tensor


def to_unit(
    frames: NDArray[np.uint8] | NDArray[np.uint16], device: torch.device | str = "cpu"
) -> Tensor:
    """float32 [1, T, 3, H, W] in [-1, 1] on `device`, from uint8 or uint16 [T, H, W, 3].

    `to_uint8` (or `to_uint16`) gives exactly the same integers back. To another device than the CPU
    the integers travel, a quarter of the bytes.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"expected frames of shape [T, H, W, 3], got {list(frames.shape)}")
    if frames.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"expected uint8 or uint16 frames, got {frames.dtype}")
    import torch

    half = float(np.iinfo(frames.dtype).max) / 2
    if str(device) != "cpu":
        there = torch.from_numpy(_whole_numbers(frames)).to(device)
        return there.permute(0, 3, 1, 2).float().unsqueeze(0).div_(half).sub_(1.0)
    channels_first = np.ascontiguousarray(frames.transpose(0, 3, 1, 2), dtype=np.float32)
    return torch.from_numpy(channels_first).unsqueeze(0).div_(half).sub_(1.0)


def _whole_numbers(frames: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[Any]:
    """In a type that every device takes."""
    return np.ascontiguousarray(frames, np.uint8 if frames.dtype == np.uint8 else np.int32)


def to_uint8(x: Tensor) -> NDArray[np.uint8]:
    """uint8 [T, H, W, 3], from float [1, T, 3, H, W] clamped to [-1, 1]; halves round to even.

    A value that is not a number is a fault upstream: it raises ValueError, not a black pixel.
    """
    return stored_levels(levels(x, 255))  # type: ignore[return-value]


def to_uint16(x: Tensor) -> NDArray[np.uint16]:
    """uint16 [T, H, W, 3] on the full scale 0..65535; otherwise as `to_uint8`."""
    return stored_levels(levels(x, 65535))  # type: ignore[return-value]


@dataclass(frozen=True)
class Levels:
    """Whole numbers where they were computed; nobody has waited for them."""

    values: Tensor
    """[T, H, W, 3] uint8, or int32 where there are more of them."""
    is_any_nan: Tensor
    """Whether one of them came from what is not a number, a scalar."""


def levels(x: Tensor, maximum: int) -> Levels:
    """x, float [1, T, 3, H, W] clamped to [-1, 1], in whole levels from 0 to `maximum`."""
    import torch

    if x.ndim != 5 or x.shape[0] != 1 or x.shape[2] != 3:
        raise ValueError(f"expected a tensor of shape [1, T, 3, H, W], got {list(x.shape)}")
    exact = x.detach()[0].float().add(1.0).mul_(maximum / 2).round_().clamp_(0, maximum)
    kind = torch.uint8 if maximum <= 255 else torch.int32
    return Levels(exact.permute(0, 2, 3, 1).to(kind), exact.sum().isnan())


def stored_levels(found: Levels) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """uint8 or uint16 [T, H, W, 3]; waits for the device.

    Raises:
        ValueError: if one of them is not a number.
    """
    values: NDArray[Any] = found.values.cpu().numpy()
    if bool(found.is_any_nan.cpu()):
        raise ValueError("the frames contain NaN")
    return values if values.dtype == np.uint8 else values.astype(np.uint16)
