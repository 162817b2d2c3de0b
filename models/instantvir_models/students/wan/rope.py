"""Rotary positions in time, height and width."""

import torch
from torch import Tensor

BASE = 10000.0


def rotations(
    size: tuple[int, int, int], *, first_frame: int, head_dim: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosines and sines [F*h*w, D/2], float32, that rotate the channel pairs of each token.

    Of the D/2 pairs, a third (rounded down) tells the row, as many the column, the rest the frame.
    Computed where needed, so there is no last position. Scores depend on distances alone, hence
    keys that were rotated once stay right in a sliding window.

    Args:
        size: (F, h, w) tokens, raster order.
        first_frame: absolute index of the first of the F frames.
    """
    frames, height, width = size
    spatial = head_dim // 6
    temporal = head_dim // 2 - 2 * spatial
    angles = torch.cat(
        [
            _angles(first_frame, frames, temporal)[:, None, None].expand(-1, height, width, -1),
            _angles(0, height, spatial)[None, :, None].expand(frames, -1, width, -1),
            _angles(0, width, spatial)[None, None].expand(frames, height, -1, -1),
        ],
        -1,
    ).flatten(0, 2)
    return angles.cos().to(device, torch.float32), angles.sin().to(device, torch.float32)


def _angles(start: int, count: int, pairs: int) -> Tensor:
    """Radians [count, pairs], float64: positions in the thousands still turn exactly."""
    position = torch.arange(start, start + count, dtype=torch.float64)
    frequency = BASE ** -(torch.arange(pairs, dtype=torch.float64) / pairs)
    return torch.outer(position, frequency)
