"""A sequence of image files as a video."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence
from fractions import Fraction
from pathlib import Path

import av

from instantvir_models.errors import VideoOpenError
from instantvir_models.media.base import VideoReader
from instantvir_models.media.coding import CodingNotes
from instantvir_models.media.damage import Damage
from instantvir_models.media.describe import described_images
from instantvir_models.media.picture import PictureFormat
from instantvir_models.media.reach import USUAL_RULES, InputRules
from instantvir_models.media.source import ContainerSource
from instantvir_models.media.timeline import (
    DEFAULT_FRAME_RATE,
    SourceTimeline,
    Trim,
    as_fraction,
)


class ImageReader(VideoReader):
    """Image files, shown one after the other at a constant rate.

    Args:
        images: at least one file.
        name: how messages call them.
        trim: what is wanted, in seconds at that rate.
        frame_rate: frames per second; 25 if None.
        may_change_size: deliver pictures of another size than the first.
        rules: how large they may be.

    Raises:
        VideoOpenError: if the first wanted image is missing or unreadable; the others while
            iterating.
    """

    def __init__(
        self,
        images: Sequence[Path],
        *,
        name: str,
        trim: Trim,
        frame_rate: float | Fraction | None,
        may_change_size: bool,
        rules: InputRules = USUAL_RULES,
    ) -> None:
        rate = _checked_rate(frame_rate or DEFAULT_FRAME_RATE)
        codec_name = decode_image(images[0], rules)[1]
        codings = CodingNotes(codec_name)
        decoded = decode_images(images, 1 / rate, codings, rules)
        self._name = name
        timeline = SourceTimeline(name, time_base=1 / rate, trim=trim)
        pictures = timeline.within(decoded, on_end=decoded.close)
        first = next(pictures, None)
        if first is None:
            raise timeline.no_picture("no image holds a picture")
        picture_format = PictureFormat.of(
            first,
            name=name,
            time_base=1 / rate,
            may_change_size=may_change_size,
            on_other_size=self._refuse_size,
        )
        super().__init__(
            name,
            info=described_images(
                first,
                picture_format,
                codec_name=codec_name,
                frame_rate=rate,
                num_images=len(images),
                trim=trim,
            ),
            span=timeline.span_from(first),
            frames=(
                picture_format.frame(picture, codings.coding_of(picture))
                for picture in itertools.chain([first], pictures)
            ),
        )

    def _refuse_size(self, width: int, height: int, seconds: Fraction) -> None:
        raise VideoOpenError(
            f"the picture of {self._name} changes from {self.info.width}x{self.info.height} "
            f"to {width}x{height} at {float(seconds):.2f} s",
            hint="scale the images to one size, or name those of one size only",
        )

    @property
    def damage(self) -> Damage:
        """None: an image that cannot be read raises."""
        return Damage()

    def end_input(self) -> None:
        """Images end by themselves."""

    def close(self) -> None:
        """No image stays open."""


def decode_image(path: Path, rules: InputRules = USUAL_RULES) -> tuple[av.VideoFrame, str]:
    """The first picture of a file and the name of its codec."""
    with ContainerSource(path, rules=rules).open() as container:
        if not container.streams.video:
            raise VideoOpenError(f"`{path}` is not an image", hint="list image files only")
        context = container.streams.video[0].codec_context
        rules.check_size(f"`{path}`", context.width, context.height)
        context.options = rules.decoder_options
        try:
            frame = next(container.decode(video=0), None)
        except av.FFmpegError as error:
            raise VideoOpenError(
                f"`{path}` cannot be decoded: {error.strerror}",
                hint="replace the image or leave it out",
            ) from error
        if frame is None:
            raise VideoOpenError(
                f"`{path}` holds no picture", hint="replace the image or leave it out"
            )
        return frame, container.streams.video[0].codec_context.name


def decode_images(
    paths: Sequence[Path],
    time_base: Fraction,
    codings: CodingNotes,
    rules: InputRules = USUAL_RULES,
) -> Generator[av.VideoFrame, None, None]:
    """One frame per file, at pts 0, 1, 2, ... in `time_base`; how it was stored goes to `codings`."""
    for index, path in enumerate(paths):
        frame, _ = decode_image(path, rules)
        frame.pts, frame.time_base = index, time_base
        frame.duration = 1
        codings.note_file(index, path)
        yield frame


def _checked_rate(value: float | Fraction) -> Fraction:
    rate = as_fraction(value)
    if rate <= 0:
        raise ValueError(f"a frame rate must be positive, got {value}")
    return rate
