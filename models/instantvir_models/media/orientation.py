"""Turning frames upright: PyAV can read a display matrix but not write one, so it is applied."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import av

from instantvir_models.media.frame import Pixels
from instantvir_models.media.side_data import picture_side_data


@dataclass(frozen=True)
class Orientation:
    """Swap the axes first, then flip."""

    is_transposed: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @property
    def is_mirrored(self) -> bool:
        return self.is_transposed ^ self.flip_x ^ self.flip_y

    @property
    def degrees_clockwise(self) -> int:
        """The turn; of a mirrored picture, the turn that follows a left-right flip."""
        if self.is_transposed:
            return 90 if self.flip_x else 270
        return 180 if self.flip_y else 0

    def upright(self, pixels: Pixels) -> Pixels:
        """[H, W, ...] as it is meant to be seen; H and W are swapped by a quarter turn."""
        if self == Orientation():
            return pixels
        if self.is_transposed:
            pixels = pixels.swapaxes(0, 1)
        pixels = pixels[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]
        return pixels.copy()


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """From the frame's display matrix; any odd angle is taken to the nearest quarter turn."""
    matrix = picture_side_data(frame, "DISPLAYMATRIX")
    if matrix is None or len(matrix) < 20:
        return Orientation()
    # x' = a x + c y and y' = b x + d y, in 16.16 fixed point
    a, b, _, c, d = struct.unpack("<5i", matrix[:20])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, flip_x=a < 0, flip_y=d < 0)
    return Orientation(True, flip_x=c < 0, flip_y=b < 0)
