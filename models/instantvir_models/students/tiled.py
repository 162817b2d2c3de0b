"""Large frames in tiles: constant memory at any size, for any student."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor

from instantvir_models.students.base import Conditioning, Estimate, Student

StateT = TypeVar("StateT")

HALO_PIXELS = 64
"""Pixels computed around each tile and thrown away: more than a student sees to any side."""


@dataclass
class TiledState(Generic[StateT]):
    """One state per tile, in raster order."""

    tiles: list[StateT] = field(default_factory=list)


@dataclass(frozen=True)
class _Tile:
    """Where a tile is read (with halo) and which part of it is kept."""

    read: tuple[slice, slice]
    keep: tuple[slice, slice]
    write: tuple[slice, slice]


class TiledStudent(Generic[StateT]):
    """Runs `student` tile by tile, each tile a video of its own with a halo that is cut off.

    Tiles start at multiples of the halo, so that padding and attention windows fall as in a whole
    frame.

    Args:
        tile_pixels: side of the kept part of a tile, a multiple of `HALO_PIXELS`.
    """

    def __init__(self, student: Student[StateT], *, tile_pixels: int) -> None:
        if tile_pixels <= 0 or tile_pixels % HALO_PIXELS:
            raise ValueError(f"tile_pixels is a multiple of {HALO_PIXELS}, got {tile_pixels}")
        self.student = student
        self.tile_pixels = tile_pixels
        self.frames_per_block = student.frames_per_block
        self.first_block_frames = student.first_block_frames
        self.tile_above_pixels = None

    def new_state(self) -> TiledState[StateT]:
        return TiledState()

    def restore_block(self, block: Conditioning, state: TiledState[StateT]) -> Estimate:
        x_hat = torch.empty_like(block.x_init)
        std = None
        for index, tile in enumerate(_tiles(*block.size, self.tile_pixels)):
            if index == len(state.tiles):
                state.tiles.append(self.student.new_state())
            part = self.student.restore_block(_cut(block, tile.read), state.tiles[index])
            x_hat[(..., *tile.write)] = part.x_hat[(..., *tile.keep)]
            std = part.std
        assert std is not None
        return Estimate(x_hat=x_hat, std=std)


def _cut(block: Conditioning, read: tuple[slice, slice]) -> Conditioning:
    def cut(t: Tensor) -> Tensor:
        return t[(..., *read)]

    y_small = None
    if block.y_small is not None:
        scale = block.size[1] // block.y_small.shape[-1]
        rows, columns = (slice(s.start // scale, -(-s.stop // scale)) for s in read)
        y_small = block.y_small[..., rows, columns]
    return Conditioning(
        cut(block.x_init), cut(block.y_view), cut(block.known), block.traits, y_small
    )


def _tiles(height: int, width: int, side: int) -> Iterator[_Tile]:
    for top in range(0, height, side):
        for left in range(0, width, side):
            rows, columns = _span(top, height, side), _span(left, width, side)
            yield _Tile(*zip(rows, columns, strict=True))


def _span(start: int, size: int, side: int) -> tuple[slice, slice, slice]:
    """(read, keep, write) of one tile along one axis."""
    stop = min(start + side, size)
    low, high = max(0, start - HALO_PIXELS), min(size, stop + HALO_PIXELS)
    return slice(low, high), slice(start - low, stop - low), slice(start, stop)
