"""Any solver that sees its surroundings only, in tiles: constant memory at any size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic

import torch
from torch import Tensor

from instantvir_models.operators.measurement import Measurement
from instantvir_models.solvers.base import Restored, Solver, SolverNeeds, StateT, Window
from instantvir_models.students.tiled import TiledState
from instantvir_models.tiles import HALO_PIXELS, scaled, tiles


class LocalSolver(Solver[StateT]):
    """A solver to which a place further away than `HALO_PIXELS` matters little."""

    def in_tiles(self, tile_pixels: int) -> "TiledSolver[StateT]":
        return TiledSolver(self, tile_pixels)


@dataclass(frozen=True)
class TiledSolver(Solver[TiledState[StateT]], Generic[StateT]):
    """Runs `inner` tile by tile, each a video of its own with a halo that is cut off.

    Args:
        tile_pixels: side of the kept part of a tile, a multiple of `HALO_PIXELS`.
    """

    inner: Solver[StateT]
    tile_pixels: int

    def __post_init__(self) -> None:
        if self.tile_pixels <= 0 or self.tile_pixels % HALO_PIXELS:
            raise ValueError(f"tile_pixels is a multiple of {HALO_PIXELS}, got {self.tile_pixels}")

    @property
    def frames_per_block(self) -> int:
        return self.inner.frames_per_block

    @property
    def state_type(self) -> Any:
        return TiledState[self.inner.state_type]  # type: ignore[name-defined]

    @property
    def first_block_frames(self) -> int:
        return self.inner.first_block_frames

    @property
    def needs(self) -> SolverNeeds:
        return replace(self.inner.needs, tile_above_pixels=None)

    def in_tiles(self, tile_pixels: int) -> "TiledSolver[Any]":
        return TiledSolver(self.inner, tile_pixels)

    def new_state(self) -> TiledState[StateT]:
        return TiledState()

    def restore_block(self, window: Window, state: TiledState[StateT]) -> Restored:
        measurement = window.measurement
        size = measurement.y.shape[-2:]
        factor = measurement.operator.clean_size(*size)[0] // size[0]
        x, std = None, None
        replaced = torch.zeros(window.num_frames)
        grid = tiles(*size, side=max(1, self.tile_pixels // factor), halo=-(-HALO_PIXELS // factor))
        for index, tile in enumerate(grid):
            if index == len(state.tiles):
                state.tiles.append(self.inner.new_state())
            part = self.inner.restore_block(_cropped(window, tile.read, factor), state.tiles[index])
            if x is None:
                x = part.x.new_empty(*part.x.shape[:3], *(factor * side for side in size))
            x[(..., *scaled(tile.write, factor))] = part.x[(..., *scaled(tile.keep, factor))]
            std = part.std if std is None else torch.maximum(std, part.std)
            if part.replaced:
                replaced += _area(tile.write, size) * torch.tensor(part.replaced)
        assert isinstance(x, Tensor)
        assert isinstance(std, Tensor)
        return Restored(x, std, tuple(replaced.tolist()) if replaced.any() else ())


def _cropped(window: Window, read: tuple[slice, slice], factor: int) -> Window:
    """The part of a window that lies at `read`, (rows, columns) of the measurement."""
    clean = scaled(read, factor)
    measurement = window.measurement
    degradation = replace(measurement.degradation, operator=measurement.operator.cropped(*clean))
    cut = Measurement(measurement.y[(..., *read)].contiguous(), degradation)
    return Window(cut, window.inside, window.past[(..., *clean)])


def _area(place: tuple[slice, slice], size: Sequence[int]) -> float:
    """The part of a frame of `size` that lies at `place`."""
    return math.prod((s.stop - s.start) / side for s, side in zip(place, size, strict=True))
