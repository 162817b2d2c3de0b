"""A sequence of image files as a stream of decoded frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av

from instantvir_models.errors import VideoOpenError
from instantvir_models.media.source import open_container


def decode_image(path: Path) -> tuple[av.VideoFrame, str]:
    """The first picture of a file and the name of its codec."""
    with open_container(path, input_format=None, input_options=None) as container:
        if not container.streams.video:
            raise VideoOpenError(f"`{path}` is not an image", hint="list image files only")
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


def decode_images(paths: Sequence[Path], time_base: Fraction) -> Iterator[av.VideoFrame]:
    """One frame per file, at pts 0, 1, 2, ... in `time_base`."""
    for index, path in enumerate(paths):
        frame, _ = decode_image(path)
        frame.pts, frame.time_base = index, time_base
        frame.duration = 1
        yield frame
