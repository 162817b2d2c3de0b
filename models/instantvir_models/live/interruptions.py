"""What goes on across interruptions of a source: its time, and the order of its packets."""

import time
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction

from instantvir_models.media import CompanionPacket, Frame

JUMP_SECONDS = 60
"""A source that comes back with time stamps further ahead than this has started a new count."""


class ContinuedTime:
    """Time stamps that go on across interruptions: an outage shows as a gap as long as it was."""

    def __init__(self) -> None:
        self.shift_seconds = Fraction(0)
        """Added to the time stamps of this connection."""
        self._end_seconds: Fraction | None = None
        self._last_arrival = time.monotonic()

    def connect(self, first: Frame) -> None:
        """Choose the shift for a connection by its first frame, so that time goes on where it is."""
        if self._end_seconds is None:
            return
        starts = first.pts * first.time_base
        outage = Fraction(round(1000 * (time.monotonic() - self._last_arrival)), 1000)
        expected = self._end_seconds + outage
        has_continued = self._end_seconds <= starts + self.shift_seconds <= expected + JUMP_SECONDS
        if not has_continued:
            self.shift_seconds = expected - starts

    def continued(self, frame: Frame) -> Frame:
        """A frame that has just come, at the time that goes on."""
        pts = frame.pts + round(self.shift_seconds / frame.time_base)
        self._end_seconds = (pts + frame.duration) * frame.time_base
        self._last_arrival = time.monotonic()
        return replace(frame, pts=pts)


class RisingPackets:
    """Lets sound and subtitles through whose time has not passed: containers refuse others."""

    def __init__(self) -> None:
        self._last_seconds: dict[int, Fraction] = {}

    def later(self, packets: Iterable[CompanionPacket]) -> list[CompanionPacket]:
        """Those that come after the last one of their stream."""
        return [packet for packet in packets if self._is_later(packet)]

    def _is_later(self, packet: CompanionPacket) -> bool:
        time_stamp = packet.dts if packet.dts is not None else packet.pts
        if time_stamp is None:
            return True
        seconds = time_stamp * packet.time_base
        last = self._last_seconds.get(packet.position)
        if last is not None and seconds <= last:
            return False
        self._last_seconds[packet.position] = seconds
        return True
