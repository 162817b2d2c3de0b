"""Masks that change, as they come along with the frames of a video: memory stays constant."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from instantvir_models.errors import UsageError
from instantvir_models.media import USUAL_RULES, Frame, InputRules, VideoReader, open_video
from instantvir_models.media.color import as_uint8
from instantvir_models.media.names import IMAGE_SUFFIXES
from instantvir_models.operators.base import Operator
from instantvir_models.operators.estimate import estimate_mask
from instantvir_models.operators.mask import ChangingHoles, Dust, MaskFile
from instantvir_models.run.dust import without_dust

Known = NDArray[np.bool_]
"""[h, w], True where a pixel of a frame was measured."""


@dataclass(frozen=True, kw_only=True)
class MasksFor:
    """What masks have to fit."""

    size: tuple[int, int]
    """(width, height) of the measured frames."""
    frame_rate: Fraction | None = None
    """Of the video: images are shown at it."""
    start_seconds: float | None = None
    """What is skipped of the video, and of its masks."""
    duration_seconds: float | None = None
    rules: InputRules = USUAL_RULES
    """How far they may reach."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is cut off, so that there are as many masks as frames."""
        return self.start_seconds is None and self.duration_seconds is None


class FrameMaskSources:
    """Says of each frame which of its pixels were measured, as the parts of an operator tell.

    Args:
        known_of: for each part that loses pixels, the mask of frame `index` of the video.
        check_end: called when the video has ended.
        has_dust: dust is to be found, too, which a frame shows beside the next.
    """

    def __init__(
        self,
        known_of: Sequence[Callable[[int, Frame], Known]],
        check_end: Sequence[Callable[[], None]] = (),
        *,
        has_dust: bool = False,
    ) -> None:
        self._known_of, self._check_end = tuple(known_of), tuple(check_end)
        self.has_dust = has_dust

    def told(self, index: int, frame: Frame) -> Frame:
        """The frame with its mask, without what only its neighbours show; of later frames only, one
        after the other.

        Raises:
            UsageError: if there is no mask for it.
        """
        for known_of in self._known_of:
            frame = frame.with_known(known_of(index, frame))
        return frame

    def along(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """All frames of a video with their masks.

        Raises:
            UsageError: if there are fewer or more masks than frames.
        """
        told = self._all_told(frames)
        return without_dust(told) if self.has_dust else told

    def _all_told(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        for index, frame in enumerate(frames):
            yield self.told(index, frame)
        for check in self._check_end:
            check()


@contextmanager
def masks_along(operator: Operator, fit: MasksFor) -> Iterator[FrameMaskSources]:
    """What tells frames their masks where `operator` says that they come along; files are open as
    long as this lasts.

    Raises:
        UsageError: if masks have another size than the video.
        VideoOpenError: if they cannot be read.
    """
    with ExitStack() as stack:
        known_of: list[Callable[[int, Frame], Known]] = []
        check_end: list[Callable[[], None]] = []
        for part in operator.parts:
            if isinstance(part, MaskFile):
                reader = stack.enter_context(open_masks(part.path, fit))
                masks = _MasksInOrder(reader, part.path)
                known_of.append(masks.known_of)
                if fit.is_whole:
                    check_end.append(masks.check_end)
            elif isinstance(part, ChangingHoles):
                known_of.append(_outside_holes)
        has_dust = any(isinstance(part, Dust) for part in operator.parts)
        yield FrameMaskSources(known_of, check_end, has_dust=has_dust)


def open_masks(path: Path, fit: MasksFor) -> VideoReader:
    """A mask video, or the images of a folder in the order of their names.

    Raises:
        UsageError: if the folder is empty or the size is another.
        VideoOpenError: if it cannot be read.
    """
    is_folder = path.is_dir()
    reader = open_video(
        _images_of(path) if is_folder else path,
        start_seconds=fit.start_seconds,
        duration_seconds=fit.duration_seconds,
        frame_rate=fit.frame_rate if is_folder else None,
        other_streams=False,
        rules=fit.rules,
    )
    width, height = reader.info.width, reader.info.height
    if (width, height) != fit.size:
        reader.close()
        raise UsageError(
            f"the mask `{path}` is {width}x{height} but the video is {fit.size[0]}x{fit.size[1]}",
            hint="give masks of the size of the video",
        )
    return reader


def _images_of(folder: Path) -> Sequence[Path]:
    images = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise UsageError(
            f"the folder `{folder}` holds no image", hint="one PNG per frame, white where known"
        )
    return images


class _MasksInOrder:
    """The masks of a video, one for each frame, each read once."""

    def __init__(self, reader: VideoReader, path: Path) -> None:
        self._masks, self._path = iter(reader), path
        self._num_read = 0

    def known_of(self, index: int, frame: Frame) -> Known:
        """Of frame `index`; those before it are passed over."""
        while True:
            mask = next(self._masks, None)
            if mask is None:
                raise self._mismatch(f"ends after {self._num_read} frames, and the video goes on")
            self._num_read += 1
            if self._num_read > index:
                return is_light(mask)

    def check_end(self) -> None:
        """UsageError if there are more."""
        if next(self._masks, None) is not None:
            raise self._mismatch("goes on when the video has ended")

    def _mismatch(self, what: str) -> UsageError:
        return UsageError(
            f"the mask `{self._path}` {what}", hint="give as many masks as the video has frames"
        )


def is_light(mask: Frame) -> Known:
    """True where a mask is at least half-way to white: there pixels are known."""
    return np.asarray(cv2.cvtColor(as_uint8(mask.pixels), cv2.COLOR_RGB2GRAY)) >= 128


def _outside_holes(index: int, frame: Frame) -> Known:
    return estimate_mask(as_uint8(frame.pixels)[None]).mask[0, 0].numpy() > 0
