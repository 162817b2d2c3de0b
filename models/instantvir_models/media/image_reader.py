"""A sequence of image files as a video."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer

from instantvir_models.errors import VideoOpenError
from instantvir_models.media.base import VideoReader
from instantvir_models.media.coding import CodingNotes
from instantvir_models.media.damage import Damage
from instantvir_models.media.describe import described_images
from instantvir_models.media.mended import Mending, strictness
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
        codec_name = decode_image(images[0], rules).codec_name
        codings = CodingNotes(codec_name)
        mended: dict[int, Path] = {}
        decoded = decode_images(images, 1 / rate, codings, rules, mended)
        self._name = name
        self._mended = list[Path]()
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
                for picture in self._noted(itertools.chain([first], pictures), mended)
            ),
        )

    def _noted(
        self, pictures: Iterator[av.VideoFrame], mended: Mapping[int, Path]
    ) -> Iterator[av.VideoFrame]:
        for picture in pictures:
            if picture.pts is not None and picture.pts in mended:
                self._mended.append(mended[picture.pts])
            yield picture

    def _refuse_size(self, width: int, height: int, seconds: Fraction) -> None:
        raise VideoOpenError(
            f"the picture of {self._name} changes from {self.info.width}x{self.info.height} "
            f"to {width}x{height} at {float(seconds):.2f} s",
            hint="scale the images to one size, or name those of one size only",
        )

    @property
    def damage(self) -> Damage:
        """The images that had to be guessed in part; one that cannot be read raises."""
        if not self._mended:
            return Damage()
        first = f"`{self._mended[0].name}`"
        said = (
            first if len(self._mended) == 1 else f"{first} and {len(self._mended) - 1} more images"
        )
        return Damage(corrupt_frames=len(self._mended), message=f"{said} had to be guessed in part")

    def end_input(self) -> None:
        """Images end by themselves."""

    def close(self) -> None:
        """No image stays open."""


@dataclass(frozen=True)
class DecodedImage:
    """The first picture of a file."""

    picture: av.VideoFrame
    codec_name: str
    is_whole: bool
    """Whether no part of it had to be guessed."""


def decode_image(path: Path, rules: InputRules = USUAL_RULES) -> DecodedImage:
    """The picture of a file, or VideoOpenError."""
    with ContainerSource(path, rules=rules).open() as container:
        if not container.streams.video:
            raise VideoOpenError(f"`{path}` is not an image", hint="list image files only")
        context = container.streams.video[0].codec_context
        rules.check_size(f"`{path}`", context.width, context.height)
        context.options = {**strictness(context.codec.canonical_name), **rules.decoder_options}
        try:
            decoded = next(_decoded(container), None)
        except av.FFmpegError as error:
            raise VideoOpenError(
                f"`{path}` cannot be decoded: {error.strerror}",
                hint="replace the image or leave it out",
            ) from error
        if decoded is None:
            raise VideoOpenError(
                f"`{path}` holds no picture", hint="replace the image or leave it out"
            )
        return decoded


def _decoded(container: InputContainer) -> Iterator[DecodedImage]:
    context = container.streams.video[0].codec_context
    mending = Mending(context)
    for packet in container.demux(video=0):
        try:
            pictures, is_whole = packet.decode(), True
        except av.FFmpegError:
            pictures, is_whole = mending.pictures(packet), False
            if not pictures:
                raise
        for picture in pictures:
            yield DecodedImage(picture, context.name, is_whole and not picture.is_corrupt)


def decode_images(
    paths: Sequence[Path],
    time_base: Fraction,
    codings: CodingNotes,
    rules: InputRules,
    mended: dict[int, Path],
) -> Generator[av.VideoFrame, None, None]:
    """One frame per file, at pts 0, 1, 2, ... in `time_base`; how it was stored goes to `codings`, and
    those that had to be guessed in part to `mended`, by their pts."""
    for index, path in enumerate(paths):
        decoded = decode_image(path, rules)
        frame = decoded.picture
        frame.pts, frame.time_base = index, time_base
        frame.duration = 1
        codings.note_file(index, path)
        if not decoded.is_whole:
            mended[index] = path
        yield frame


def _checked_rate(value: float | Fraction) -> Fraction:
    rate = as_fraction(value)
    if rate <= 0:
        raise ValueError(f"a frame rate must be positive, got {value}")
    return rate
