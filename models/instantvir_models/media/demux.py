"""From a container to decoded video frames, with the other streams' packets set aside."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Stream
from av.video.stream import VideoStream

from instantvir_models.errors import VideoOpenError
from instantvir_models.media.attached import NOTHING_ATTACHED, Attached, is_cover
from instantvir_models.media.check_sums import PartCheckSums, PictureHashes, SliceCheckSums
from instantvir_models.media.coding import CodingNotes
from instantvir_models.media.damage import Account
from instantvir_models.media.expected import ExpectedPictures
from instantvir_models.media.limits import (
    DECODING_TIMES_ONLY,
    STANDING_CLOCK_FORMATS,
    clock_may_jump,
)
from instantvir_models.media.mended import Mending
from instantvir_models.media.packets import CompanionPacket, PacketQueue, is_hidden
from instantvir_models.media.reach import USUAL_RULES
from instantvir_models.media.sequence_heads import SequenceHeads
from instantvir_models.media.sound import SoundCheck
from instantvir_models.media.timeline import DecodingTimes, SourceClock, StandingTimes, Trim

logger = logging.getLogger(__name__)

# A keyframe search lands on the video; audio of the same moment can lie this much earlier.
PREROLL_SECONDS = Fraction(1)
# Streams are interleaved within about a second, so audio of the last frames can follow them.
POSTROLL_SECONDS = Fraction(1)
_LONGEST_REORDER_SECONDS = Fraction(10)
"""From decoding a picture to showing it, in a transport stream."""
_LONGEST_PRIMING_SECONDS = Fraction(1, 2)


class Demuxer:
    """Owns the open container, its one decoder, and the account of what could not be read.

    Args:
        trim: what is wanted of the source.
        read_errors_allowed: damaged places in a row before the source counts as lost.
        largest_packet_bytes: what is larger is taken for damage.
        open_next: opens the next piece of a source that is read in pieces, with the same streams
            and one count of time; None when there is none. The first container stays open: it is
            what describes the source, and its decoder decodes all of them.
        path: the file that is read, if it is one.
        checks_sound: whether sound is decoded to see whether it is whole.
    """

    def __init__(
        self,
        container: InputContainer,
        video: VideoStream,
        others: tuple[Stream, ...],
        *,
        attached: Attached = NOTHING_ATTACHED,
        trim: Trim,
        read_errors_allowed: int = 0,
        largest_packet_bytes: int = USUAL_RULES.largest_packet_bytes,
        open_next: Callable[[], InputContainer | None] = lambda: None,
        path: Path | None = None,
        checks_sound: bool = True,
    ) -> None:
        self._read_errors_allowed, self._open_next = read_errors_allowed, open_next
        self._largest_packet_bytes = largest_packet_bytes
        self._later_piece: InputContainer | None = None
        self._time_bases: dict[int, Fraction] = {}
        self._has_input_ended = False
        self.container = container
        self.video = video
        self.others = others
        self.attached = attached
        self.waiting = PacketQueue()
        self.on_companion: Callable[[], None] = lambda: None
        """Called in the reading thread whenever a packet begins to wait."""
        self._trim = trim
        self.time_base = Fraction(video.time_base or Fraction(1, 90_000))
        self.account = Account(container, video, path)
        self.codings = CodingNotes(
            video.codec_context.codec.canonical_name, bytes(video.codec_context.extradata or b"")
        )
        codec_name = video.codec_context.codec.canonical_name
        self._check_sums = SliceCheckSums(codec_name)
        self._hashes = PictureHashes(video.codec_context)
        self._parts = PartCheckSums(path, container.format.name)
        self._expected = ExpectedPictures(codec_name)
        self._mending = Mending(video.codec_context)
        self._heads = SequenceHeads(codec_name)
        self._sound_checks = {
            stream.index: SoundCheck(stream)
            for stream in others
            if checks_sound and stream.type == "audio"
        }
        stands = container.format.name in STANDING_CLOCK_FORMATS
        self._standing = {
            stream.index: StandingTimes() for stream in others if stands and stream.type == "audio"
        }
        self.shortage: av.FFmpegError | None = None
        """That there was too little memory, or no thread more: it need not be the data's fault."""
        self._is_past_the_span = False
        self._num_pictures_read, self._bytes_read = 0, 0
        tells_decoding_only = container.format.name in DECODING_TIMES_ONLY
        self._decoding_times = DecodingTimes() if tells_decoding_only else None
        self._before_the_start: list[av.Packet[Stream]] = []
        self._has_reached_the_start = False
        self.clock = SourceClock(
            _origin_seconds(video, others, has_jumps=self.has_jumps), has_jumps=self.has_jumps
        )
        """What packets and pictures are given their times by: from 0, and without jumps."""
        started = Fraction(video.start_time or 0) * self.time_base if video.start_time else None
        self.first_seconds = Fraction(0) if started is None else started - self.clock.origin_seconds
        """When the video begins; the trim counts from here."""

    @property
    def has_jumps(self) -> bool:
        """Whether the format's clock may jump, as that of MPEG-TS may."""
        return clock_may_jump(self.container.format)

    def expected_pictures(self) -> int | None:
        """How many there are in all, by the part of the bytes that those read so far took: what a clock
        that jumps says of its end is of no use. None for other clocks and where nobody knows."""
        num_bytes = self.container.size
        if not self.has_jumps or not self._trim.is_whole or min(num_bytes, self._bytes_read) <= 0:
            return None
        return round(self._num_pictures_read * num_bytes / self._bytes_read)

    def end_seconds(self) -> Fraction | None:
        """When the video ends according to the source; None where it does not say, or has less
        than it promises."""
        if self.has_jumps or self.account.has_lost_some:
            return None
        end = self.account.video_end_seconds
        return None if end is None else end - self.clock.origin_seconds

    def seek_to_start(self) -> None:
        """Try to go to a keyframe at or before the start; else stay at the head."""
        self.account.forget_early()
        start = self._trim.start_seconds or Fraction(0)
        preroll = PREROLL_SECONDS if self.others else 0
        target = self.first_seconds + max(Fraction(0), start - preroll)
        target += self.clock.origin_seconds
        try:
            self.container.seek(int(target / self.time_base), stream=self.video)
        except av.FFmpegError as error:
            logger.info("cannot seek (%s); reading from the beginning", error.strerror)

    def end_input(self) -> None:
        """Read no further packet: what the decoder still holds is the last to come."""
        self._has_input_ended = True

    def stop_decoding(self) -> None:
        """The wanted span is over: read on for the other streams only, and not for long."""
        self._is_past_the_span = True

    def frames(self) -> Iterator[av.VideoFrame]:
        """Every frame that decodes, in presentation order."""
        for packet in self._packets():
            if self._parts.contradicted(packet.pos):
                self.account.note_contradicted_part(self._shown(packet))
            if packet.stream_index != self.video.index:
                self._check_sound(packet)
                self.waiting.append(packet)
                self.on_companion()
            elif not self._is_past_the_span:
                for wanted in self._from_the_start(packet):
                    self.codings.note_packet(wanted)
                    self._check(wanted)
                    yield from self._decode(wanted)
            if self._is_past_the_span and self._is_after_the_span(packet):
                return
        if not self._is_past_the_span:
            if not self._has_reached_the_start:  # the start lies within the last pictures
                for packet in self._before_the_start:
                    yield from self._decode(packet)
            # Also after a read error: the decoder still holds frames of the packets before it.
            yield from self._decode(None)
            self._note_missing(self._expected.ended())
        is_from_the_beginning = self._trim.start_seconds is None
        self.account.has_read_all = is_from_the_beginning and not self._is_past_the_span

    def passed_over(self) -> Iterator[av.Packet[Stream]]:
        """Every packet up to the end of the span, with its time; none is decoded."""
        for packet in self._packets():
            yield packet
            if self._is_after_the_span(packet):
                return

    def _from_the_start(self, packet: av.Packet[Stream]) -> list[av.Packet[Stream]]:
        """What is to be decoded now: nothing long before the start of the span, and then all since
        the keyframe before the last, for pictures may refer to those before a keyframe."""
        start = self._trim.start_seconds
        if not self.has_jumps or start is None or self._has_reached_the_start:
            return [packet]
        if packet.is_keyframe:
            keyframes = [i for i, p in enumerate(self._before_the_start) if p.is_keyframe]
            self._before_the_start = self._before_the_start[keyframes[-1] if keyframes else 0 :]
        self._before_the_start.append(packet)
        time = packet.dts if packet.dts is not None else packet.pts
        if time is None or time * self.time_base < self.first_seconds + start:
            return []
        self._has_reached_the_start = True
        return self._before_the_start

    def _packets(self) -> Iterator[av.Packet[Stream]]:
        demuxed = self._demuxed(self.container)
        errors_in_a_row = 0
        while not self._has_input_ended:
            try:
                packet = next(demuxed)
            except StopIteration:
                if not self._go_on_with_the_next_piece():
                    return
                demuxed = self._demuxed(self._later_piece or self.container)
                continue
            except IndexError:
                # PyAV knows the streams that were there at first. This was a packet of another one.
                self.account.packets_of_later_streams += 1
                demuxed = self._demuxed(self._later_piece or self.container)
                continue
            except (av.FFmpegError, OSError) as error:
                errors_in_a_row += 1
                if _is_damage(error) and errors_in_a_row <= self._read_errors_allowed:
                    self.account.note_undecodable(None)
                    demuxed = self._demuxed(self._later_piece or self.container)
                    continue
                self.account.read_error = error.strerror or str(error)
                return
            errors_in_a_row = 0
            # Not `packet.dts is None`: Matroska's first B-frame packets have no dts.
            if packet.size == 0:
                continue
            if packet.size > self._largest_packet_bytes:
                self.account.note_too_large(self._largest_packet_bytes, self._shown(packet))
                continue
            self.account.note_end(packet)
            self._place(packet)
            self.account.note_packet(packet)
            if packet.stream_index == self.video.index:
                self._num_pictures_read += 1
                self._bytes_read = max(self._bytes_read, packet.pos or 0)
            yield packet

    def _place(self, packet: av.Packet[Stream]) -> None:
        """Give the packet its time on the one clock."""
        time_base = self._time_base_of(packet)
        standing = self._standing.get(packet.stream_index)
        if standing is not None and packet.pts is not None and packet.pts == packet.dts:
            packet.pts = packet.dts = standing.place(packet.pts, packet.duration or 0)
        shown = packet.pts if packet.pts is not None else packet.dts
        if not self.clock.has_begun and shown is not None:
            self.clock.begin(shown * time_base)
        is_sparse = packet.stream.type not in ("video", "audio")
        # Times of showing tell nothing of jumps: pictures of a variable rate come seconds apart.
        time = packet.pts if packet.dts is None and is_sparse else packet.dts
        shift = self.clock.shift_ticks(
            packet.stream_index, time, packet.duration or 0, time_base, is_sparse=is_sparse
        )
        packet.pts = None if packet.pts is None else packet.pts + shift
        packet.dts = None if packet.dts is None else packet.dts + shift
        if self.has_jumps and packet.pts is not None and packet.dts is not None:
            waits = (packet.pts - packet.dts) * time_base
            if not -_LONGEST_REORDER_SECONDS < waits < _LONGEST_REORDER_SECONDS:
                packet.pts = None  # damaged: else all that follows would come behind it

    def _time_base_of(self, packet: av.Packet[Stream]) -> Fraction:
        """That of the packet's stream, which is asked for once."""
        known = self._time_bases.get(packet.stream_index)
        if known is None:
            known = Fraction(packet.time_base or self.time_base)
            self._time_bases[packet.stream_index] = known
        return known

    def _demuxed(self, container: InputContainer) -> Iterator[av.Packet[Stream]]:
        """The packets of the video and the other streams."""
        return container.demux([container.streams[s.index] for s in (self.video, *self.others)])

    def _go_on_with_the_next_piece(self) -> bool:
        try:
            container = self._open_next()
        except VideoOpenError as error:
            self.account.read_error = str(error)
            return False
        if container is None:
            return False
        self._close_later_piece()
        self._later_piece = container
        self._time_bases.clear()
        return True

    def _close_later_piece(self) -> None:
        if self._later_piece is not None:
            self._later_piece.close()
            self._later_piece = None

    def _decode(self, packet: av.Packet[Stream] | None) -> list[av.VideoFrame]:
        if packet is None or not self._heads.is_new(bytes(packet)):
            return self._decoded(packet)
        held = self._decoded(None)
        self.video.codec_context.flush_buffers()
        return held + self._decoded(packet)

    def _decoded(self, packet: av.Packet[Stream] | None) -> list[av.VideoFrame]:
        if packet is not None and self._decoding_times is not None:
            self._decoding_times.decoded(packet.dts)
        if packet is not None and not packet.is_discard:
            self._note_missing(self._expected.sent(packet.pts))
        try:
            pictures = self.video.codec_context.decode(packet)
        except av.error.EOFError:
            return []
        except av.FFmpegError as error:
            if isinstance(error, MemoryError | BlockingIOError):
                self.shortage = error
            logger.debug("a packet could not be decoded: %s", error)
            pictures = [] if packet is None else self._mending.pictures(packet)
            if not pictures:
                self._expected.refused()
                self._note_undecodable(packet)
                return []
            self.account.note_mended(None if packet is None else self._shown(packet))
        for picture in pictures:
            if self._decoding_times is not None:
                picture.pts = self._decoding_times.next_pts()
            time = picture.pts
            self._note_missing(self._expected.shown(time))
            self.account.note_decoded(None if time is None else time * self.time_base)
        return pictures

    def _check(self, packet: av.Packet[Stream]) -> None:
        """What a decoder says to its log alone: that check sums do not fit."""
        if self._check_sums.has_any:
            for seconds in self._check_sums.contradicted(bytes(packet), self._shown(packet)):
                self.account.note_contradicted(seconds)
        if self._hashes.has_any and self._hashes.is_contradicted(packet):
            self.account.note_contradicted(self._shown(packet))

    def _note_missing(self, times: list[int]) -> None:
        for time in times:
            self.account.note_undecodable(time * self.time_base)

    def _check_sound(self, packet: av.Packet[Stream]) -> None:
        check = self._sound_checks.get(packet.stream_index)
        if check is not None and not check.is_whole(packet):
            self.account.note_damaged_sound(packet.stream_index, self._shown(packet))

    def _shown(self, packet: av.Packet[Stream]) -> Fraction | None:
        time = packet.pts if packet.pts is not None else packet.dts
        return None if time is None else time * Fraction(packet.time_base or self.time_base)

    def _note_undecodable(self, packet: av.Packet[Stream] | None) -> None:
        time = None if packet is None else packet.pts if packet.pts is not None else packet.dts
        self.account.note_undecodable(None if time is None else time * self.time_base)
        if packet is not None and self._decoding_times is not None:
            self._decoding_times.lost(packet.dts)

    def _is_after_the_span(self, packet: av.Packet[Stream]) -> bool:
        if not self.others:
            return True
        time = packet.dts if packet.dts is not None else packet.pts
        if time is None or self._trim.end_seconds is None:
            return False
        seconds = time * Fraction(packet.time_base) - self.first_seconds
        return seconds > self._trim.end_seconds + POSTROLL_SECONDS

    def take_waiting(self) -> list[CompanionPacket]:
        """The packets set aside so far, for whoever hands them on to several outputs."""
        positions = {stream.index: position for position, stream in enumerate(self.others)}
        return [
            CompanionPacket(
                position=positions[packet.stream_index],
                data=bytes(packet),
                pts=packet.pts,
                dts=packet.dts,
                duration=packet.duration or 0,
                time_base=Fraction(packet.time_base or 1),
                is_keyframe=packet.is_keyframe,
            )
            for packet in self.waiting.drain()
            if not is_hidden(packet)
        ]

    def close(self) -> None:
        self._close_later_piece()
        self._parts.close()
        self.container.close()


def _is_damage(error: Exception) -> bool:
    """Whether what follows may be readable; where FFmpeg finds no packet for 64 KiB of a transport
    stream, it asks to be called again."""
    return isinstance(error, av.error.InvalidDataError | av.error.BlockingIOError)


def _origin_seconds(
    video: VideoStream, others: tuple[Stream, ...], *, has_jumps: bool
) -> Fraction | None:
    """The time stamp at which the first of the streams begins; None where nothing is known yet.

    Sound may begin before 0 by what its decoder swallows (the priming of AAC and Opus): such a
    source begins at 0.
    """
    starts = [
        stream.start_time * Fraction(stream.time_base)
        for stream in (video, *others)
        if stream.type in ("video", "audio") and stream.start_time is not None and stream.time_base
    ]
    if not starts:
        return None
    begin = min(starts)
    return begin if begin > 0 or has_jumps else min(Fraction(0), begin + _LONGEST_PRIMING_SECONDS)


def main_video_stream(container: InputContainer) -> VideoStream | None:
    """The stream that FFmpeg thinks best among the moving ones; cover art does not count."""
    moving = [stream for stream in container.streams.video if not is_cover(stream)]
    best = container.streams.best("video")
    return best if best in moving else (moving[0] if moving else None)
