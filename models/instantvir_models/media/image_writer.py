"""Video out as numbered image files, or one frame as one."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import cv2
import numpy as np

from instantvir_models.errors import VideoWriteError
from instantvir_models.media.base import VideoReader, VideoWriter
from instantvir_models.media.color import as_uint8
from instantvir_models.media.companions import described
from instantvir_models.media.destination import claimed
from instantvir_models.media.ffmpeg_errors import write_error
from instantvir_models.media.frame import Frame
from instantvir_models.media.names import Destination, destination_name, is_image_pattern
from instantvir_models.media.packets import CompanionPacket
from instantvir_models.outputs.claim import Claim
from instantvir_models.outputs.names import IMAGE_NUMBER

logger = logging.getLogger(__name__)

_DEEP_SUFFIXES = frozenset({".png", ".tif", ".tiff"})
"""Those that hold 16 bits."""
_ALPHA_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".webp"})


class ImageWriter(VideoWriter):
    """Writes `%05d.png` and its like, counted from 1, moved in place together on `close`; or one
    frame into a name without a number. A missing folder is made.

    Args:
        destination: where to.
        info_of: the reader whose streams images cannot hold.
        may_replace: whether pictures that are there are replaced.

    Raises:
        VideoWriteError: whatever goes wrong; no image is left behind then.
    """

    def __init__(
        self,
        destination: Destination,
        *,
        info_of: VideoReader | None = None,
        width: int,
        height: int,
        may_replace: bool,
    ) -> None:
        super().__init__(destination_name(destination), width=width, height=height)
        info = info_of.info if info_of else None
        self._losses = () if info_of is None else _losses(info_of)
        held = claimed(destination, may_replace=may_replace)
        if held is None:
            raise VideoWriteError(f"{self._name} is no file", hint="name a file for the picture")
        self._claim, self._is_claim_ours = held, not isinstance(destination, Claim)
        self._pattern = self._claim.path
        self._is_numbered = is_image_pattern(self._pattern)
        if not self._is_numbered and info and (info.num_frames or 0) > 1:
            self._discard()
            raise self._too_many(f"{info.num_frames} are to come")
        for loss in self._losses:
            logger.warning("not carried over: %s", loss)
        self._names: list[str] = []

    @property
    def losses(self) -> tuple[str, ...]:
        """What of the source the images are not given, in words."""
        return self._losses

    def write_companions(self, packets: Iterable[CompanionPacket]) -> None:
        """Images have no sound."""

    def _write(self, frame: Frame) -> None:
        if self._names and not self._is_numbered:
            raise self._too_many("there are more")
        suffix = self._pattern.suffix.lower()
        pixels, alpha = frame.pixels[..., ::-1], frame.alpha
        if alpha is not None and suffix in _ALPHA_SUFFIXES and alpha.shape == pixels.shape[:2]:
            pixels = np.dstack([pixels, alpha])  # type: ignore[assignment]
        if pixels.dtype == np.uint16 and suffix not in _DEEP_SUFFIXES:
            pixels = as_uint8(pixels)
        _, data = cv2.imencode(suffix, np.ascontiguousarray(pixels))
        name = self._pattern.name
        if self._is_numbered:
            name = IMAGE_NUMBER.sub(lambda number: number[0] % (len(self._names) + 1), name)
        (self._claim.folder / name).write_bytes(data.tobytes())
        self._names.append(name)

    def _too_many(self, how_many: str) -> VideoWriteError:
        path = self._pattern
        return VideoWriteError(
            f"`{path}` holds one picture, and {how_many}",
            hint=f"number them, as `{path.with_name(path.stem + '_%05d' + path.suffix)}`, or write "
            "an animation (.gif, .webp, .apng) or a video",
        )

    def _finish(self) -> None:
        if self._is_claim_ours:
            self._claim.commit([self._claim.folder / name for name in self._names])

    def _discard(self) -> None:
        if self._is_claim_ours:
            self._claim.release()

    def _sentence(self, error: BaseException) -> VideoWriteError | None:
        return write_error(error, self._name)


def _losses(reader: VideoReader) -> tuple[str, ...]:
    streams = reader.demuxer.others if reader.demuxer else ()
    return tuple(f"the {described(stream)}, which images cannot hold" for stream in streams)
