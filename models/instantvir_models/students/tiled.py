"""Large frames in tiles: constant memory at any size, for students that see their surroundings only."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from instantvir_models.students.base import ERROR_CELL, Conditioning, Estimate, Student
from instantvir_models.students.fitting import FitRequest, Fitted
from instantvir_models.students.text import TextRows
from instantvir_models.tiles import HALO_PIXELS, tiles

StateT = TypeVar("StateT")


@dataclass
class TiledState(Generic[StateT]):
    """One state per tile, in raster order."""

    tiles: list[StateT] = field(default_factory=list)


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
        self.capabilities = replace(student.capabilities, tile_above_pixels=None)

    def for_device(self, device: torch.device) -> "TiledStudent[StateT]":
        return TiledStudent(self.student.for_device(device), tile_pixels=self.tile_pixels)

    def fitted(self, request: FitRequest) -> "Fitted[TiledStudent[StateT]]":
        inner = self.student.fitted(request)
        return Fitted(TiledStudent(inner.value, tile_pixels=self.tile_pixels), inner.notices)

    def in_tiles(self, tile_pixels: int) -> "TiledStudent[StateT]":
        return TiledStudent(self.student, tile_pixels=tile_pixels)

    def with_text(self, text: TextRows) -> "TiledStudent[StateT]":
        return TiledStudent(self.student.with_text(text), tile_pixels=self.tile_pixels)

    def no_larger_than(self, state: TiledState[StateT]) -> "TiledStudent[StateT]":
        return self

    def new_state(self) -> TiledState[StateT]:
        return TiledState()

    def restore_sequence(self, sequence: Conditioning) -> Estimate:
        return self._each_tile(sequence, lambda part, _: self.student.restore_sequence(part))

    def restore_block(self, block: Conditioning, state: TiledState[StateT]) -> Estimate:
        def restored(part: Conditioning, index: int) -> Estimate:
            if index == len(state.tiles):
                state.tiles.append(self.student.new_state())
            return self.student.restore_block(part, state.tiles[index])

        return self._each_tile(block, restored)

    def _each_tile(
        self, block: Conditioning, restored: Callable[[Conditioning, int], Estimate]
    ) -> Estimate:
        """The estimate of a block from that of each of its tiles, in raster order."""
        x_hat = torch.empty_like(block.x_init)
        squared, pixels, is_final = block.traits.new_zeros(len(block.traits)), 0, False
        std_map: Tensor | None = None
        grid = tiles(*block.size, side=self.tile_pixels, halo=HALO_PIXELS)
        for index, tile in enumerate(grid):
            part = restored(_cut(block, tile.read), index)
            x_hat[(..., *tile.write)] = part.x_hat[(..., *tile.keep)]
            if part.std_map is not None:
                if std_map is None:
                    std_map = _cells_of(x_hat)
                std_map[(..., *_in_cells(tile.write))] = part.std_map[(..., *_in_cells(tile.keep))]
            kept = math.prod(side.stop - side.start for side in tile.keep)
            squared, pixels = squared + kept * part.std.square(), pixels + kept
            is_final = part.is_final
        std = (squared / pixels).sqrt()
        return Estimate(x_hat=x_hat, std=std, is_final=is_final, std_map=std_map)


def _cells_of(x_hat: Tensor) -> Tensor:
    """Room for what is told of frames like these."""
    sides = (-(-side // ERROR_CELL) for side in x_hat.shape[-2:])
    return x_hat.new_empty(*x_hat.shape[:2], 1, *sides)


def _in_cells(place: tuple[slice, slice]) -> tuple[slice, slice]:
    """The cells of a place that begins with one."""
    rows, columns = (slice(p.start // ERROR_CELL, -(-p.stop // ERROR_CELL)) for p in place)
    return rows, columns


def state_type_of(student: Student[Any]) -> Any:
    """The type of a student's states."""
    if isinstance(student, TiledStudent):
        return TiledState[state_type_of(student.student)]  # type: ignore[misc]
    return type(student.new_state())


def _cut(block: Conditioning, read: tuple[slice, slice]) -> Conditioning:
    def cut(t: Tensor) -> Tensor:
        return t[(..., *read)]

    return Conditioning(
        cut(block.x_init),
        cut(block.y_view),
        cut(block.known),
        block.traits,
        _cut_small(block, read),
    )


def _cut_small(block: Conditioning, read: tuple[slice, slice]) -> Tensor | None:
    """The part of the small frames that `read` covers; None where its borders fall between pixels."""
    if block.y_small is None:
        return None
    factor = block.size[1] // block.y_small.shape[-1]
    if any(edge % factor for part in read for edge in (part.start, part.stop)):
        return None
    rows, columns = (slice(part.start // factor, part.stop // factor) for part in read)
    return block.y_small[..., rows, columns]
