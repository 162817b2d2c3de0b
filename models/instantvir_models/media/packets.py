"""Packets of audio and subtitles on their way from a source to outputs."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import av
from av.stream import Stream

logger = logging.getLogger(__name__)

MAX_WAITING_BYTES = 64 * 2**20
_LONGEST_PRIMING_SECONDS = Fraction(1, 10)
"""Sound that a decoder needs before the first sample that is heard."""


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
        self._is_refused = False

    def refuse(self) -> None:
        """Keep nothing from now on: nobody will take it."""
        self._is_refused = True
        self._packets.clear()

    def append(self, packet: av.Packet[Stream]) -> None:
        if self._is_refused:
            return
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


def is_hidden(packet: av.Packet[Stream]) -> bool:
    """Whether an edit list leaves the packet out, and no decoder needs it for what follows."""
    if not packet.is_discard or packet.pts is None:
        return False
    end = (packet.pts + (packet.duration or 0)) * Fraction(packet.time_base or 1)
    return end < -_LONGEST_PRIMING_SECONDS
