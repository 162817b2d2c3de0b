"""What of a source could not be read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

import av
from av.container import InputContainer
from av.stream import Stream
from av.video.stream import VideoStream

_AV_TIME_BASE = 1_000_000


@dataclass(frozen=True)
class Damage:
    """What of the source could not be read, as far as it is known at this moment."""

    lost_packets: int = 0
    """Frames' worth of compressed data that is missing or could not be decoded."""
    corrupt_frames: int = 0
    """Frames that were delivered although the decoder had to guess parts of them."""
    message: str | None = None
    """One sentence for a person; None when nothing is amiss."""


class Account:
    """Counts what is read of a container's video, against what the container promises."""

    def __init__(self, container: InputContainer, video: VideoStream) -> None:
        # Kept now, because a closed container must not be asked any more.
        self._video_index = video.index
        self.average_rate = Fraction(video.average_rate) if video.average_rate else None
        self._promised_frames = _promised_frames(container, video)
        self.promised_end_seconds = _promised_end_seconds(container, video)
        """End of the video according to the container's header; None where it says nothing."""
        self.undecodable_packets = 0
        self.read_error: str | None = None
        """Why reading ended before the container did."""
        self.has_read_all = False
        """Whether the source was read from its beginning to its end."""
        self._packets = 0
        self._last_end_seconds = Fraction(0)
        self._delivered_frames = 0
        self._corrupt_frames = 0

    def note_packet(self, packet: av.Packet[Stream]) -> None:
        """A packet of the video or of what comes along was read."""
        if packet.stream_index == self._video_index:
            self._packets += 1
        if packet.pts is not None and packet.time_base:
            end = (packet.pts + (packet.duration or 0)) * Fraction(packet.time_base)
            self._last_end_seconds = max(self._last_end_seconds, end)

    def note_delivered(self, picture: av.VideoFrame) -> None:
        """A picture was given out."""
        self._delivered_frames += 1
        self._corrupt_frames += bool(picture.is_corrupt)

    def damage(self, name: str) -> Damage:
        """What could not be read so far of the source called `name`."""
        undecodable, missing = self.undecodable_packets, self._missing_frames()
        parts = []
        if missing:
            promised = self._delivered_frames + undecodable + missing
            parts.append(
                f"{name} is cut short: "
                f"it promises {promised} frames, {self._delivered_frames} could be read"
            )
        elif self.read_error:
            parts.append(f"{name} could not be read to its end ({self.read_error})")
        if undecodable:
            parts.append(f"{counted(undecodable, 'packet')} could not be decoded")
        if self._corrupt_frames:
            parts.append(f"{counted(self._corrupt_frames, 'frame')} had to be guessed in part")
        return Damage(undecodable + missing, self._corrupt_frames, "; ".join(parts) or None)

    def _missing_frames(self) -> int:
        """Promised frames that were not in the file; 0 until it was read to its end."""
        if not self.has_read_all:
            return 0
        if self._promised_frames is not None:
            return max(0, self._promised_frames - self._packets)
        if self.promised_end_seconds is None or self.average_rate is None:
            return 0
        missing = round((self.promised_end_seconds - self._last_end_seconds) * self.average_rate)
        # The muxers round durations, and a variable frame rate makes the last gap uncertain.
        return missing if missing >= 2 else 0


def counted(number: int, noun: str) -> str:
    """`1 packet`, `2 packets`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


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
    return Fraction(container.duration, _AV_TIME_BASE) if container.duration else None
