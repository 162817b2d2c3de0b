"""The output's video stream: from frames to packets, with the source's times and colours."""

from __future__ import annotations

import logging
from dataclasses import replace
from fractions import Fraction

import av
from av.container import OutputContainer
from av.video.stream import VideoStream

from instantvir_models.media import color
from instantvir_models.media.base import VideoReader
from instantvir_models.media.companions import kept_metadata
from instantvir_models.media.frame import Frame
from instantvir_models.media.info import VideoInfo
from instantvir_models.media.limits import CONSTANT_RATE_FORMATS, keeps_pixel_shape
from instantvir_models.media.settings import ResolvedEncoder
from instantvir_models.media.timeline import OutputTimeline

logger = logging.getLogger(__name__)


class VideoEncoder:
    """Adds a video stream to a container and encodes frames for it.

    Args:
        container: an output that was not begun yet.
        choice: how to encode.
        width, height: of the frames.
        frame_rate: frames per second, as the container is told.
        info_of: the reader whose times, colours and descriptions the stream takes over.
        is_live: of an input without end.
    """

    def __init__(
        self,
        container: OutputContainer,
        choice: ResolvedEncoder,
        *,
        width: int,
        height: int,
        frame_rate: Fraction,
        info_of: VideoReader | None,
        is_live: bool,
    ) -> None:
        self._choice = choice
        info = info_of.info if info_of else None
        self._tags = _output_tags(info, pix_fmt=choice.pix_fmt, height=height)
        has_constant_rate = container.format.name in CONSTANT_RATE_FORMATS
        time_base = info.time_base if info and not has_constant_rate else 1 / frame_rate
        self._timeline = OutputTimeline(
            time_base,
            span=info_of.span if info_of else None,
            has_constant_rate=has_constant_rate,
            is_live=is_live,
        )
        self._stream = _new_stream(container, choice, width, height, frame_rate, time_base)
        _tag(self._stream, self._tags)
        if info_of is not None:
            _describe_like(info_of, self._stream, container.format.name, choice.codec)
        self.num_frames = 0
        """Encoded so far."""

    def encode(self, frame: Frame) -> list[av.Packet[VideoStream]]:
        """The packets that are ready now, maybe of earlier frames; ValueError for a frame that is
        not later than the one before."""
        picture = color.from_rgb(frame.pixels, self._choice.pix_fmt, self._tags)
        picture.pts, picture.time_base = self._timeline.stamp(frame), self._timeline.time_base
        packets = self._stream.encode(picture)
        self.num_frames += 1
        return self._with_durations(packets)

    def last_packets(self) -> list[av.Packet[VideoStream]]:
        """What the encoder still holds; it takes no frame after that."""
        packets = self._stream.encode(None)
        if self._choice.codec == "libx265" and self.num_frames <= 2:
            # x265 4.2 takes the dts of so short a video from uninitialised memory.
            for packet in packets:
                packet.dts = packet.pts
        return self._with_durations(packets)

    def _with_durations(
        self, packets: list[av.Packet[VideoStream]]
    ) -> list[av.Packet[VideoStream]]:
        for packet in packets:
            # Encoders put in one frame period: wrong for the last frame of a variable rate.
            packet.duration = self._timeline.take_duration(packet.pts, packet.duration)
        return packets


def _output_tags(info: VideoInfo | None, *, pix_fmt: str, height: int) -> color.ColorTags:
    """The source's tags, with the range and matrix filled in that the conversion uses."""
    tags = info.color if info else color.ColorTags()
    if info and not color.is_rgb(pix_fmt):
        used = info.conversion
        if used.matrix != color.MATRIX_RGB and not color.is_gray(info.pix_fmt):
            tags = replace(tags, range=used.range, matrix=used.matrix)
        else:
            tags = replace(tags, range=color.RANGE_LIMITED, matrix=color.MATRIX_UNSPECIFIED)
    if color.is_gray(pix_fmt):
        tags = replace(tags, range=color.RANGE_FULL)
    return color.resolved(tags, pix_fmt=pix_fmt, height=height)


def _new_stream(
    container: OutputContainer,
    choice: ResolvedEncoder,
    width: int,
    height: int,
    frame_rate: Fraction,
    time_base: Fraction,
) -> VideoStream:
    stream = container.add_stream(
        choice.codec,
        rate=frame_rate,
        options=dict(choice.options),
        width=width,
        height=height,
        pix_fmt=choice.pix_fmt,
        time_base=time_base,
    )
    assert isinstance(stream, VideoStream)
    stream.time_base = time_base
    if choice.threads:
        stream.codec_context.thread_count = choice.threads
    return stream


def _tag(stream: VideoStream, tags: color.ColorTags) -> None:
    context = stream.codec_context
    context.color_range, context.colorspace = tags.range, tags.matrix
    context.color_trc, context.color_primaries = tags.transfer, tags.primaries


def _describe_like(reader: VideoReader, stream: VideoStream, format_name: str, codec: str) -> None:
    """Pixel shape, metadata and disposition of the reader's video."""
    aspect = reader.info.sample_aspect_ratio
    if aspect and aspect != 1:
        stream.codec_context.sample_aspect_ratio = aspect
        if not keeps_pixel_shape(format_name, codec):
            logger.warning("the pixel shape %s is lost: %s cannot carry it here", aspect, codec)
    if reader.demuxer is not None:
        video = reader.demuxer.video
        stream.metadata.update(kept_metadata(dict(video.metadata)))
        stream.disposition = video.disposition
