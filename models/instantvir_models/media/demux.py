"""From a container to decoded video frames, with the other streams' packets set aside."""

from __future__ import annotations

import logging
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import av
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from instantvir_models.errors import VideoOpenError

logger = logging.getLogger(__name__)

# A keyframe search lands on the video; audio of the same moment can lie this much earlier.
PREROLL_SECONDS = Fraction(1)
# Streams are interleaved within about a second, so audio of the last frames can follow them.
POSTROLL_SECONDS = Fraction(1)
MAX_WAITING_BYTES = 64 * 2**20
AV_TIME_BASE = 1_000_000


@dataclass(frozen=True)
class CompanionPacket:
    """One packet of audio or subtitles, free of the container it came from."""

    position: int
    """Which of the demuxer's `others` it belongs to."""
    data: bytes
    pts: int | None
    dts: int | None
    duration: int
    time_base: Fraction
    is_keyframe: bool

    def delayed(self, seconds: Fraction) -> CompanionPacket:
        """The same packet, shown `seconds` later."""
        shift = round(seconds / self.time_base)
        return replace(
            self,
            pts=None if self.pts is None else self.pts + shift,
            dts=None if self.dts is None else self.dts + shift,
        )


class PacketQueue:
    """Audio and subtitle packets on their way from the reader to a writer, first in, first out.

    Appending and popping may happen in different threads. Holds about `MAX_WAITING_BYTES`; packets
    that come while it is full are lost, which `has_lost_some` tells until the next `drain`.
    """

    def __init__(self) -> None:
        self._packets: deque[av.Packet[Stream]] = deque()
        self._num_bytes = 0
        self._counting = threading.Lock()
        self.has_lost_some = False

    def append(self, packet: av.Packet[Stream]) -> None:
        if self._num_bytes > MAX_WAITING_BYTES:
            if not self.has_lost_some:
                logger.debug("nobody takes the audio and subtitle packets; no more are kept")
            self.has_lost_some = True
            return
        with self._counting:
            self._num_bytes += packet.size
        self._packets.append(packet)

    def drain(self) -> Iterator[av.Packet[Stream]]:
        self.has_lost_some = False
        while self._packets:
            packet = self._packets.popleft()
            with self._counting:
                self._num_bytes -= packet.size
            yield packet


class Demuxer:
    """Owns the open container, its one decoder, and the account of what could not be read.

    Args:
        open_next: opens the next piece of a source that is read in pieces, with the same streams
            and one count of time; None when there is none. The first container stays open: it is
            what describes the source, and its decoder decodes all of them.
    """

    def __init__(
        self,
        container: InputContainer,
        video: VideoStream,
        others: tuple[Stream, ...],
        *,
        start_seconds: Fraction | None,
        duration_seconds: Fraction | None,
        read_errors_allowed: int = 0,
        open_next: Callable[[], InputContainer | None] = lambda: None,
    ) -> None:
        self._read_errors_allowed, self._open_next = read_errors_allowed, open_next
        self._later_piece: InputContainer | None = None
        self._has_input_ended = False
        self.container = container
        self.video = video
        self.others = others
        self.waiting = PacketQueue()
        self.on_companion: Callable[[], None] = lambda: None
        """Called in the reading thread whenever a packet begins to wait."""
        self.start_seconds = start_seconds
        self.end_seconds = (
            None if duration_seconds is None else (start_seconds or Fraction(0)) + duration_seconds
        )
        self.time_base = Fraction(video.time_base or Fraction(1, 90_000))
        self.undecodable_packets = 0
        self.read_error: str | None = None
        self._video_packets = 0
        self._last_end_seconds = Fraction(0)
        self._reached_end = False
        self._is_past_the_span = False
        # Kept now, because a closed container must not be asked any more.
        self.first_seconds = Fraction(video.start_time or 0) * self.time_base
        """Time stamp at which the source begins; `start_seconds` counts from here."""
        self.average_rate = Fraction(video.average_rate) if video.average_rate else None
        self.promised_frames = _promised_frames(container, video)
        self.promised_end_seconds = _promised_end_seconds(container, video)

    def seek_to_start(self) -> None:
        """Try to go to a keyframe at or before the start; else stay at the head."""
        assert self.start_seconds is not None
        preroll = PREROLL_SECONDS if self.others else 0
        target = self.first_seconds + max(Fraction(0), self.start_seconds - preroll)
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
            if packet.stream_index != self.video.index:
                self.waiting.append(packet)
                self.on_companion()
            elif not self._is_past_the_span:
                yield from self._decode(packet)
            if self._is_past_the_span and self._is_after_the_span(packet):
                return
        if not self._is_past_the_span:
            # Also after a read error: the decoder still holds frames of the packets before it.
            yield from self._decode(None)
        self._reached_end = self.start_seconds is None and not self._is_past_the_span

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
            except (av.FFmpegError, OSError) as error:
                errors_in_a_row += 1
                is_damage = isinstance(error, av.error.InvalidDataError)
                if is_damage and errors_in_a_row <= self._read_errors_allowed:
                    self.undecodable_packets += 1
                    demuxed = self._demuxed(self._later_piece or self.container)
                    continue
                self.read_error = error.strerror or str(error)
                return
            errors_in_a_row = 0
            # Not `packet.dts is None`: Matroska's first B-frame packets have no dts.
            if packet.size == 0:
                continue
            self._note_time(packet)
            yield packet

    def _demuxed(self, container: InputContainer) -> Iterator[av.Packet[Stream]]:
        """The packets of the video and the other streams."""
        return container.demux([container.streams[s.index] for s in (self.video, *self.others)])

    def _go_on_with_the_next_piece(self) -> bool:
        try:
            container = self._open_next()
        except VideoOpenError as error:
            self.read_error = str(error)
            return False
        if container is None:
            return False
        self._close_later_piece()
        self._later_piece = container
        return True

    def _close_later_piece(self) -> None:
        if self._later_piece is not None:
            self._later_piece.close()
            self._later_piece = None

    def _note_time(self, packet: av.Packet[Stream]) -> None:
        if packet.stream_index == self.video.index:
            self._video_packets += 1
        if packet.pts is not None and packet.time_base:
            end = (packet.pts + (packet.duration or 0)) * Fraction(packet.time_base)
            self._last_end_seconds = max(self._last_end_seconds, end)

    def _decode(self, packet: av.Packet[Stream] | None) -> list[av.VideoFrame]:
        try:
            return self.video.codec_context.decode(packet)
        except av.error.EOFError:
            return []
        except av.FFmpegError as error:
            self.undecodable_packets += 1
            logger.debug("a packet could not be decoded: %s", error)
            return []

    def _is_after_the_span(self, packet: av.Packet[Stream]) -> bool:
        if not self.others:
            return True
        time = packet.dts if packet.dts is not None else packet.pts
        if time is None or self.end_seconds is None:
            return False
        seconds = time * Fraction(packet.time_base) - self.first_seconds
        return seconds > self.end_seconds + POSTROLL_SECONDS

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
        ]

    def missing_frames(self) -> int:
        """Promised frames that were not in the file; 0 until it was read to its end."""
        if not self._reached_end:
            return 0
        if self.promised_frames is not None:
            return max(0, self.promised_frames - self._video_packets)
        if self.promised_end_seconds is None or self.average_rate is None:
            return 0
        missing = round((self.promised_end_seconds - self._last_end_seconds) * self.average_rate)
        # The muxers round durations, and a variable frame rate makes the last gap uncertain.
        return missing if missing >= 2 else 0

    def close(self) -> None:
        self._close_later_piece()
        self.container.close()


def _promised_frames(container: InputContainer, video: VideoStream) -> int | None:
    """Frames according to the container's tables (MP4, AVI); None where it keeps none."""
    if "mp4" in container.format.name:
        return len(video.index_entries) or video.frames or None
    return video.frames or None


def _promised_end_seconds(container: InputContainer, video: VideoStream) -> Fraction | None:
    """End of the video according to a Matroska header; None where nothing is said."""
    if "matroska" not in container.format.name:
        return None
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", video.metadata.get("DURATION", ""))
    if match:
        return int(match[1]) * 3600 + int(match[2]) * 60 + Fraction(match[3])
    return Fraction(container.duration, AV_TIME_BASE) if container.duration else None


def main_video_stream(container: InputContainer) -> VideoStream | None:
    """The stream that FFmpeg thinks best among the moving ones; cover art does not count."""
    moving = [
        stream
        for stream in container.streams.video
        if not Disposition(stream.disposition) & Disposition.attached_pic
    ]
    best = container.streams.best("video")
    return best if best in moving else (moving[0] if moving else None)
