"""Video in: frames with exact times, upright, in full-range RGB."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import TracebackType

import av
from av.audio.codeccontext import AudioCodecContext
from av.container import InputContainer
from av.stream import Disposition, Stream

from instantvir_models.errors import VideoOpenError
from instantvir_models.media import color
from instantvir_models.media.demux import Demuxer, main_video_stream
from instantvir_models.media.frame import Frame
from instantvir_models.media.images import decode_image, decode_images
from instantvir_models.media.info import LOSSLESS_CODECS, Damage, StreamSummary, VideoInfo
from instantvir_models.media.nut import NutPieces
from instantvir_models.media.orientation import orientation_of
from instantvir_models.media.source import Source, image_files, name_of, open_container

logger = logging.getLogger(__name__)

DEFAULT_FRAME_RATE = Fraction(25)
LIVE_READ_ERRORS = 100
"""Damaged places in a row that a live source may have before it counts as lost."""

UNPROBED = {"probesize": "32", "analyzeduration": "1", "fpsprobesize": "0"}
"""For a piece of a stream that is known: probing would hold back the frames of 0.2 s each time."""

# Containers round time stamps (Matroska to milliseconds), and a frame at the cut belongs inside.
_CUT_TOLERANCE_SECONDS = Fraction(1, 2000)


class VideoReader:
    """The frames of one video, each once, in presentation order.

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
        other_streams: keep audio and subtitle packets for a `VideoWriter` (up to 64 MiB wait).
        is_live: of a source without end: read in small pieces, past damage, and deliver frames of
            another size when the picture changes (`info` keeps telling of the first).
        timeout_seconds: give up on a network source that is silent for so long.

    Raises:
        VideoOpenError: if the source is missing or unreadable, has no video, or holds no frame.
            Also while iterating, if the size of the picture changes and the source is not live.

    The first frame is decoded on opening. Damaged data never raises: what decodes is delivered and
    `damage` tells what was not.
    """

    def __init__(
        self,
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
    ) -> None:
        self._is_live = is_live
        self._name = name_of(source)
        self._start = _span_seconds(start_seconds, "start_seconds", allow_zero=True)
        self._duration = _span_seconds(duration_seconds, "duration_seconds", allow_zero=False)
        self._last_pts: int | None = None
        self._first_decoded_pts: int | None = None
        self._corrupt_frames = 0
        self._delivered_frames = 0
        self._has_ended = False
        self._demuxer: Demuxer | None = None
        self._open_next: Callable[[], InputContainer | None] = lambda: None

        images = image_files(source)
        try:
            if images is not None:
                self._open_images(images, frame_rate)
            else:
                assert isinstance(source, (str, os.PathLike)) or hasattr(source, "read")
                open_source = partial(
                    open_container,
                    source,  # type: ignore[arg-type]
                    input_format=input_format,
                    input_options=input_options,
                    is_live=is_live,
                    timeout_seconds=timeout_seconds,
                )
                if isinstance(source, NutPieces):
                    options = {**(input_options or {}), **UNPROBED}
                    self._open_next = partial(
                        _next_piece, source, partial(open_source, input_options=options)
                    )
                self._open_stream(open_source, threads, other_streams)
            self._warn_about(self._first)
            self.info = self._describe(self._first)
        except BaseException:
            self.close()
            raise
        # One generator for the reader's whole life: a second would lose what the codec holds.
        self._frames = self._deliver()

    def __iter__(self) -> Iterator[Frame]:
        """Goes on where the last iteration stopped."""
        return self._frames

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        info = self.info
        size = f"{info.width}x{info.height}"
        return f"VideoReader({self._name}, {size}, {info.codec_name} {info.pix_fmt})"

    def close(self) -> None:
        """Release the source; reading further is an error."""
        if self._demuxer is not None:
            self._demuxer.close()

    def end_input(self) -> None:
        """Read no more of an endless source; frames already read still come. From any thread."""
        if self._demuxer is not None:
            self._demuxer.end_input()

    @property
    def is_trimmed(self) -> bool:
        """Whether `start_seconds` or `duration_seconds` was given."""
        return self._start is not None or self._duration is not None

    @property
    def origin(self) -> Fraction:
        """Time stamp, in seconds, of the first delivered frame."""
        return (self._first.pts or 0) * self._time_base

    @property
    def span_end_seconds(self) -> Fraction | None:
        """Time stamp, in seconds, at which the wanted span ends; None if it ends with the video."""
        if self._duration is None:
            return None
        begin = self._demuxer.first_seconds if self._demuxer else Fraction(0)
        return begin + (self._start or 0) + self._duration

    @property
    def demuxer(self) -> Demuxer | None:
        """For the writer: the open container and the waiting packets; None for images."""
        return self._demuxer

    @property
    def damage(self) -> Damage:
        """What could not be read so far; complete once the last frame was delivered."""
        if self._demuxer is None:
            return Damage()
        undecodable, missing = self._demuxer.undecodable_packets, self._demuxer.missing_frames()
        parts = []
        if missing:
            promised = self._delivered_frames + undecodable + missing
            parts.append(
                f"{self._name} is cut short: "
                f"it promises {promised} frames, {self._delivered_frames} could be read"
            )
        elif self._demuxer.read_error:
            parts.append(f"{self._name} could not be read to its end ({self._demuxer.read_error})")
        if undecodable:
            parts.append(f"{_count(undecodable, 'packet')} could not be decoded")
        if self._corrupt_frames:
            parts.append(f"{_count(self._corrupt_frames, 'frame')} had to be guessed in part")
        return Damage(undecodable + missing, self._corrupt_frames, "; ".join(parts) or None)

    def _open_images(self, images: list[Path], frame_rate: float | Fraction | None) -> None:
        self._image_rate = _as_fraction(frame_rate or DEFAULT_FRAME_RATE)
        self._time_base = 1 / self._image_rate
        self._image_codec = decode_image(images[0])[1]
        self._num_images = len(images)
        self._decoded = self._within_the_span(decode_images(images, self._time_base))
        self._peeked = next(self._decoded, None)
        self._first = self._first_frame()

    def _open_stream(
        self, open_source: Callable[[], InputContainer], threads: int | None, other_streams: bool
    ) -> None:
        container = open_source()
        can_seek = bool(self._start) and os.path.isfile(str(container.name))
        self._start_decoding(container, threads, other_streams, seek=can_seek)
        if can_seek and self._landed_late():
            # Some files (MPEG-TS) have no index, and the seek went to a place without a keyframe.
            self.close()
            self._last_pts, self._first_decoded_pts, self._has_ended = None, None, False
            self._start_decoding(open_source(), threads, other_streams, seek=False)
        self._first = self._first_frame()

    def _start_decoding(
        self, container: InputContainer, threads: int | None, other_streams: bool, *, seek: bool
    ) -> None:
        try:
            self._demuxer = self._demux(container, threads, other_streams)
        except BaseException:
            container.close()
            raise
        if seek:
            self._demuxer.seek_to_start()
        self._time_base = self._demuxer.time_base
        self._decoded = self._within_the_span(self._demuxer.frames())
        self._peeked = next(self._decoded, None)

    def _landed_late(self) -> bool:
        """Whether decoding began after the start, so that frames before it may be missing."""
        assert self._demuxer is not None
        if self._first_decoded_pts is None:
            return True
        begin = self._demuxer.first_seconds + (self._start or 0)
        return self._first_decoded_pts * self._time_base > begin + _CUT_TOLERANCE_SECONDS

    def _demux(
        self, container: InputContainer, threads: int | None, other_streams: bool
    ) -> Demuxer:
        video = main_video_stream(container)
        if video is None:
            raise VideoOpenError(
                f"{self._name} has no video stream", hint=_found_instead(container)
            )
        if video.codec_context is None:
            raise VideoOpenError(
                f"{self._name} has video of a kind that this FFmpeg cannot decode",
                hint="convert it to H.264 with another program first",
            )
        context = video.codec_context
        context.thread_count = threads or min(4, os.cpu_count() or 1)
        # Frame threads hold back as many frames as there are threads; a live source cannot wait.
        is_file = os.path.isfile(str(container.name)) and not self._is_live
        context.thread_type = "AUTO" if is_file else "SLICE"
        return Demuxer(
            container,
            video,
            _copyable_streams(container) if other_streams else (),
            start_seconds=self._start,
            duration_seconds=self._duration,
            read_errors_allowed=LIVE_READ_ERRORS if self._is_live else 0,
            open_next=self._open_next,
        )

    def _first_frame(self) -> av.VideoFrame:
        if self._peeked is not None:
            return self._peeked
        hint = "the file holds a video stream without a decodable picture"
        if self._demuxer is not None and self._demuxer.undecodable_packets:
            hint = f"{_count(self._demuxer.undecodable_packets, 'packet')} could not be decoded"
        if self.is_trimmed:
            hint = "the span asked for may lie behind the end of the video"
        raise VideoOpenError(f"{self._name} holds no video frames", hint=hint)

    def _within_the_span(self, decoded: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """The frames between start and end, each with a pts larger than the one before."""
        begin = self._demuxer.first_seconds if self._demuxer else Fraction(0)
        start = begin + (self._start or 0) - _CUT_TOLERANCE_SECONDS
        end = None if self._duration is None else start + self._duration
        for frame in decoded:
            if end is not None and self._has_ended:
                continue  # frames that the decoder still held
            pts = self._pts_of(frame)
            self._last_pts = pts
            if self._first_decoded_pts is None:
                self._first_decoded_pts = pts
            if self._start is not None and pts * self._time_base < start:
                continue
            if end is not None and pts * self._time_base >= end:
                self._has_ended = True
                if self._demuxer is None:
                    return
                self._demuxer.stop_decoding()
                continue
            frame.pts = pts
            yield frame

    def _pts_of(self, frame: av.VideoFrame) -> int:
        """The frame's time stamp, or a guess that is later than the last one."""
        pts = frame.pts if frame.pts is not None else frame.dts
        if self._last_pts is None:
            return pts if pts is not None else 0
        if pts is not None and pts > self._last_pts:
            return pts
        logger.debug("%s: a frame without a usable time stamp after %d", self._name, self._last_pts)
        return self._last_pts + max(1, frame.duration or self._usual_duration())

    def _usual_duration(self) -> int:
        rate = self._demuxer.video.average_rate if self._demuxer else None
        return round(1 / (Fraction(rate or DEFAULT_FRAME_RATE) * self._time_base))

    def _deliver(self) -> Iterator[Frame]:
        yield self._convert(self._first)
        for frame in self._decoded:
            yield self._convert(frame)

    def _convert(self, frame: av.VideoFrame) -> Frame:
        pts = frame.pts or 0
        has_changed = (frame.width, frame.height) != (self._first.width, self._first.height)
        if has_changed and not self._is_live:
            raise VideoOpenError(
                f"the picture of {self._name} changes "
                f"from {self._first.width}x{self._first.height} "
                f"to {frame.width}x{frame.height} at {float(pts * self._time_base):.2f} s",
                hint="scale it to one size first: `ffmpeg -i in -vf scale=W:H out`",
            )
        self._delivered_frames += 1
        self._corrupt_frames += bool(frame.is_corrupt)
        tags = color.resolved(
            color.color_tags_of(frame), pix_fmt=frame.format.name, height=frame.height
        )
        pixels = self._orientation.upright(color.to_rgb(frame, tags))
        return Frame(pixels, pts, self._time_base, frame.duration or 0)

    def _describe(self, first: av.VideoFrame) -> VideoInfo:
        self._orientation = orientation_of(first)
        tags = color.color_tags_of(first)
        pix_fmt = first.format.name
        size = (first.width, first.height)
        width, height = size[::-1] if self._orientation.is_transposed else size
        info = VideoInfo(
            width=width,
            height=height,
            frame_rate=None,
            time_base=self._time_base,
            num_frames=None,
            duration_seconds=None,
            bit_depth=color.bit_depth_of(pix_fmt),
            pix_fmt=pix_fmt,
            codec_name="",
            is_lossless=False,
            color=tags,
            conversion=color.resolved(tags, pix_fmt=pix_fmt, height=first.height),
            rotation_degrees=self._orientation.degrees_clockwise,
            is_mirrored=self._orientation.is_mirrored,
            sample_aspect_ratio=None,
            is_interlaced=bool(first.interlaced_frame),
        )
        return self._describe_images(info) if self._demuxer is None else self._describe_stream(info)

    def _describe_images(self, info: VideoInfo) -> VideoInfo:
        count = self._num_images
        if self.is_trimmed:
            skipped = int((self._start or 0) * self._image_rate)
            wanted = count if self._duration is None else round(self._duration * self._image_rate)
            count = max(1, min(count - skipped, wanted))
        return replace(
            info,
            frame_rate=self._image_rate,
            num_frames=count,
            duration_seconds=float(count / self._image_rate),
            codec_name=self._image_codec,
            is_lossless=self._image_codec in LOSSLESS_CODECS,
        )

    def _describe_stream(self, info: VideoInfo) -> VideoInfo:
        assert self._demuxer is not None
        video, container = self._demuxer.video, self._demuxer.container
        rate = video.average_rate or video.guessed_rate
        frame_rate = Fraction(rate) if rate else None
        seconds = self._expected_seconds()
        num_frames = video.frames if video.frames and not self.is_trimmed else None
        if num_frames is None and seconds is not None and frame_rate:
            num_frames = max(1, round(seconds * frame_rate))
        aspect = video.sample_aspect_ratio
        aspect_ratio = Fraction(aspect) if aspect else None
        if aspect_ratio and self._orientation.is_transposed:
            aspect_ratio = 1 / aspect_ratio
        return replace(
            info,
            frame_rate=frame_rate,
            num_frames=num_frames,
            duration_seconds=None if seconds is None else float(seconds),
            codec_name=_codec_name(video),
            is_lossless=_codec_name(video) in LOSSLESS_CODECS,
            sample_aspect_ratio=aspect_ratio,
            audio_streams=tuple(_summary(s) for s in container.streams.audio),
            subtitle_streams=tuple(_summary(s) for s in container.streams.subtitles),
        )

    def _expected_seconds(self) -> Fraction | None:
        assert self._demuxer is not None
        video, container = self._demuxer.video, self._demuxer.container
        seconds = self._duration
        if video.duration:
            whole: Fraction | None = video.duration * self._time_base
        else:
            end = self._demuxer.promised_end_seconds
            whole = Fraction(container.duration, 1_000_000) if container.duration else end
            whole = end - self._demuxer.first_seconds if end is not None else whole
        if whole is None:
            return seconds
        rest = max(Fraction(0), whole - (self._start or 0))
        return rest if seconds is None else min(rest, seconds)

    def _warn_about(self, first: av.VideoFrame) -> None:
        if color.has_alpha(first.format.name):
            logger.warning("%s has an alpha channel, which is dropped", self._name)
        if first.interlaced_frame:
            logger.warning("%s is interlaced; its fields are treated as one picture", self._name)


def _next_piece(
    source: NutPieces, open_source: Callable[[], InputContainer]
) -> InputContainer | None:
    return open_source() if source.begin_next_piece() else None


def _copyable_streams(container: InputContainer) -> tuple[Stream, ...]:
    streams = [*container.streams.audio, *container.streams.subtitles]
    return tuple(s for s in streams if not Disposition(s.disposition) & Disposition.attached_pic)


def _codec_name(stream: Stream) -> str:
    """The name of the format (`h264`), not of the decoder that was picked (`libdav1d`)."""
    context = stream.codec_context
    return context.codec.canonical_name if context is not None else "unknown"


def _summary(stream: Stream) -> StreamSummary:
    context = stream.codec_context
    return StreamSummary(
        kind=stream.type,
        codec_name=_codec_name(stream),
        language=stream.language,
        sample_rate=context.sample_rate if isinstance(context, AudioCodecContext) else None,
        channels=context.layout.nb_channels if isinstance(context, AudioCodecContext) else None,
    )


def _found_instead(container: InputContainer) -> str:
    """`found 1 audio stream (aac)`, for a container without video."""
    found = []
    for kind in ("audio", "subtitle", "data"):
        streams = [s for s in container.streams if s.type == kind]
        if streams:
            names = ", ".join(_codec_name(s) for s in streams)
            found.append(f"{_count(len(streams), f'{kind} stream')} ({names})")
    return f"found {' and '.join(found)}" if found else "found no streams at all"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _as_fraction(value: float | Fraction) -> Fraction:
    fraction = (
        value if isinstance(value, Fraction) else Fraction(value).limit_denominator(1_000_000)
    )
    if fraction <= 0:
        raise ValueError(f"a frame rate must be positive, got {value}")
    return fraction


def _span_seconds(
    value: float | Fraction | None, name: str, *, allow_zero: bool
) -> Fraction | None:
    if value is None:
        return None
    if value < 0 or (value == 0 and not allow_zero):
        raise ValueError(
            f"{name} must be {'at least' if allow_zero else 'more than'} 0, got {value}"
        )
    return value if isinstance(value, Fraction) else Fraction(value).limit_denominator(1_000_000)
