"""What of the stored picture a container says is to be seen (PixelCrop of Matroska, clap of MOV)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from av.video.stream import VideoStream

from instantvir_models.media.side_data import side_data_of

Picture = TypeVar("Picture", bound=np.ndarray)


@dataclass(frozen=True)
class Crop:
    """Rows and columns to leave out at each edge."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0

    def leaves_some(self, width: int, height: int) -> bool:
        """Whether anything of a picture of this size is to be seen."""
        return self.left + self.right < width and self.top + self.bottom < height

    def visible(self, pixels: Picture) -> Picture:
        """[H, W, ...] without what is left out."""
        if self == NO_CROP:
            return pixels
        height, width = pixels.shape[:2]
        seen = pixels[self.top : height - self.bottom, self.left : width - self.right]
        return np.ascontiguousarray(seen)  # type: ignore[return-value]


NO_CROP = Crop()


def crop_of(video: VideoStream) -> Crop:
    """What the container says; nothing is left out where it says nothing."""
    data = dict(side_data_of(video)).get("frame_cropping")
    return Crop(*struct.unpack("<4I", data[:16])) if data is not None else NO_CROP
