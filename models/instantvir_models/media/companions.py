"""Audio, subtitles, chapters and metadata that travel with a restored video, unchanged."""

from __future__ import annotations

import io
import logging
import re
import struct
from collections.abc import Callable, Iterable
from fractions import Fraction

import av
from av.container import InputContainer, OutputContainer
from av.stream import Stream

from instantvir_models.media.demux import Demuxer
from instantvir_models.media.limits import TEXT_SUBTITLE_OF_FORMAT
from instantvir_models.media.packets import CompanionPacket
from instantvir_models.media.timeline import Span

logger = logging.getLogger(__name__)

# Facts about the source's container and coding that would be false in the output.
_STALE_METADATA = re.compile(
    r"(?i)encoder|duration|major_brand|minor_version|compatible_brands|rotate|vendor_id|software"
    r"|bps|number_of_(frames|bytes)|_statistics.*"
)
_PLAIN_TEXT_SUBTITLES = {
    "subrip": "text",
    "text": "text",
    "webvtt": "text",
    "ass": "ass",
    "mov_text": "mov",
}


def kept_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """The metadata without what describes the source's coding."""
    return {key: value for key, value in metadata.items() if not _STALE_METADATA.fullmatch(key)}


class Companions:
    """Copies the packets that a `Demuxer` set aside into an output container.

    With a `span`, packets outside it are left out and times are counted from its beginning. With
    `probe` each stream is first tried alone: some containers accept a codec and then refuse it.
    """

    def __init__(
        self, demuxer: Demuxer, output: OutputContainer, span: Span | None, *, probe: bool = False
    ) -> None:
        self._demuxer = demuxer
        self._output = output
        self._span = span
        self._probe = probe
        self._targets: dict[int, Stream] = {}
        self._rewrite: dict[int, Callable[[bytes], bytes]] = {}
        self._has_refused = False
        if demuxer.waiting.has_lost_some:
            logger.warning(
                "the writer came too late for the audio and subtitles; part of them is lost"
            )
        self._indices = [stream.index for stream in demuxer.others]
        for stream in demuxer.others:
            self._add(stream)

    def write_waiting(self) -> None:
        """Mux every packet that the reader has passed so far."""
        for packet in self._demuxer.waiting.drain():
            target = self._targets.get(packet.stream_index)
            if target is not None and self._is_wanted(packet):
                self._mux(self._moved(packet, target))

    def write(self, packets: Iterable[CompanionPacket]) -> None:
        """Mux packets that were taken from the demuxer by someone else."""
        for packet in packets:
            # Not by the demuxer's streams: its container may be closed by now.
            if packet.position >= len(self._indices):
                continue
            index = self._indices[packet.position]
            target = self._targets.get(index)
            if target is not None:
                self._mux(self._rebuilt(packet, target, self._rewrite.get(index)))

    def _mux(self, packet: av.Packet[Stream]) -> None:
        """Hand over a packet; one too damaged for the container costs itself, not the output."""
        try:
            self._output.mux(packet)
        except av.error.InvalidDataError:
            if not self._has_refused:
                logger.warning("damaged packets of sound or subtitles are left out")
            self._has_refused = True

    @staticmethod
    def _rebuilt(
        packet: CompanionPacket, target: Stream, rewrite: Callable[[bytes], bytes] | None
    ) -> av.Packet[Stream]:
        rebuilt = av.Packet(rewrite(packet.data) if rewrite else packet.data)
        rebuilt.pts, rebuilt.dts, rebuilt.duration = packet.pts, packet.dts, packet.duration
        rebuilt.time_base, rebuilt.is_keyframe = packet.time_base, packet.is_keyframe
        rebuilt.stream = target
        return rebuilt

    def _add(self, stream: Stream) -> None:
        codec = stream.codec_context.codec.canonical_name if stream.codec_context else "unknown"
        try:
            if self._probe:
                _try_alone(stream, self._output.format.name)
            target = self._output.add_stream_from_template(stream)
        except (ValueError, av.FFmpegError):
            converted = self._add_converted_text(stream, codec)
            if converted is None:
                logger.warning(
                    "%s cannot hold the %s stream (%s), which is left out",
                    self._output.format.name,
                    stream.type,
                    codec,
                )
                return
            target = converted
        target.metadata.update(kept_metadata(dict(stream.metadata)))
        target.disposition = stream.disposition
        self._targets[stream.index] = target

    def _add_converted_text(self, stream: Stream, codec: str) -> Stream | None:
        """A stream of the container's own text subtitles, if both sides are plain text."""
        target_codec = TEXT_SUBTITLE_OF_FORMAT.get(self._output.format.name)
        source_kind = _PLAIN_TEXT_SUBTITLES.get(codec)
        if target_codec is None or source_kind is None:
            return None
        try:
            target = self._output.add_mux_stream(target_codec)
        except (ValueError, av.FFmpegError):
            return None
        target.time_base = stream.time_base
        is_mov = target_codec == "mov_text"
        self._rewrite[stream.index] = lambda data: _write_text(
            _read_text(data, source_kind), is_mov
        )
        logger.info("%s subtitles become %s", codec, target_codec)
        return target

    def _is_wanted(self, packet: av.Packet[Stream]) -> bool:
        if self._span is None:
            return True
        time = packet.pts if packet.pts is not None else packet.dts
        return time is not None and self._span.holds(time * Fraction(packet.time_base or 1))

    def _moved(self, packet: av.Packet[Stream], target: Stream) -> av.Packet[Stream]:
        time_base = Fraction(packet.time_base or 1)
        rewrite = self._rewrite.get(packet.stream_index)
        if rewrite is not None:
            copy = av.Packet(rewrite(bytes(packet)))
            copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
            copy.time_base = time_base
            packet = copy
        if self._span is not None:
            shift = round(self._span.begin_seconds / time_base)
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts = None if packet.dts is None else packet.dts - shift
        packet.stream = target
        return packet


def copy_description(source: InputContainer, output: OutputContainer, span: Span | None) -> None:
    """Container metadata and chapters (cut to the span)."""
    output.metadata.update(kept_metadata(dict(source.metadata)))
    chapters = []
    for chapter in source.chapters():
        if span is not None:
            time_base = Fraction(chapter["time_base"] or 1)
            begin = round(span.begin_seconds / time_base)
            end = None if span.end_seconds is None else round(span.end_seconds / time_base)
            start = max(chapter["start"], begin)
            stop = chapter["end"] if end is None else min(chapter["end"], end)
            if stop <= start:
                continue
            chapter = {**chapter, "start": start - begin, "end": stop - begin}
        chapters.append(chapter)
    if chapters:
        output.set_chapters(chapters)


def _try_alone(stream: Stream, format_name: str) -> None:
    """ValueError or FFmpegError if a container of this format cannot begin with this stream."""
    with av.open(io.BytesIO(), "w", format=format_name) as container:
        container.add_stream_from_template(stream)
        container.start_encoding()


def _read_text(data: bytes, kind: str) -> str:
    if kind == "mov":
        length = int.from_bytes(data[:2], "big")
        return data[2 : 2 + length].decode("utf-8", "replace")
    text = data.decode("utf-8", "replace")
    if kind == "ass":  # ReadOrder,Layer,Style,Name,MarginL,MarginR,MarginV,Effect,Text
        text = re.sub(r"\{[^}]*\}", "", text.split(",", 8)[-1]).replace("\\N", "\n")
    return re.sub(r"</?[a-zA-Z][^>]*>", "", text)


def _write_text(text: str, is_mov: bool) -> bytes:
    encoded = text.encode()
    return struct.pack(">H", min(len(encoded), 65535)) + encoded[:65535] if is_mov else encoded
