"""A grid cut into tiles that overlap: where each is read, and which part of it is kept."""

from collections.abc import Iterator
from dataclasses import dataclass

HALO_PIXELS = 64
"""Pixels computed around each tile and thrown away: more than a solver sees to any side."""

TILE_PIXELS = 12 * HALO_PIXELS
"""Side of a tile where none is asked for."""


@dataclass(frozen=True)
class Tile:
    """Slices over (rows, columns)."""

    read: tuple[slice, slice]
    """With the halo."""
    keep: tuple[slice, slice]
    """Of what was read, the part without the halo."""
    write: tuple[slice, slice]
    """Where the kept part goes."""


def tiles(height: int, width: int, *, side: int, halo: int) -> Iterator[Tile]:
    """Tiles in raster order; their kept parts start at multiples of `side` and cover the grid."""
    for top in range(0, height, side):
        for left in range(0, width, side):
            rows, columns = _span(top, height, side, halo), _span(left, width, side, halo)
            yield Tile(*zip(rows, columns, strict=True))


def scaled(slices: tuple[slice, slice], factor: int) -> tuple[slice, slice]:
    """The same place on a grid that is `factor` times finer."""
    rows, columns = (slice(s.start * factor, s.stop * factor) for s in slices)
    return rows, columns


def _span(start: int, size: int, side: int, halo: int) -> tuple[slice, slice, slice]:
    """(read, keep, write) of one tile along one axis."""
    stop = min(start + side, size)
    low, high = max(0, start - halo), min(size, stop + halo)
    return slice(low, high), slice(start - low, stop - low), slice(start, stop)
