"""One picture with its time, and how a stream of pictures is cut into blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from instantvir_models.media.coding import FrameCoding

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
"""[H, W, 3] full-range RGB: uint8 0..255, or uint16 0..65535 for more than 8 bits."""


Opacity = NDArray[np.uint8] | NDArray[np.uint16]
"""[H, W] from 0 (transparent) to the type's largest number (opaque)."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One decoded picture and the moment at which it is shown."""

    pixels: Pixels
    """[H, W, 3] full-range RGB: uint8 0..255, or uint16 0..65535 if the source has more bits."""
    pts: int
    """Presentation time in units of `time_base`; strictly increasing within one reader."""
    time_base: Fraction
    """Seconds per unit of `pts` and `duration`."""
    duration: int = 0
    """How long the picture is shown, in units of `time_base`; 0 if the source does not say."""
    coding: FrameCoding | None = None
    """How a codec stored it; None for a picture that was made here."""
    alpha: Opacity | None = field(default=None, kw_only=True)
    """[H, W] opacity of the source's picture; None where it has none."""
    known: NDArray[np.bool_] | None = field(default=None, kw_only=True)
    """[H, W], True where the picture shows what was there, False where it is lost; None where
    nothing is."""
    guessed: NDArray[np.bool_] | None = field(default=None, kw_only=True)
    """[H, W], True where a pixel was not measured but computed from what is around it, such as the
    rows that a field lacks; None where none was."""

    def with_known(self, known: NDArray[np.bool_]) -> Frame:
        """The same picture of which only those pixels were measured that are `known`, too."""
        return replace(self, known=known if self.known is None else self.known & known)

    @property
    def pts_seconds(self) -> float:
        return float(self.pts * self.time_base)

    def __repr__(self) -> str:
        height, width = self.pixels.shape[:2]
        return f"Frame({width}x{height} {self.pixels.dtype}, pts_seconds={self.pts_seconds:.4f})"


def blocks(frames: Iterable[Frame], frames_per_block: int) -> Iterator[list[Frame]]:
    """Consecutive lists of `frames_per_block` frames; the last one may be shorter, none is empty.

    Reads no further ahead than the block it yields, so it serves a live source too.
    """
    if frames_per_block < 1:
        raise ValueError(f"frames_per_block must be at least 1, got {frames_per_block}")
    block: list[Frame] = []
    for frame in frames:
        block.append(frame)
        if len(block) == frames_per_block:
            yield block
            block = []
    if block:
        yield block
