"""Video in and out by name: which kind of reader or writer suits what the user named."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from instantvir_models.errors import UsageError
from instantvir_models.media.base import VideoReader, VideoWriter
from instantvir_models.media.container_reader import ContainerReader
from instantvir_models.media.container_writer import ContainerWriter
from instantvir_models.media.fields import FieldChoice
from instantvir_models.media.image_reader import ImageReader
from instantvir_models.media.image_writer import ImageWriter
from instantvir_models.media.names import (
    Destination,
    Source,
    image_files,
    is_image_file,
    is_image_pattern,
    source_name,
)
from instantvir_models.media.reach import USUAL_RULES, InputRules
from instantvir_models.media.segments import Segment, SegmentedWriter
from instantvir_models.media.settings import EncoderSettings
from instantvir_models.media.source import ContainerSource
from instantvir_models.media.timeline import DEFAULT_FRAME_RATE, Trim, as_fraction
from instantvir_models.outputs.claim import Claim
from instantvir_models.outputs.names import written_path


def open_video(
    source: Source,
    *,
    start_seconds: float | Fraction | None = None,
    duration_seconds: float | Fraction | None = None,
    input_format: str | None = None,
    input_options: Mapping[str, str] | None = None,
    frame_rate: float | Fraction | None = None,
    threads: int | None = None,
    other_streams: bool = True,
    is_live: bool = False,
    timeout_seconds: float | None = None,
    fields: FieldChoice | None = None,
    rules: InputRules = USUAL_RULES,
) -> VideoReader:
    """An open reader: the frames of one video, each once, in presentation order.

    Args:
        source: a path or URL; `-` for standard input; a binary file object; or images: a list of
            files, a glob pattern (`frames/*.png`) or a numbered one (`frames/%05d.png`).
        start_seconds: frames before this time, counted from the start of the video, are dropped.
        duration_seconds: frames shown later than this after the start are not delivered.
        input_format: FFmpeg's name of the input format or device (`rawvideo`, `v4l2`, `lavfi`),
            where it cannot be told from the data.
        input_options: FFmpeg's options for that format, such as `{"video_size": "64x64"}`.
        frame_rate: frames per second of images (25 if not given); other sources have their own.
        threads: of the decoder; None takes up to 4.
        other_streams: keep audio and subtitle packets for a writer (up to 64 MiB wait).
        is_live: of a source without end: read in small pieces, past damage, and deliver frames of
            another size when the picture changes (`info` keeps telling of the first); without it
            they are scaled to the first size, and `damage` says so.
        timeout_seconds: give up on a network source that is silent for so long.
        fields: how the pictures of an interlaced video become whole; None, and images, take pictures
            as they are. Looks at the first pictures where the order is to be found.
        rules: how far the source may reach, and how large its pictures may be: a file opens only
            itself, an address only addresses.

    Raises:
        VideoOpenError: if the source is missing or unreadable, has no video, or holds no frame.

    Times begin at 0 with the first picture or sound, whatever the source's clock says, and its jumps
    are closed for all streams alike. The first frame is decoded on opening. Damaged data never
    raises: what decodes is delivered and `damage` tells what was not.
    """
    trim = Trim.of(start_seconds, duration_seconds)
    images = image_files(source)
    if rules.sandbox:
        return _walled(
            source if images is None else images,
            trim=trim,
            frame_rate=None if frame_rate is None else as_fraction(frame_rate),
            threads=threads,
            other_streams=other_streams,
            fields=fields,
            rules=rules,
        )
    if images is not None:
        return ImageReader(
            images,
            name=source_name(source),
            trim=trim,
            frame_rate=frame_rate,
            may_change_size=is_live,
            rules=rules,
        )
    assert isinstance(source, (str, os.PathLike)) or hasattr(source, "read")
    opened_from = ContainerSource(
        source,  # type: ignore[arg-type]
        input_format=input_format,
        input_options=input_options,
        is_live=is_live,
        timeout_seconds=timeout_seconds,
        rules=rules,
    )
    return ContainerReader(
        opened_from, trim=trim, threads=threads, other_streams=other_streams, fields=fields
    )


def _walled(source: Source | list[Path], **how: Any) -> VideoReader:
    """The video that a child decodes, which is slow to load and seldom wanted."""
    from instantvir_models.media.walled import WalledReader

    if not isinstance(source, (str, Path, list)):
        raise UsageError("`sandbox` decodes files and standard input", hint="give a path")
    return WalledReader(source, **how)


def create_video(
    destination: Destination,
    *,
    info_of: VideoReader | None = None,
    width: int,
    height: int,
    settings: EncoderSettings | None = None,
    frame_rate: float | Fraction | None = None,
    output_format: str | None = None,
    is_live: bool = False,
    overwrite: bool = True,
) -> VideoWriter:
    """An open writer: it takes frames, and the output appears under its name on `close`.

    Args:
        destination: a path, a pattern for images (`out_%05d.png`) or one image for one frame, `-`
            for standard output, an address (`rtmp://...`), a binary file object, or a name that
            `outputs.claim` holds already, and whose holder commits what was made.
        info_of: the reader whose times, colours, metadata, chapters, audio and subtitles the output
            takes over; it must be open, and is best attached before its frames are read.
        width, height: of the frames to be written.
        settings: how to encode.
        frame_rate: frames per second where the source does not say (25 if nobody does).
        output_format: FFmpeg's name of the container; needed for standard output and file objects.
        is_live: of an input without end: a file grows under its own name and is playable at any
            moment, `abort` and failures keep what it holds, time stamps too close together are
            moved apart, and audio comes through `write_companions`.
        overwrite: whether a file that exists is replaced, when the output is complete.

    Raises:
        UsageError: if a file exists and may not be replaced, or another run writes the same one.
        VideoWriteError: whatever goes wrong with the output, on opening, writing or closing.
            Nothing is left behind then, unless it is live.

    As a context manager it closes on success and aborts on an exception. With a reader that was
    trimmed the output begins at time 0 and its audio covers the same span, to the packet. What comes
    along is copied, or converted to what the container holds, or named in `losses`.
    """
    rate = _output_rate(info_of, frame_rate)
    path = destination.path if isinstance(destination, Claim) else written_path(destination)
    if is_image_pattern(path) or is_image_file(path):
        return ImageWriter(
            destination, info_of=info_of, width=width, height=height, may_replace=overwrite
        )
    return ContainerWriter(
        destination,
        info_of=info_of,
        width=width,
        height=height,
        settings=settings or EncoderSettings(),
        frame_rate=rate,
        output_format=output_format,
        is_live=is_live,
        may_replace=overwrite,
    )


def create_segmented_video(
    held: Claim,
    *,
    info_of: VideoReader,
    width: int,
    height: int,
    settings: EncoderSettings | None = None,
    output_format: str | None = None,
    finished: Sequence[Segment] = (),
) -> SegmentedWriter:
    """An open writer to a file that is made in pieces, of which some may be there already.

    Args:
        held: the name of the file, held by this run, which commits it when the writer is closed;
            pieces go into its folder.
        finished: the pieces that are there, which the frames to be written follow.
        info_of, width, height, settings, output_format: as `create_video` takes them.

    Raises:
        VideoWriteError: as `create_video`.
    """
    return SegmentedWriter(
        held,
        info_of=info_of,
        width=width,
        height=height,
        settings=settings or EncoderSettings(),
        frame_rate=_output_rate(info_of, None),
        output_format=output_format,
        is_live=False,
        may_replace=held.may_replace,
        folder=held.folder,
        finished=finished,
        again=info_of.again,
    )


def _output_rate(reader: VideoReader | None, asked: float | Fraction | None) -> Fraction:
    rate = asked or (reader.info.frame_rate if reader else None) or DEFAULT_FRAME_RATE
    if rate <= 0:
        raise ValueError(f"frame_rate must be positive, got {rate}")
    return as_fraction(rate)
