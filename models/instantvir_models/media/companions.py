"""What travels with a restored video: copied, else converted, else named as a loss."""

from __future__ import annotations

import errno
import io
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
from av.audio.codeccontext import AudioCodecContext
from av.container import InputContainer, OutputContainer
from av.stream import Disposition, Stream

from instantvir_models.media.demux import Demuxer
from instantvir_models.media.limits import (
    CHAPTER_FORMATS,
    MOV_FORMATS,
    NO_LANGUAGE_FORMATS,
    TAGS_OF_FORMAT,
    TEXT_SUBTITLE_OF_FORMAT,
    VIDEO_FIRST_FORMATS,
    Holds,
    holds,
    lost_marks,
)
from instantvir_models.media.packets import CompanionPacket, is_hidden
from instantvir_models.media.programme import service_tags
from instantvir_models.media.sound import SoundConverter, add_sound, is_lossless, layouts_for
from instantvir_models.media.subtitles import text_rewriter
from instantvir_models.media.timeline import RisingTimes, Span

logger = logging.getLogger(__name__)

# Facts about the source's container and coding that would be false in the output.
_STALE_METADATA = re.compile(
    r"(?i)encoder|duration|major_brand|minor_version|compatible_brands|rotate|vendor_id|software"
    r"|bps|number_of_(frames|bytes)|_statistics.*|timecode|alpha_mode|com\.apple\.quicktime\.software"
    r"|.*_umid|.*_ul|uid|generation_uid|product_.*|company_name|application_platform"
    r"|toolkit_version_num|metadatacreator|hasaudio|hasvideo|hasmetadata|canseektoend|datasize"
)
_NO_NAME = re.compile(
    r"(?i)(core media )?(video|sound|audio|subtitle|data|text)( media )?handler|\0*"
)
"""What muxers call a track that has no name."""
_PLAIN_NAME = {
    "com.apple.quicktime.make": "make",
    "com.apple.quicktime.model": "model",
    "com.apple.quicktime.location.iso6709": "location",
    "com.apple.quicktime.creationdate": "date",
}
"""What containers other than QuickTime call the same."""

_COVER_OF_MIMETYPE = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}
_REFUSALS = (ValueError, av.FFmpegError)
_OF_THE_SYSTEM = frozenset(errno.errorcode) - {errno.EINVAL}
"""What is no fault of a packet, such as a full disk."""


def kept_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """The metadata without what describes the source's coding, under names that others know."""
    kept = {key: value for key, value in metadata.items() if not _STALE_METADATA.fullmatch(key)}
    for key, value in metadata.items():
        plain = _PLAIN_NAME.get(key.lower())
        if plain is not None:
            kept.setdefault(plain, value)
    return kept


def kept_metadata_of(stream: Stream, format_name: str) -> dict[str, str]:
    """The same of a stream, whose name MP4 and QuickTime keep where others keep a title."""
    kept = kept_metadata(dict(stream.metadata))
    names = [kept.pop(key) for key in list(kept) if key.lower() == "handler_name"]
    title = kept.get("title") or next((n for n in names if not _NO_NAME.fullmatch(n)), None)
    if title is not None:
        kept["handler_name" if format_name in MOV_FORMATS else "title"] = title
    return kept


def _adding_sound(
    encoder: str, like: AudioCodecContext, layout: str, held: Holds
) -> Callable[[OutputContainer], Stream]:
    return lambda output: add_sound(output, encoder, like, layout, held.sample_rates)


def _marks_of(stream: Stream) -> list[str]:
    said = stream.disposition
    return [mark.name for mark in Disposition if mark in said and mark.name]


def _sample_rate(stream: Stream) -> int:
    context = stream.codec_context
    return context.sample_rate if isinstance(context, AudioCodecContext) else 0


def _count_finely(packet: av.Packet[Stream], tick_seconds: Fraction) -> None:
    """Count the times of a packet in ticks, where its own are coarser: packets of TrueHD are shorter
    than the millisecond of Matroska, and would be pushed apart by it."""
    if packet.time_base is None or packet.time_base <= tick_seconds:
        return
    ticks = packet.time_base / tick_seconds
    packet.pts = None if packet.pts is None else round(packet.pts * ticks)
    packet.dts = None if packet.dts is None else round(packet.dts * ticks)
    packet.duration = round((packet.duration or 0) * ticks)
    packet.time_base = tick_seconds


def _num_channels(stream: Stream) -> int:
    context = stream.codec_context
    return context.layout.nb_channels if isinstance(context, AudioCodecContext) else 0


class _Track(Protocol):
    """Turns packets of one stream into those of the output's."""

    def packets(self, packet: av.Packet[Stream] | None) -> list[av.Packet[Stream]]:
        """What is ready after this packet; with None, all that is left."""


@dataclass(frozen=True)
class _Copied:
    """The packets as they are, or each with other data."""

    target: Stream
    rewrite: Callable[[bytes], bytes] | None = None

    def packets(self, packet: av.Packet[Stream] | None) -> list[av.Packet[Stream]]:
        if packet is None:
            return []
        if self.rewrite is not None:
            copy = av.Packet(self.rewrite(bytes(packet)))
            copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
            copy.time_base = Fraction(packet.time_base or 1)
            packet = copy
        packet.stream = self.target
        return [packet]


class Companions:
    """Carries what a `Demuxer` set aside into an output container that was not begun yet.

    With a `span`, packets outside it are left out and times are counted from its beginning.

    Args:
        is_live: several outputs may take the same packets.
    """

    def __init__(
        self, demuxer: Demuxer, output: OutputContainer, span: Span | None, *, is_live: bool
    ) -> None:
        self._demuxer, self._output, self._span = demuxer, output, span
        self._is_live = is_live
        self._holds = holds(output.format.name)
        self._can_hide = output.format.name in MOV_FORMATS
        self._tracks: dict[int, _Track] = {}
        self._rising: dict[int, RisingTimes] = {}
        self._sample_seconds: dict[int, Fraction] = {}
        self._last_sound: dict[int, tuple[int | None, bytes]] = {}
        self._shown_at_the_start: dict[int, av.Packet[Stream]] = {}
        """The last subtitle of each stream that was there before the span."""
        self._covers: list[tuple[Stream, bytes]] = []
        self._has_refused = False
        self.losses: list[str] = []
        """What is not carried over, in words, as far as it is known now."""
        self._sound_given: Counter[int] = Counter()
        self._sound_made: Counter[int] = Counter()
        if demuxer.waiting.has_lost_some:
            self._lose("part of the sound and subtitles: the writer came too late for them")
        self._indices = [stream.index for stream in demuxer.others]
        for stream in demuxer.others:
            self._add(stream)
        self._add_attached()

    def write_covers(self) -> None:
        """Mux pictures that are no attachments, once the container was begun."""
        for target, data in self._covers:
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.is_keyframe = target, 0, 0, True
            packet.time_base = target.time_base or Fraction(1, 90_000)
            self._mux(packet)

    def write_waiting(self) -> None:
        """Mux every packet that the reader has passed so far."""
        for packet in self._demuxer.waiting.drain():
            self.take(packet)

    def take(self, packet: av.Packet[Stream]) -> None:
        """Mux a packet as the demuxer read it, or one that reads the same file; others than those
        that are carried may come, too."""
        index = packet.stream_index
        if index not in self._indices:
            return
        if self._may_last_until_the_start(packet):
            self._shown_at_the_start[index] = packet
            return
        if not self._is_wanted(packet):
            return
        if packet.stream.type == "audio":
            self._sound_given[index] += 1
        if index in self._tracks:
            self._carry_what_is_shown_at_the_start(index)
            self._carry(index, self._moved(packet))

    @property
    def has_tracks(self) -> bool:
        """Whether packets are to come."""
        return bool(self._indices)

    def write(self, packets: Iterable[CompanionPacket]) -> None:
        """Mux packets that were taken from the demuxer by someone else."""
        for packet in packets:
            # Not by the demuxer's streams: its container may be closed by now.
            if packet.position >= len(self._indices):
                continue
            index = self._indices[packet.position]
            if index in self._tracks:
                self._carry(index, _rebuilt(packet))

    @property
    def is_silent(self) -> bool:
        """Whether there was sound, and none of it is carried over."""
        return bool(self._sound_given) and not self._sound_made

    def finish(self) -> None:
        """Mux what converters still hold."""
        for index, track in self._tracks.items():
            self._carry_what_is_shown_at_the_start(index)
            self._mux_all(index, track.packets(None))
            if self._sound_given[index] and not self._sound_made[index]:
                self._lose(f"the audio stream {index}, of which nothing could be decoded")

    def _carry(self, index: int, packet: av.Packet[Stream]) -> None:
        usual = self._usual_duration(index, packet)
        if self._is_repeated(index, packet):
            return
        if self._can_hide and not packet.duration:
            packet.duration = usual  # a last packet of no length would be hidden
        if index in self._sample_seconds:
            _count_finely(packet, self._sample_seconds[index])
        if index in self._rising:
            packet.pts, packet.dts = self._rising[index].place(packet.pts, packet.dts)
        self._mux_all(index, self._tracks[index].packets(packet))

    def _mux_all(self, index: int, packets: list[av.Packet[Stream]]) -> None:
        if index in self._last_sound and packets:
            self._sound_made[index] += len(packets)
        for made in packets:
            self._mux(made)

    def _usual_duration(self, index: int, packet: av.Packet[Stream]) -> int:
        """How long the packet of sound before this one was; 0 where nothing tells it."""
        before, _ = self._last_sound.get(index, (None, b""))
        return 0 if before is None or packet.pts is None else max(0, packet.pts - before)

    def _is_repeated(self, index: int, packet: av.Packet[Stream]) -> bool:
        """Whether a packet of sound came twice, as broadcast recordings have it."""
        if index not in self._last_sound:
            return False
        this = (packet.pts if packet.pts is not None else packet.dts, bytes(packet))
        is_repeated = this[0] is not None and this == self._last_sound[index]
        self._last_sound[index] = this
        return is_repeated

    def _mux(self, packet: av.Packet[Stream]) -> None:
        """Hand over a packet; one too damaged for the container costs itself, not the output."""
        try:
            self._output.mux(packet)
        except av.FFmpegError as error:
            if error.errno in _OF_THE_SYSTEM:
                raise
            if not self._has_refused:
                self._lose("damaged packets of sound or subtitles")
            self._has_refused = True

    def _lose(self, description: str) -> None:
        logger.warning("not carried over: %s", description)
        self.losses.append(description)

    def _add(self, stream: Stream) -> None:
        codec = codec_of(stream)
        carried = self._copied(stream, codec) or self._converted(stream, codec)
        if carried is None:
            self._lose(f"the {described(stream)}, which {self._output.format.name} cannot hold")
            return
        if stream.language not in (None, "und") and self._output.format.name in NO_LANGUAGE_FORMATS:
            self._lose(f"the language of {described(stream)}")
        if marks := lost_marks(self._output.format.name, _marks_of(stream)):
            self._lose(f"that the {described(stream)} is marked {', '.join(marks)}")
        track, target = carried
        target.metadata.update(kept_metadata_of(stream, self._output.format.name))
        target.disposition = stream.disposition
        self._tracks[stream.index] = track
        is_copied = isinstance(track, _Copied)
        if stream.type != "video":  # whose packets are in another order than they are shown in
            self._rising[stream.index] = RisingTimes(may_repeat=not is_copied)
        if stream.type == "audio":
            self._last_sound[stream.index] = (None, b"")
            if is_copied and (rate := _sample_rate(stream)):
                self._sample_seconds[stream.index] = Fraction(1, rate)

    def _copied(self, stream: Stream, codec: str) -> tuple[_Track, Stream] | None:
        if stream.type == "audio" and not self._holds.has_sound(codec):
            return None
        texts = self._holds.subtitles
        if stream.type == "subtitle" and texts is not None and codec not in texts:
            return None
        source_format = self._demuxer.container.format.name
        if (source_format, codec) in self._holds.wrong_pace_from:
            return None
        if stream.type == "video" and self._span is not None:
            return None  # it would have to begin at a keyframe
        target = self._added(lambda output: output.add_stream_from_template(stream, opaque=True))
        return None if target is None else (_Copied(target), target)

    def _converted(self, stream: Stream, codec: str) -> tuple[_Track, Stream] | None:
        if stream.type == "audio":
            return self._converted_sound(stream, codec)
        if stream.type == "subtitle":
            return self._converted_text(codec)
        return None

    def _converted_sound(self, stream: Stream, codec: str) -> tuple[_Track, Stream] | None:
        context = stream.codec_context
        if not isinstance(context, AudioCodecContext):
            return None
        target = next(
            (
                added
                for layout in layouts_for(context)
                for encoder in self._holds.sound_encoders(is_lossless=is_lossless(codec))
                if (added := self._added(_adding_sound(encoder, context, layout, self._holds)))
            ),
            None,
        )
        if target is None:
            return None
        self._tell_conversion(stream, codec, target)
        converter = SoundConverter(stream, target, shares_decoder=self._is_live)  # type: ignore[arg-type]
        return converter, target

    def _tell_conversion(self, stream: Stream, codec: str, target: Stream) -> None:
        held = "it as it is" if codec_of(target) == codec else codec
        logger.warning("the sound becomes %s: %s cannot hold %s", codec_of(target),
                       self._output.format.name, held)  # fmt: skip
        before, after = _num_channels(stream), _num_channels(target)
        if after < before:
            self._lose(
                f"{before - after} of the {before} channels of the {described(stream)}, "
                f"which are mixed into {after}"
            )

    def _converted_text(self, codec: str) -> tuple[_Track, Stream] | None:
        """A stream of the container's own text subtitles, if both sides are plain text."""
        target_codec = TEXT_SUBTITLE_OF_FORMAT.get(self._output.format.name)
        rewrite = text_rewriter(codec, target_codec) if target_codec else None
        if target_codec is None or rewrite is None:
            return None
        target = self._added(lambda output: output.add_mux_stream(target_codec))
        if target is None:
            return None
        target.time_base = Fraction(1, 1000)
        logger.info("%s subtitles become %s", codec, target_codec)
        return _Copied(target, rewrite), target

    def _added(self, add: Callable[[OutputContainer], Stream]) -> Stream | None:
        """The stream that `add` makes in the output; None if the container refuses it, which some
        say only when they begin: so it is tried alone first."""
        try:
            _try_alone(add, self._output.format)
            return add(self._output)
        except _REFUSALS as error:
            logger.debug("%s refuses a stream: %s", self._output.format.name, error)
            return None

    def _add_attached(self) -> None:
        for stream, data in self._demuxer.attached.covers:
            self._add_cover(stream, data)
        for attachment in self._demuxer.attached.attachments:
            name = attachment.metadata.get("filename", "attachment")
            if self._holds.has_attachments and self._output.format.name == "matroska":
                mimetype = attachment.metadata.get("mimetype", "application/octet-stream")
                self._output.add_attachment(name, mimetype, attachment.data)
            else:
                self._lose(f"the attachment `{name}`, which {self._output.format.name} cannot hold")

    def _add_cover(self, stream: Stream, data: bytes) -> None:
        codec = codec_of(stream)
        named = _COVER_OF_MIMETYPE.get(codec)
        if self._holds.has_attachments and named:
            name = stream.metadata.get("filename", named[0])
            self._output.add_attachment(name, named[1], data)
            return
        target = None
        if self._holds.has_covers:
            target = self._added(
                lambda output: output.add_stream_from_template(stream, opaque=True)
            )
        if target is None:
            self._lose(f"the cover picture ({codec}), which {self._output.format.name} cannot hold")
            return
        target.metadata.update(kept_metadata(dict(stream.metadata)))
        target.disposition = Disposition.attached_pic
        self._covers.append((target, data))

    def _may_last_until_the_start(self, packet: av.Packet[Stream]) -> bool:
        """Whether it is a subtitle from before the span that lasts until the next one, as those that
        are pictures do."""
        if self._span is None or packet.stream.type != "subtitle" or packet.duration:
            return False
        seconds = None if packet.pts is None else packet.pts * Fraction(packet.time_base or 1)
        return seconds is not None and seconds < self._span.begin_seconds

    def _carry_what_is_shown_at_the_start(self, index: int) -> None:
        packet = self._shown_at_the_start.pop(index, None)
        if packet is not None:
            self._carry(index, self._moved(packet))

    def _is_wanted(self, packet: av.Packet[Stream]) -> bool:
        if self._span is None:
            return self._can_hide or not is_hidden(packet)
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None:
            return False
        time_base = Fraction(packet.time_base or 1)
        if packet.stream.type == "subtitle":
            return self._span.touches(time * time_base, (time + (packet.duration or 0)) * time_base)
        return self._span.holds(time * time_base)

    def _moved(self, packet: av.Packet[Stream]) -> av.Packet[Stream]:
        """The packet with the times of the output; one that began before the span begins with it."""
        if self._span is None:
            return packet
        shift = round(self._span.begin_seconds / Fraction(packet.time_base or 1))
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.dts = None if packet.dts is None else packet.dts - shift
        if packet.stream.type == "subtitle" and packet.pts is not None and packet.pts < 0:
            packet.duration = max(0, (packet.duration or 0) + packet.pts)
            packet.pts = packet.dts = 0
        return packet


def copy_description(
    demuxer: Demuxer, output: OutputContainer, span: Span | None
) -> tuple[str, ...]:
    """What is lost, in words, of container metadata and chapters, which the output gets in its own
    time and cut to the span."""
    source = demuxer.container
    kept = kept_metadata({**_service_of(source), **source.metadata})
    output.metadata.update(kept)
    chapters = [
        moved
        for chapter in source.chapters()
        if (moved := _moved_chapter(chapter, demuxer.clock.origin_seconds, span)) is not None
    ]
    if chapters:
        output.set_chapters(chapters)  # type: ignore[arg-type]
    lost = [f"the {_listed(names)}"] if (names := _lost_tags(kept, output.format.name)) else []
    if chapters and output.format.name not in CHAPTER_FORMATS:
        lost.append("the chapters")
    return tuple(f"{words}, which {output.format.name} cannot hold" for words in lost)


def _service_of(source: InputContainer) -> dict[str, str]:
    path = Path(source.name.removeprefix("file:"))
    return service_tags(path) if source.format.name == "mpegts" and path.is_file() else {}


def _lost_tags(kept: dict[str, str], format_name: str) -> list[str]:
    held = TAGS_OF_FORMAT.get(format_name)
    names = {key.lower().partition("-")[0] for key, value in kept.items() if value}
    names -= _PLAIN_NAME.keys()  # they are there by their other name
    return [] if held is None else sorted(names - held)


def _listed(names: list[str]) -> str:
    shown = [f"`{name}`" for name in names[:6]]
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return f"{'tag' if len(names) == 1 else 'tags'} {', '.join(shown)}{more}"


def can_hold_sound(container: OutputContainer) -> bool:
    """Whether containers of this format have sound at all."""
    return container.default_audio_codec not in ("", "none")


def codec_of(stream: Stream) -> str:
    """The name of the format (`aac`), not of the decoder that was picked."""
    context = stream.codec_context
    if context is not None:
        return context.codec.canonical_name
    return getattr(stream, "name", None) or "unknown"


def described(stream: Stream) -> str:
    """`audio stream 2 (aac, deu)`: a stream as messages call it."""
    words = [codec_of(stream)]
    if stream.language and stream.language != "und":
        words.append(stream.language)
    return f"{stream.type} stream {stream.index} ({', '.join(words)})"


def _moved_chapter(
    chapter: Any, origin_seconds: Fraction, span: Span | None
) -> dict[str, Any] | None:
    """The chapter in the time of the output; None if the span holds nothing of it."""
    time_base = Fraction(chapter["time_base"] or 1)
    begin_seconds = origin_seconds + (span.begin_seconds if span else 0)
    begin = round(begin_seconds / time_base)
    start, stop = max(chapter["start"], begin), chapter["end"]
    if span is not None and span.end_seconds is not None:
        stop = min(stop, round((origin_seconds + span.end_seconds) / time_base))
    if stop <= start and span is not None:
        return None
    return {**chapter, "start": start - begin, "end": max(start, stop) - begin}


def _rebuilt(packet: CompanionPacket) -> av.Packet[Stream]:
    rebuilt = av.Packet(packet.data)
    rebuilt.pts, rebuilt.dts, rebuilt.duration = packet.pts, packet.dts, packet.duration
    rebuilt.time_base, rebuilt.is_keyframe = packet.time_base, packet.is_keyframe
    return rebuilt


def _try_alone(
    add: Callable[[OutputContainer], Stream], container_format: av.ContainerFormat
) -> None:
    """ValueError or FFmpegError if a container of this format cannot begin with such a stream."""
    if container_format.no_file:
        return
    container = av.open(io.BytesIO(), "w", format=container_format.name)
    try:
        if container_format.name in VIDEO_FIRST_FORMATS:
            _add_a_video(container)
        add(container)
        container.start_encoding()
    finally:
        with suppress(av.FFmpegError):  # some cannot end without a packet
            container.close()


def _add_a_video(container: OutputContainer) -> None:
    codec = "dvvideo" if container.format.name == "dv" else "mpeg2video"
    stream = container.add_stream(codec, rate=25, width=720, height=576)
    assert isinstance(stream, av.VideoStream)
    stream.codec_context.pix_fmt = "yuv420p"
