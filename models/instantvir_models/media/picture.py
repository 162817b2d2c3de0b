"""One decoded picture: how it becomes a frame, and what it alone tells about the video."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import cv2

from instantvir_models.media import color
from instantvir_models.media.coding import FrameCoding
from instantvir_models.media.crop import NO_CROP, Crop
from instantvir_models.media.frame import Frame, Pixels
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
    crop: Crop
    may_change_size: bool
    """Deliver pictures of another size as they are, instead of scaling them to that of the first."""
    on_other_size: Callable[[int, int, Fraction], None]
    """Called with width, height and seconds of a picture that is scaled."""

    @classmethod
    def of(
        cls,
        first: av.VideoFrame,
        *,
        name: str,
        time_base: Fraction,
        may_change_size: bool,
        crop: Crop = NO_CROP,
        on_other_size: Callable[[int, int, Fraction], None] = lambda *_: None,
    ) -> PictureFormat:
        """The format of all pictures that follow `first`."""
        return cls(
            name,
            time_base,
            first.width,
            first.height,
            orientation_of(first),
            crop if crop.leaves_some(first.width, first.height) else NO_CROP,
            may_change_size,
            on_other_size,
        )

    @property
    def visible_size(self) -> tuple[int, int]:
        """Columns and rows of the stored picture that are to be seen."""
        crop = self.crop
        return self.width - crop.left - crop.right, self.height - crop.top - crop.bottom

    def frames(
        self,
        pictures: Iterable[av.VideoFrame],
        coding_of: Callable[[av.VideoFrame], FrameCoding],
    ) -> Iterator[Frame]:
        """Each picture as a frame."""
        for picture in pictures:
            yield self.frame(picture, coding_of(picture))

    def frame(self, picture: av.VideoFrame, coding: FrameCoding | None = None) -> Frame:
        """The picture as a frame; one of another size is scaled to that of the first."""
        pts = picture.pts or 0
        tags = color.resolved(
            color.color_tags_of(picture), pix_fmt=picture.format.name, height=picture.height
        )
        pixels, alpha = color.to_rgb(picture, tags), color.alpha_of(picture)
        size = (self.width, self.height)
        if (picture.width, picture.height) != size and not self.may_change_size:
            self.on_other_size(picture.width, picture.height, pts * self.time_base)
            pixels = _scaled(pixels, size)
            alpha = None if alpha is None else _scaled(alpha, size)
        pixels = self.orientation.upright(self.crop.visible(pixels))
        if alpha is not None:
            alpha = self.orientation.upright(self.crop.visible(alpha))
        return Frame(pixels, pts, self.time_base, picture.duration or 0, coding, alpha=alpha)


def _scaled(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]
