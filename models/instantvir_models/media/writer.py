"""Video out: exact times, the source's colours, its sound and subtitles; whole or not at all."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
from av.container import OutputContainer
from av.video.stream import VideoStream

from instantvir_models.errors import VideoWriteError
from instantvir_models.media import color
from instantvir_models.media.address import is_network_address
from instantvir_models.media.companions import Companions, Span, copy_description, kept_metadata
from instantvir_models.media.connection import Connection
from instantvir_models.media.demux import CompanionPacket
from instantvir_models.media.destination import (
    Destination,
    final_path,
    name_of,
    partial_path,
    stream_of,
)
from instantvir_models.media.frame import Frame
from instantvir_models.media.image_writer import ImageSequenceWriter, is_image_pattern
from instantvir_models.media.reader import DEFAULT_FRAME_RATE, VideoReader
from instantvir_models.media.settings import EncoderSettings, ResolvedEncoder, resolve_encoder
from instantvir_models.media.source import USUAL_BUFFER_BYTES

logger = logging.getLogger(__name__)

# Containers that store a frame rate and no times.
_CONSTANT_RATE_FORMATS = frozenset({"avi", "yuv4mpegpipe", "rawvideo"})
_MATROSKA_FORMATS = frozenset({"matroska", "webm"})
_LIVE_OPTIONS = {"max_interleave_delta": "1000000"}
"""Microseconds that a frame waits for sound or subtitles of its moment; FFmpeg's default is 10 s."""

# A playlist of the last seconds, without the pieces that left it: an endless stream fills no disk.
_LIVE_HLS_OPTIONS = {"hls_time": "2", "hls_list_size": "6", "hls_flags": "delete_segments"}
# RTSP connects by itself, while PyAV holds the interpreter's lock: not for long. Microseconds.
_LIVE_RTSP_OPTIONS = {"timeout": "5000000"}
_MOV_FORMATS = frozenset({"mp4", "mov", "ipod", "3gp"})
# Matroska takes the pixel shape from a field that PyAV cannot set; these codecs carry it.
_CODECS_WITH_ASPECT = frozenset({"libx264", "libx265", "h264_nvenc", "hevc_nvenc", "mpeg4"})


class VideoWriter:
    """Encodes frames into a file that appears under its name only when `close` has succeeded.

    Args:
        destination: a path, a pattern for images (`out_%05d.png`), `-` for standard output, an
            address (`rtmp://...`), or a binary file object.
        info_of: the reader whose times, colours, metadata, chapters, audio and subtitles the output
            takes over; it must be open, and is best attached before its frames are read.
        width, height: of the frames to be written.
        settings: how to encode.
        frame_rate: frames per second where the source does not say (25 if nobody does).
        output_format: FFmpeg's name of the container; needed for standard output and file objects.
        is_live: of an input without end: a file grows under its own name and is playable at any
            moment, `abort` and failures keep what it holds, time stamps too close together are
            moved apart, and audio comes through `write_companions`.

    Raises:
        VideoWriteError: whatever goes wrong with the output, on opening, writing or closing.
            Nothing is left behind then, unless it is live.

    As a context manager it closes on success and aborts on an exception. With a reader that was
    trimmed the output begins at time 0 and its audio covers the same span, to the packet.
    """

    def __init__(
        self,
        destination: Destination,
        *,
        info_of: VideoReader | None = None,
        width: int,
        height: int,
        settings: EncoderSettings | None = None,
        frame_rate: float | Fraction | None = None,
        output_format: str | None = None,
        is_live: bool = False,
    ) -> None:
        self._is_live = is_live
        if width < 1 or height < 1:
            raise ValueError(f"the size must be positive, got {width}x{height}")
        self._name = name_of(destination)
        self._is_network = is_network_address(str(destination)) or isinstance(
            destination, Connection
        )
        self._width, self._height = width, height
        self._reader = info_of
        self._settings = settings or EncoderSettings()
        self._rate = _frame_rate(info_of, frame_rate)
        self._span = _span_of(info_of)
        self._num_frames = 0
        self._last_pts: int | None = None
        self._durations: dict[int | None, int] = {}
        self._begin_seconds: Fraction | None = None
        self._is_open = True
        self._images: ImageSequenceWriter | None = None
        self._container: OutputContainer | None = None
        self._companions: Companions | None = None
        self._final: Path | None = None
        self._partial: Path | None = None
        if is_image_pattern(destination):
            assert isinstance(destination, (str, Path))
            self._images = ImageSequenceWriter(Path(destination))
            return
        self._final = final_path(destination)
        self._partial = partial_path(self._final) if self._final and not is_live else None
        target = str(self._partial) if self._partial else stream_of(destination)
        self._pipe = None if isinstance(target, str) else target
        with self._no_remains():
            try:
                self._open(target, output_format)
            except av.error.ArgumentError:
                if self._companions is None or self._final is None:
                    raise
                self._open(target, output_format, probe=True)

    @property
    def encoder(self) -> ResolvedEncoder:
        """The codec, pixel format and options that were decided on (not for images)."""
        return self._encoder

    def write(self, frame: Frame) -> None:
        """Encode one frame, [height, width, 3] in uint8 or uint16, later than the one before."""
        assert self._is_open, "write after close"
        if frame.pixels.shape != (self._height, self._width, 3):
            raise ValueError(
                f"expected a frame of shape {[self._height, self._width, 3]}, "
                f"got {list(frame.pixels.shape)}"
            )
        with self._no_remains():
            if self._images is not None:
                self._images.write(frame.pixels)
                return
            self._mux(self._stream.encode(self._picture(frame)))
            self._num_frames += 1
            if self._companions is not None and not self._is_live:
                self._companions.write_waiting()
            self._flush_pipe()

    def write_companions(self, packets: Iterable[CompanionPacket]) -> None:
        """Copy audio and subtitles, to a live output."""
        if self._companions is not None:
            with self._no_remains():
                self._companions.write(packets)
            self._flush_pipe()

    def close(self) -> None:
        """Finish the file and give it its name. Safe to call twice."""
        if not self._is_open:
            return
        with self._no_remains():
            if self._images is not None:
                self._images.close()
            else:
                self._finish()
        self._is_open = False

    def abort(self) -> None:
        """Give up; what was written to a file is removed. Safe to call at any time."""
        if not self._is_open:
            return
        self._is_open = False
        if self._images is not None:
            self._images.abort()
        if self._container is not None:
            # Closing frees the file; that its end cannot be written does not matter any more.
            with suppress(Exception):
                self._container.close()
        if self._partial is not None:
            self._partial.unlink(missing_ok=True)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _open(self, target: object, output_format: str | None, *, probe: bool = False) -> None:
        if output_format is None and self._final is None and not isinstance(target, str):
            raise VideoWriteError(
                f"{self._name} needs a container format",
                hint="matroska and nut suit pipes; mp4 is written in fragments",
            )
        container = self._new_container(target, output_format)
        self._container = container
        info = self._reader.info if self._reader else None
        self._encoder = resolve_encoder(
            self._settings,
            format_name=container.format.name,
            width=self._width,
            height=self._height,
            bit_depth=info.bit_depth if info else 8,
        )
        self._tags = self._output_tags()
        self._stream = self._add_video(container)
        self._copy_companions(container, probe=probe)
        container.start_encoding()
        logger.info("writing %s as %s %s", self._name, self._encoder.codec, self._encoder.pix_fmt)

    def _new_container(self, target: object, output_format: str | None) -> OutputContainer:
        options = {} if self._partial else {"flush_packets": "1"}
        if self._is_live:
            options |= _LIVE_OPTIONS
        suffix = Path(str(target)).suffix.lower() if isinstance(target, str) else ""
        if output_format in _MOV_FORMATS or (
            output_format is None and suffix in {".mp4", ".mov", ".m4v"}
        ):
            # use_metadata_tags would keep unknown keys but hides the standard ones from players.
            whole = "+faststart"
            live = "frag_keyframe+empty_moov+default_base_moof"
            options["movflags"] = whole if self._partial else live
        if self._is_live and (output_format == "hls" or suffix == ".m3u8"):
            options |= _LIVE_HLS_OPTIONS
        if self._is_live and output_format == "rtsp":
            options |= _LIVE_RTSP_OPTIONS
        if self._is_live and (output_format == "nut" or suffix == ".nut"):
            # NUT would remember every keyframe for an index that an endless stream never writes.
            options["write_index"] = "0"
        if output_format in _MATROSKA_FORMATS or suffix in {".mkv", ".webm"}:
            # Else the audio's priming samples, before time 0, would delay every frame by 21 ms.
            options["avoid_negative_ts"] = "disabled"
        try:
            return av.open(
                target, "w", format=output_format, container_options=options,
                buffer_size=_buffer_bytes(target),
            )  # fmt: skip
        except ValueError as error:
            raise VideoWriteError(
                f"{self._name}: no container format is known for this name",
                hint="use .mp4, .mkv, .mov, .webm or .avi",
            ) from error

    def _output_tags(self) -> color.ColorTags:
        """The source's tags, with the range and matrix filled in that the conversion uses."""
        source = self._reader.info.color if self._reader else color.ColorTags()
        pix_fmt = self._encoder.pix_fmt
        if self._reader and not color.is_rgb(pix_fmt):
            used = self._reader.info.conversion
            if used.matrix != color.MATRIX_RGB and not _is_gray(self._reader.info.pix_fmt):
                source = replace(source, range=used.range, matrix=used.matrix)
            else:
                source = replace(source, range=color.RANGE_LIMITED, matrix=color.MATRIX_UNSPECIFIED)
        if _is_gray(pix_fmt):
            source = replace(source, range=color.RANGE_FULL)
        return color.resolved(source, pix_fmt=pix_fmt, height=self._height)

    def _add_video(self, container: OutputContainer) -> VideoStream:
        encoder = self._encoder
        self._has_constant_rate = container.format.name in _CONSTANT_RATE_FORMATS
        keeps_times = self._reader is not None and not self._has_constant_rate
        self._time_base = (
            self._reader.info.time_base if keeps_times and self._reader else 1 / self._rate
        )
        stream = container.add_stream(
            encoder.codec,
            rate=self._rate,
            options=dict(encoder.options),
            width=self._width,
            height=self._height,
            pix_fmt=encoder.pix_fmt,
            time_base=self._time_base,
        )
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        stream.time_base = self._time_base
        if encoder.threads:
            context.thread_count = encoder.threads
        context.color_range, context.colorspace = self._tags.range, self._tags.matrix
        context.color_trc, context.color_primaries = self._tags.transfer, self._tags.primaries
        if self._reader is not None:
            self._describe_like(self._reader, stream)
        return stream

    def _describe_like(self, reader: VideoReader, stream: VideoStream) -> None:
        aspect = reader.info.sample_aspect_ratio
        if aspect and aspect != 1:
            stream.codec_context.sample_aspect_ratio = aspect
            assert self._container is not None
            is_matroska = self._container.format.name in _MATROSKA_FORMATS
            if is_matroska and self._encoder.codec not in _CODECS_WITH_ASPECT:
                logger.warning(
                    "the pixel shape %s is lost: %s cannot carry it here",
                    aspect,
                    self._encoder.codec,
                )
        if reader.demuxer is not None:
            video = reader.demuxer.video
            stream.metadata.update(kept_metadata(dict(video.metadata)))
            stream.disposition = video.disposition

    def _copy_companions(self, container: OutputContainer, *, probe: bool) -> None:
        if self._reader is None or self._reader.demuxer is None:
            return
        demuxer = self._reader.demuxer
        copy_description(demuxer.container, container, self._span)
        if demuxer.others:
            self._companions = Companions(demuxer, container, self._span, probe=probe)

    def _picture(self, frame: Frame) -> av.VideoFrame:
        picture = color.from_rgb(frame.pixels, self._encoder.pix_fmt, self._tags)
        pts = self._output_pts(frame)
        self._last_pts = pts
        picture.pts, picture.time_base = pts, self._time_base
        if frame.duration:
            self._durations[pts] = round(frame.duration * frame.time_base / self._time_base)
        return picture

    def _output_pts(self, frame: Frame) -> int:
        seconds = frame.pts * frame.time_base
        if self._begin_seconds is None:
            self._begin_seconds = seconds if self._has_constant_rate else Fraction(0)
        shift = self._span.begin_seconds if self._span else self._begin_seconds
        pts = round((seconds - shift) / self._time_base)
        if self._last_pts is None or pts > self._last_pts:
            return pts
        if self._has_constant_rate or self._is_live:
            return self._last_pts + 1
        raise ValueError(
            f"frames must come in order of time: "
            f"{pts} after {self._last_pts} (x {self._time_base} s)"
        )

    def _mux(self, packets: list[av.Packet[VideoStream]]) -> None:
        assert self._container is not None
        for packet in packets:
            # Encoders put in one frame period: wrong for the last frame of a variable rate.
            packet.duration = self._durations.pop(packet.pts, packet.duration)
            self._container.mux(packet)

    def _last_packets(self) -> list[av.Packet[VideoStream]]:
        packets = self._stream.encode(None)
        if self._encoder.codec == "libx265" and self._num_frames <= 2:
            # x265 4.2 takes the dts of so short a video from uninitialised memory.
            for packet in packets:
                packet.dts = packet.pts
        return packets

    def _flush_pipe(self) -> None:
        """What was written so far reaches the reader of a pipe now, not when a buffer is full."""
        if self._pipe is not None and hasattr(self._pipe, "flush"):
            self._pipe.flush()

    def _finish(self) -> None:
        assert self._container is not None
        if self._num_frames == 0:
            raise VideoWriteError(
                f"no frame was written to {self._name}", hint="the input gave none"
            )
        self._mux(self._last_packets())
        if self._companions is not None and not self._is_live:
            self._companions.write_waiting()
        self._container.close()
        self._flush_pipe()
        if self._final is not None and self._partial is not None:
            os.replace(self._partial, self._final)

    @contextmanager
    def _no_remains(self) -> Iterator[None]:
        """Abort on any failure; those of FFmpeg and the system become VideoWriteError."""
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            self.abort()
            raise self._sentence(error) from error
        except ValueError as error:
            is_codec_refusal = "format does not support" in str(error)
            self.abort()
            if not is_codec_refusal:
                raise
            raise VideoWriteError(
                f"{self._name} cannot hold {self._encoder.codec} video",
                hint="write .mkv, which holds every codec, or choose another codec",
            ) from error
        except BaseException:
            self.abort()
            raise

    def _sentence(self, error: av.FFmpegError | OSError) -> VideoWriteError:
        number, reason = error.errno, error.strerror or str(error)
        if number == errno.ENOSPC:
            return VideoWriteError(
                f"no space is left for {self._name}",
                hint="free some space or write to another disk",
            )
        if isinstance(error, BrokenPipeError):
            return VideoWriteError(
                f"the program that reads {self._name} has stopped", hint="look at its messages"
            )
        if "avcodec_open2" in str(error):
            return VideoWriteError(
                f"{self._encoder.codec} refused its settings ({reason})",
                hint="check crf, preset and pixel format; hardware encoders need their hardware",
            )
        return VideoWriteError(
            f"cannot write {self._name}: {reason}",
            hint="check the address and that the server answers"
            if self._is_network or isinstance(error, ConnectionError | TimeoutError)
            else "check the folder, its permissions and the disk",
        )


def _buffer_bytes(target: object) -> int:
    """Bytes that the container hands over at once."""
    return target.buffer_bytes if isinstance(target, Connection) else USUAL_BUFFER_BYTES


def _is_gray(pix_fmt: str) -> bool:
    return pix_fmt.startswith(("gray", "ya", "mono"))


def _frame_rate(reader: VideoReader | None, asked: float | Fraction | None) -> Fraction:
    rate = asked or (reader.info.frame_rate if reader else None) or DEFAULT_FRAME_RATE
    if rate <= 0:
        raise ValueError(f"frame_rate must be positive, got {rate}")
    return rate if isinstance(rate, Fraction) else Fraction(rate).limit_denominator(1_000_000)


def _span_of(reader: VideoReader | None) -> Span | None:
    if reader is None or not reader.is_trimmed:
        return None
    return Span(reader.origin, reader.span_end_seconds)
