"""The output's video stream: from frames to packets, with the source's times and colours."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import TypeAlias

import av
from av.container import OutputContainer
from av.stream import Stream
from av.video.stream import VideoStream

from instantvir_models.media import color
from instantvir_models.media.base import VideoReader
from instantvir_models.media.companions import kept_metadata_of
from instantvir_models.media.field_flags import FieldMarker, field_options, says_fields
from instantvir_models.media.frame import Frame
from instantvir_models.media.info import VideoInfo
from instantvir_models.media.limits import (
    CONSTANT_RATE_CODECS,
    CONSTANT_RATE_FORMATS,
    GAPLESS_FORMATS,
    MOV_FORMATS,
    SIDE_DATA_FORMATS,
    TIMECODE_FORMATS,
    keeps_pixel_shape,
)
from instantvir_models.media.palette import Palette
from instantvir_models.media.settings import ResolvedEncoder
from instantvir_models.media.side_data import SideData, give_side_data
from instantvir_models.media.timecode import later_timecode
from instantvir_models.media.timeline import OutputTimeline

logger = logging.getLogger(__name__)

Packets: TypeAlias = "list[av.Packet[VideoStream]]"


NOTICEABLE_SECONDS = Fraction(1, 100)
"""By which a picture may be moved without a word."""


class VideoEncoder:
    """Adds a video stream to a container and encodes frames for it.

    Args:
        container: an output that was not begun yet.
        choice: how to encode.
        width, height: of the frames.
        frame_rate: frames per second, as the container is told.
        info_of: the reader whose times, colours and descriptions the stream takes over.
        is_live: of an input without end.
        is_prompt: give out each packet at once, before it is known how long it is shown.
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
        is_prompt: bool,
    ) -> None:
        self._choice = choice
        self._is_prompt, self._is_live = is_prompt, is_live
        info = info_of.info if info_of else None
        self._tags = _output_tags(info, pix_fmt=choice.pix_fmt, height=height)
        format_name = container.format.name
        is_counted = choice.codec in CONSTANT_RATE_CODECS
        has_constant_rate = format_name in CONSTANT_RATE_FORMATS or is_counted
        if has_constant_rate and info and info.fastest_rate and frame_rate == info.frame_rate:
            frame_rate = info.fastest_rate  # at the average one pictures would leave their places
        time_base = info.time_base if info and not has_constant_rate else 1 / frame_rate
        self._timeline = OutputTimeline(
            time_base,
            span=info_of.span if info_of else None,
            has_constant_rate=has_constant_rate,
            may_begin_late=format_name not in CONSTANT_RATE_FORMATS | GAPLESS_FORMATS,
            is_live=is_live,
        )
        self._repeats = format_name in GAPLESS_FORMATS
        self._fields = (
            FieldMarker(is_top_first=info.is_top_field_first) if info and info.has_fields else None
        )
        self._palette = Palette() if choice.pix_fmt == "pal8" else None

        def new_stream(output: OutputContainer) -> VideoStream:
            return _new_stream(output, choice, width, height, frame_rate, time_base, info)

        self._stream = new_stream(container)
        says_all = not info or _say_side_data(info.side_data, new_stream, self._stream, format_name)
        self._stream.codec_context.pix_fmt = choice.pix_fmt
        _tag(self._stream, self._tags)
        if choice.codec in _HEVC_ENCODERS and format_name in MOV_FORMATS:
            self._stream.codec_context.codec_tag = "hvc1"  # Apple's programs open no `hev1`
        self.losses = _losses(info, choice, format_name, says_all) if info else ()
        """What of the source's pictures the output cannot be given, in words, as far as it is known
        now."""
        if info_of is not None:
            _describe_like(info_of, self._stream, format_name, frame_rate)
        self.num_frames = 0
        """Encoded so far."""
        self._last: av.VideoFrame | None = None
        self._held: Packets = []
        self._adds_up = format_name in MOV_FORMATS
        self._delay: int | None = None
        """From decoding the first packet to showing it."""

    @property
    def moved(self) -> tuple[str, ...]:
        """That pictures are shown noticeably earlier or later than they were, in words."""
        shift, rate = self._timeline.largest_shift_seconds, float(1 / self._timeline.time_base)
        if self._is_live or shift < NOTICEABLE_SECONDS:
            return ()
        return (
            f"when pictures were shown, by up to {float(shift):.2f} s: here come {rate:g} a second",
        )

    def encode(self, frame: Frame) -> Packets:
        """The packets that are ready now, maybe of earlier frames; ValueError for a frame that is
        not later than the one before."""
        pts = self._timeline.stamp(frame)
        ready = [packet for repeat in self._repeated(pts) for packet in repeat]
        picture = self._picture(frame)
        picture.pts, picture.time_base = pts, self._timeline.time_base
        ready += self._stream.encode(picture)
        self._last = picture if self._repeats else None
        self.num_frames += 1
        return self._with_durations(ready)

    def last_packets(self) -> Packets:
        """What the encoder still holds; it takes no frame after that."""
        packets = self._stream.encode(None)
        if self._choice.codec == "libx265" and self.num_frames <= 2:
            # x265 4.2 takes the dts of so short a video from uninitialised memory.
            for packet in packets:
                packet.dts = packet.pts
        packets = self._with_durations(packets, is_end=True)
        if self._adds_up and packets:
            self._close(packets[-1])
        return packets

    def _close(self, last: av.Packet[VideoStream]) -> None:
        """Let the last packet end with the last picture, which may be another one: MP4 says how long
        a video is by the sum of the times between packets."""
        end = self._timeline.end_pts
        if self._delay is None or end is None or last.pts is None or last.dts is None:
            return
        last.dts = max(last.dts, last.pts - self._delay)
        if (rest := end - last.dts - self._delay) > 0:
            last.duration = rest

    @property
    def header(self) -> bytes:
        """What a decoder has to know before the first packet, once there was one."""
        return bytes(self._stream.codec_context.extradata or b"")

    def give(self, packet: av.Packet[Stream]) -> None:
        """Make a packet, encoded elsewhere in the same way, one of this stream."""
        packet.stream = self._stream

    def _picture(self, frame: Frame) -> av.VideoFrame:
        if self._palette is not None:
            return self._palette.picture(frame.pixels, frame.alpha)
        self._note_opacity(frame)
        picture = color.from_rgb(frame.pixels, self._choice.pix_fmt, self._tags, frame.alpha)
        return picture if self._fields is None else self._fields.marked(picture)

    def _note_opacity(self, frame: Frame) -> None:
        """Name the loss of an opacity that begins behind the first picture."""
        loss = _lost_opacity(self._choice)
        if loss and loss not in self.losses and color.is_transparent(frame.alpha):
            logger.warning("not carried over: %s", loss)
            self.losses = (*self.losses, loss)

    def _repeated(self, pts: int) -> Iterator[Packets]:
        """The last picture again, for each place before `pts` that holds none."""
        if self._last is None or self._last.pts is None:
            return
        for missing in range(self._last.pts + 1, pts):
            self._last.pts = missing
            yield self._stream.encode(self._last)

    def _with_durations(self, packets: Packets, *, is_end: bool = False) -> Packets:
        """Packets of which it is known how long they are shown: encoders put in one frame period,
        so the last picture so far waits for the next one, or for the end."""
        ready, self._held = self._held + packets, []
        if self._delay is None and ready and ready[0].dts is not None:
            self._delay = (ready[0].pts or 0) - ready[0].dts
        for packet in ready:
            packet.duration = self._timeline.duration_of(packet.pts, packet.duration)
        if is_end or self._is_prompt or not ready or ready[-1].pts != self._timeline.last_pts:
            return ready
        self._held = [ready.pop()]
        return ready


_HEVC_ENCODERS = frozenset({"libx265", "hevc_nvenc", "hevc_qsv", "hevc_amf", "hevc_vaapi"})


def _output_tags(info: VideoInfo | None, *, pix_fmt: str, height: int) -> color.ColorTags:
    """The source's tags, with the range and matrix filled in that the conversion uses."""
    tags = info.color if info else color.ColorTags()
    if info and not color.is_rgb(pix_fmt):
        used = color.writable(info.conversion, height=height)
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
    info: VideoInfo | None,
) -> VideoStream:
    options = dict(choice.options)
    if choice.codec == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # else it writes pages to standard error
    said: list[tuple[str, str]] = []
    if info is not None and info.hdr is not None:
        said += info.hdr.encoder_options(choice.codec)
    if info is not None and info.has_fields:
        said += field_options(choice.codec, is_top_first=info.is_top_field_first).items()
    for name, value in said:
        options[name] = ":".join(filter(None, (options.get(name), value)))
    if choice.codec == "libvpx-vp9" and choice.pix_fmt.startswith("yuva"):
        options["auto-alt-ref"] = "0"
    stream = container.add_stream(
        choice.codec,
        rate=frame_rate,
        options=options,
        width=width,
        height=height,
        pix_fmt=choice.pix_fmt,
        time_base=time_base,
    )
    assert isinstance(stream, VideoStream)
    stream.time_base = time_base
    if info is not None and info.has_fields:
        stream.codec_context.field_order = 2 if info.is_top_field_first else 3
    elif info is not None:
        stream.codec_context.field_order = 1
    if choice.threads:
        stream.codec_context.thread_count = choice.threads
    return stream


def _tag(stream: VideoStream, tags: color.ColorTags) -> None:
    context = stream.codec_context
    context.color_range, context.colorspace = tags.range, tags.matrix
    context.color_trc, context.color_primaries = tags.transfer, tags.primaries


def _say_side_data(
    data: SideData,
    new_stream: Callable[[OutputContainer], VideoStream],
    target: VideoStream,
    format_name: str,
) -> bool:
    """Let the container say what the source says; False where it cannot."""
    if not data:
        return True
    if format_name not in SIDE_DATA_FORMATS:
        return False
    with av.open(io.BytesIO(), "w", format=format_name) as nobodys:
        return give_side_data(target, new_stream(nobodys), data)


_PROJECTIONS = {
    "spherical": "that the video is spherical",
    "stereo_3d": "that the video is stereo",
}


def _losses(
    info: VideoInfo, choice: ResolvedEncoder, format_name: str, says_all: bool
) -> tuple[str, ...]:
    """What of the source's pictures this encoder and container cannot be given, in words."""
    losses = list(info.unwritable)
    if info.is_transparent and (loss := _lost_opacity(choice)):
        losses.append(loss)
    aspect = info.sample_aspect_ratio
    if aspect and aspect != 1 and not keeps_pixel_shape(format_name, choice.codec):
        losses.append(f"the pixel shape {aspect}, which {choice.codec} cannot carry here")
    if info.hdr is not None and not says_all and not info.hdr.encoder_options(choice.codec):
        losses.append(f"HDR10 metadata, which {choice.codec} in {format_name} cannot say")
    if not says_all:
        said = dict(info.side_data)
        losses += [words for kind, words in _PROJECTIONS.items() if kind in said]
    if info.has_fields and not says_fields(choice.codec) and format_name not in MOV_FORMATS:
        losses.append(f"that the video is interlaced, which {choice.codec} cannot say")
    if info.timecode and format_name not in TIMECODE_FORMATS:
        losses.append(f"the timecode {info.timecode}, which {format_name} cannot hold")
    return tuple(losses)


def _lost_opacity(choice: ResolvedEncoder) -> str | None:
    """The loss in words; None where the encoder's format holds it, as a palette does in part."""
    if color.has_alpha(choice.pix_fmt) or choice.pix_fmt == "pal8":
        return None
    return f"the transparency (alpha), which {choice.codec} {choice.pix_fmt} cannot hold"


def _describe_like(
    reader: VideoReader, stream: VideoStream, format_name: str, frame_rate: Fraction
) -> None:
    """Pixel shape, metadata, timecode and disposition of the reader's video."""
    aspect = reader.info.sample_aspect_ratio
    if aspect:
        stream.codec_context.sample_aspect_ratio = aspect
    if reader.demuxer is None:
        return
    video = reader.demuxer.video
    stream.metadata.update(kept_metadata_of(video, format_name))
    stream.disposition = video.disposition
    if reader.info.timecode and format_name in TIMECODE_FORMATS:
        skipped = reader.span.begin_seconds - reader.demuxer.first_seconds if reader.span else 0
        timecode = later_timecode(reader.info.timecode, round(skipped * frame_rate), frame_rate)
        if timecode is not None:
            stream.metadata["timecode"] = timecode
