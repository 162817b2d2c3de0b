"""One decoded picture: how it becomes a frame, and what it alone tells about the video."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av

from instantvir_models.errors import VideoOpenError
from instantvir_models.media import color
from instantvir_models.media.coding import FrameCoding
from instantvir_models.media.frame import Frame
from instantvir_models.media.orientation import Orientation, orientation_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PictureFormat:
    """How the decoded pictures of one source become frames: upright, in full-range RGB.

    The first picture settles it for all.
    """

    name: str
    """How messages call the source."""
    time_base: Fraction
    """Seconds per unit of the pictures' time stamps."""
    width: int
    """Columns of the first picture as it is stored."""
    height: int
    orientation: Orientation
    may_change_size: bool
    """Deliver pictures of another size, instead of raising VideoOpenError."""

    @classmethod
    def of(
        cls, first: av.VideoFrame, *, name: str, time_base: Fraction, may_change_size: bool
    ) -> PictureFormat:
        """The format of all pictures that follow `first`; warns about what of them is lost."""
        if color.has_alpha(first.format.name):
            logger.warning("%s has an alpha channel, which is dropped", name)
        return cls(
            name, time_base, first.width, first.height, orientation_of(first), may_change_size
        )

    def frames(
        self,
        pictures: Iterable[av.VideoFrame],
        coding_of: Callable[[av.VideoFrame], FrameCoding],
    ) -> Iterator[Frame]:
        """Each picture as a frame; ends for good where a size is refused."""
        for picture in pictures:
            yield self.frame(picture, coding_of(picture))

    def frame(self, picture: av.VideoFrame, coding: FrameCoding | None = None) -> Frame:
        """The picture as a frame; VideoOpenError if its size is another and may not be."""
        pts = picture.pts or 0
        has_changed = (picture.width, picture.height) != (self.width, self.height)
        if has_changed and not self.may_change_size:
            raise VideoOpenError(
                f"the picture of {self.name} changes "
                f"from {self.width}x{self.height} "
                f"to {picture.width}x{picture.height} at {float(pts * self.time_base):.2f} s",
                hint="scale it to one size first: `ffmpeg -i in -vf scale=W:H out`",
            )
        tags = color.resolved(
            color.color_tags_of(picture), pix_fmt=picture.format.name, height=picture.height
        )
        pixels = self.orientation.upright(color.to_rgb(picture, tags))
        return Frame(pixels, pts, self.time_base, picture.duration or 0, coding)
