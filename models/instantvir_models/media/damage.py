"""What of a source could not be read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Stream
from av.video.stream import VideoStream

from instantvir_models.media.limits import clock_may_jump
from instantvir_models.media.whole import holds_all

_AV_TIME_BASE = 1_000_000
_FASTEST = 1000
"""Frames a second that are believed."""
_ONE_STRETCH_SECONDS = Fraction(1, 2)
_ROUNDED_SECONDS = Fraction(1, 500)
"""What containers round two times by."""
_SAYS_ITS_DURATION = ("matroska", "flv", "mp4", "avi", "mxf")
"""Formats whose header says how long they are, and does not guess it from what is there."""


@dataclass(frozen=True)
class Damage:
    """What of the source could not be read, as far as it is known at this moment."""

    lost_packets: int = 0
    """Frames' worth of compressed data that is missing or could not be decoded."""
    corrupt_frames: int = 0
    """Frames that were delivered although the decoder had to guess parts of them."""
    message: str | None = None
    """One sentence for a person; None when nothing is amiss."""


_HOLE_SECONDS = 1
"""From a corrupt packet to the last picture before what is missing."""


@dataclass
class _Read:
    """What was read of one stream, in its own units of time."""

    time_base: Fraction
    last: int
    """When the packet began that was read last."""
    end: int
    is_sparse: bool
    """Whether it pauses by its nature, as subtitles do: that tells nothing of pictures."""
    longest_gap: int = 0

    def note(self, time: int, duration: int) -> None:
        """A packet was read that begins then."""
        if not self.is_sparse:
            self.longest_gap = max(self.longest_gap, time - self.last)
        self.last, self.end = time, max(self.end, time + duration)


class Account:
    """Counts what is read of a container's video, against what the container promises."""

    def __init__(self, container: InputContainer, video: VideoStream, path: Path | None) -> None:
        # Kept now, because a closed container must not be asked any more.
        self._video_index = video.index
        self._time_base = Fraction(video.time_base or Fraction(1, 90_000))
        self.average_rate = frame_rate_of(video)
        self._has_constant_rate = container.format.name == "avi"
        self._holds_all = holds_all(path, container.format.name)
        self._promised_frames = _promised_frames(container, video)
        self.video_end_seconds = _video_end_seconds(container, video)
        """End of the video alone according to the header, if it says so."""
        self.promised_end_seconds = _promised_end_seconds(container, video)
        """End of the video, or of the whole, according to the header; None where it says nothing."""
        self._promises_whole = self.video_end_seconds is None
        self.read_error: str | None = None
        """Why reading ended before the container did."""
        self.packets_of_later_streams = 0
        """Of streams that were not there when the container was opened, and are left out."""
        self.has_read_all = False
        """Whether the source was read from its beginning to its end."""
        self._packets = 0
        self._tells_cuts = not clock_may_jump(container.format)
        """Of other formats a packet is also corrupt where two recordings were joined."""
        self._is_last_cut = False
        self._last_shown_seconds: Fraction | None = None
        self._corrupt_packet_seconds: Fraction | None = None
        self._own_time: int | None = None
        self._shift_seconds: Fraction | None = None
        self._lost_pictures, self._holes = 0, list[Fraction | None]()
        self._read: dict[int, _Read] = {}
        """What was read so far, by stream."""
        self._delivered_frames = 0
        self._undecodable: list[Fraction | None] = []
        self._too_large: list[Fraction | None] = []
        self._largest_packet_bytes = 0
        self._tells_early = True
        self._first_keyframe_seconds: Fraction | None = None
        self._before_keyframe: list[Fraction | None] = []
        self._corrupt: list[Fraction | None] = []
        self._contradicted: list[Fraction | None] = []
        self._contradicted_parts: list[Fraction | None] = []
        self._damaged_sound: dict[int, list[Fraction | None]] = {}
        self._other_sizes: dict[tuple[int, int], list[Fraction | None]] = {}

    @property
    def undecodable_packets(self) -> int:
        """Packets that gave no picture."""
        early = len(self._before_keyframe) if self._tells_early else 0
        return len(self._undecodable) + len(self._too_large) + early

    @property
    def has_lost_some(self) -> bool:
        """Whether less could be read so far than the container promises at its beginning."""
        return self.read_error is not None or self._promised_and_missing() > 0

    def note_end(self, packet: av.Packet[Stream]) -> None:
        """A packet was read that still has the source's own times, in which promises are made."""
        index, time = packet.stream_index, packet.pts if packet.pts is not None else packet.dts
        if index == self._video_index:
            self._own_time = time
        if time is None:
            return
        if index in self._read:
            self._read[index].note(time, packet.duration or 0)
        elif packet.time_base:
            end = time + (packet.duration or 0)
            is_sparse = packet.stream.type not in ("video", "audio")
            self._read[index] = _Read(Fraction(packet.time_base), time, end, is_sparse)

    def note_packet(self, packet: av.Packet[Stream]) -> None:
        """A packet of the video or of what comes along was read."""
        if packet.stream_index == self._video_index:
            self._packets += 1
            self._is_last_cut = packet.is_corrupt and self._tells_cuts
            self._note_early(packet)
            if packet.is_corrupt and not self._tells_cuts:
                self._corrupt_packet_seconds = _time_of(packet)
            if not self._tells_cuts and self._has_jumped(packet):
                # where two recordings meet nothing need be missing
                self._corrupt_packet_seconds = None

    def _has_jumped(self, packet: av.Packet[Stream]) -> bool:
        """Whether the source's clock is another one since the packet before."""
        before, here = self._shift_seconds, _time_of(packet)
        if here is None or self._own_time is None:
            return False
        self._shift_seconds = self._own_time * Fraction(packet.time_base) - here
        return before is not None and abs(self._shift_seconds - before) > Fraction(1, 100)

    def _note_hole(self, shown_seconds: Fraction) -> None:
        """Remember how many pictures are missing before this one, of a format whose packets are also
        corrupt where two recordings were joined: there a step of the times has to say so, too."""
        last, self._last_shown_seconds = self._last_shown_seconds, shown_seconds
        if last is None or self._corrupt_packet_seconds is None or self.average_rate is None:
            return
        if not last - _HOLE_SECONDS <= self._corrupt_packet_seconds <= shown_seconds:
            return
        named = sum(t is not None and last < t < shown_seconds for t in self._undecodable)
        missing = round((shown_seconds - last) * self.average_rate) - 1 - named
        if missing > 0:
            self._lost_pictures += missing
            self._holes.append(last)

    def _note_early(self, packet: av.Packet[Stream]) -> None:
        """Remember what is shown before the first keyframe, until it turns out to be decodable."""
        time = _time_of(packet)
        if self._first_keyframe_seconds is None and packet.is_keyframe:
            self._first_keyframe_seconds = Fraction(0) if time is None else time
            self._before_keyframe = [t for t in self._before_keyframe if t is not None]
            return
        keyframe = self._first_keyframe_seconds
        is_early = keyframe is None or (time is not None and time < keyframe)
        if is_early and not packet.is_discard:
            self._before_keyframe.append(time)

    def note_undecodable(self, seconds: Fraction | None) -> None:
        """A packet that is shown at `seconds` gave no picture, or a place could not be read."""
        if seconds is None or seconds not in self._before_keyframe:
            self._undecodable.append(seconds)

    def note_too_large(self, largest_bytes: int, seconds: Fraction | None) -> None:
        """A packet of more than `largest_bytes` was left out."""
        self._largest_packet_bytes = largest_bytes
        self._too_large.append(seconds)

    def note_decoded(self, seconds: Fraction | None) -> None:
        """A picture that is shown at `seconds` was decoded, maybe one that nobody wants."""
        self._delivered_frames += 1
        if seconds is not None:
            self._note_hole(seconds)
        if self._first_keyframe_seconds is None:  # then it can be done without
            self._before_keyframe.clear()
        elif self._before_keyframe and seconds in self._before_keyframe:
            self._before_keyframe.remove(seconds)

    def forget_early(self) -> None:
        """Reading begins elsewhere than at the beginning."""
        self._tells_early = False

    def note_other_size(self, width: int, height: int, seconds: Fraction) -> None:
        """A picture of another size than the first was scaled to it."""
        self._other_sizes.setdefault((width, height), []).append(seconds)

    @property
    def other_sizes(self) -> dict[Fraction, tuple[int, int]]:
        """Width and height of the pictures that were scaled, by the times they are shown at."""
        return {
            seconds: size
            for size, times in self._other_sizes.items()
            for seconds in times
            if seconds is not None
        }

    def note_mended(self, seconds: Fraction | None) -> None:
        """A picture that a strict decoder refused is shown as far as it can be."""
        self._corrupt.append(seconds)

    def note_contradicted(self, seconds: Fraction | None) -> None:
        """The data of a picture do not fit their own check sums."""
        self._contradicted.append(seconds)

    def note_contradicted_part(self, seconds: Fraction | None) -> None:
        """A part of the file, of which this is the time, does not fit its own check sum."""
        self._contradicted_parts.append(seconds)

    def note_damaged_sound(self, stream_index: int, seconds: Fraction | None) -> None:
        """A packet of sound is one that decoders refuse."""
        self._damaged_sound.setdefault(stream_index, []).append(seconds)

    def note_delivered(self, picture: av.VideoFrame) -> None:
        """A picture was given out."""
        if picture.is_corrupt:
            time = picture.pts
            self._corrupt.append(None if time is None else time * self._time_base)

    def damage(self, name: str) -> Damage:
        """What could not be read so far of the source called `name`."""
        missing, lost = self._missing_frames(), self._undecodable
        early = self._before_keyframe if self._tells_early and self._delivered_frames else []
        parts = []
        if missing:
            promised = self._delivered_frames + self.undecodable_packets + missing
            parts.append(
                f"{name} is cut short: "
                f"it promises {promised} frames, {self._delivered_frames} could be read"
            )
        elif self.read_error:
            parts.append(f"{name} could not be read to its end ({self.read_error})")
        elif self.has_read_all and self._holds_all is False:
            parts.append(f"{name} is cut short: it has fewer bytes than it says")
        elif self.has_read_all and self._is_last_cut:
            parts.append(f"{name} is cut short: its last packet is not complete")
        if early:
            parts.append(
                f"{counted(len(early), 'packet')} could not be decoded before the first keyframe"
                f"{_times(early)}"
            )
        if self._holes:
            gone = f"{counted(self._lost_pictures, 'frame')} lost with damaged packets"
            parts.append(f"{gone}{_times(self._holes)}")
        if lost:
            parts.append(f"{counted(len(lost), 'packet')} could not be decoded{_times(lost)}")
        if self._too_large:
            larger = f"{counted(len(self._too_large), 'packet')} of more than"
            left_out = (
                f"{self._largest_packet_bytes / 1e6:.3g} MB left out{_times(self._too_large)}"
            )
            parts.append(f"{larger} {left_out}; a larger `--max-pixels` allows larger ones")
        if self._corrupt:
            guessed = f"{counted(len(self._corrupt), 'frame')} had to be guessed in part"
            parts.append(f"{guessed}{_times(self._corrupt)}")
        if self._contradicted:
            wrong = f"{counted(len(self._contradicted), 'frame')} with a wrong check sum"
            parts.append(f"{wrong}{_times(self._contradicted)}")
        if self._contradicted_parts:
            parts_of_file = counted(len(self._contradicted_parts), "part")
            times_of_parts = _times(self._contradicted_parts)
            parts.append(f"{parts_of_file} of the file with a wrong check sum{times_of_parts}")
        for index, times in self._damaged_sound.items():
            broken = f"{counted(len(times), 'damaged packet')} of sound (stream {index})"
            parts.append(f"{broken}{_times(times)}")
        if self.packets_of_later_streams:
            left_out = counted(self.packets_of_later_streams, "packet")
            parts.append(f"{left_out} of streams that begin later are left out")
        for (width, height), times in self._other_sizes.items():
            scaled = f"{counted(len(times), 'frame')} of {width}x{height} scaled to the first size"
            parts.append(f"{scaled}{_times(times)}")
        return Damage(
            self.undecodable_packets + missing + self._lost_pictures,
            len(self._corrupt) + len(self._contradicted),
            "; ".join(parts) or None,
        )

    @property
    def _last_end_seconds(self) -> Fraction:
        return max((read.end * read.time_base for read in self._read.values()), default=Fraction(0))

    @property
    def _longest_gap_seconds(self) -> Fraction:
        """Between two packets of the video; of any stream, where the promise is one of the whole."""
        told = self._read if self._promises_whole else {self._video_index} & self._read.keys()
        gaps = (self._read[index].longest_gap * self._read[index].time_base for index in told)
        return max(gaps, default=Fraction(0))

    def _missing_frames(self) -> int:
        """Promised frames that were not in the file; 0 until it was read to its end."""
        return self._promised_and_missing() if self.has_read_all else 0

    def _promised_and_missing(self) -> int:
        if self._holds_all and self._has_constant_rate:
            return 0  # what seems to be missing are places without a picture
        if self._promised_frames is not None:
            return max(0, self._promised_frames - self._packets)
        if self.promised_end_seconds is None or self.average_rate is None:
            return 0
        missing_seconds = self.promised_end_seconds - self._last_end_seconds
        if missing_seconds <= self._longest_gap_seconds + _ROUNDED_SECONDS:
            return 0  # the last picture, or packet of sound, may last as long as another one did
        missing = round(missing_seconds * self.average_rate)
        # The muxers round durations, and a variable frame rate makes the last gap uncertain.
        return missing if missing >= (1 if self._has_constant_rate else 2) else 0


def frame_rate_of(video: VideoStream) -> Fraction | None:
    """The average, where it is one: that of raw DV is its clock's 60000 a second."""
    rates = (video.average_rate, video.guessed_rate, video.base_rate)
    return next((Fraction(rate) for rate in rates if rate and rate <= _FASTEST), None)


def counted(number: int, noun: str) -> str:
    """`1 packet`, `2 packets`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _time_of(packet: av.Packet[Stream]) -> Fraction | None:
    time = packet.pts if packet.pts is not None else packet.dts
    return None if time is None or not packet.time_base else time * Fraction(packet.time_base)


def _times(seconds: list[Fraction | None]) -> str:
    """` (at 0.48-0.60 s, 2.00 s)`: where these times lie, in at most five stretches."""
    known = sorted(time for time in seconds if time is not None)
    stretches: list[tuple[Fraction, Fraction]] = []
    for time in known:
        if stretches and time - stretches[-1][1] <= _ONE_STRETCH_SECONDS:
            stretches[-1] = (stretches[-1][0], time)
        else:
            stretches.append((time, time))
    if not stretches:
        return ""
    texts = [
        f"{float(a):.2f}" if a == b else f"{float(a):.2f}{'-' if a >= 0 else ' to '}{float(b):.2f}"
        for a, b in stretches
    ]
    more = ", and later" if len(texts) > 5 else ""
    return f" (at {', '.join(texts[:5])} s{more})"


def _promised_frames(container: InputContainer, video: VideoStream) -> int | None:
    """Frames according to the container's tables (MP4); None where it keeps none. AVI counts the
    places of frames, which may be empty."""
    if container.format.name == "avi":
        return None
    if "mp4" in container.format.name:
        # A fragmented file has no frames in its header, but a table for each fragment.
        return (len(video.index_entries) or video.frames) if video.frames else None
    return video.frames or None


def _video_end_seconds(container: InputContainer, video: VideoStream) -> Fraction | None:
    """End of the video alone according to the header; None where nothing is said of it."""
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", video.metadata.get("DURATION", ""))
    if match:
        return int(match[1]) * 3600 + int(match[2]) * 60 + Fraction(match[3])
    if not {"mp4", "avi"}.isdisjoint(container.format.name.split(",")) and video.duration:
        return (Fraction(video.start_time or 0) + video.duration) * Fraction(video.time_base or 1)
    return None


def _promised_end_seconds(container: InputContainer, video: VideoStream) -> Fraction | None:
    """The same, or that of the whole file; None where nothing is said."""
    if not any(name in container.format.name for name in _SAYS_ITS_DURATION):
        return None
    end = _video_end_seconds(container, video)
    if end is not None or not container.duration:
        return end
    return Fraction(container.duration, _AV_TIME_BASE)
