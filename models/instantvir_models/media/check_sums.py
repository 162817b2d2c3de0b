"""Check sums that FFV1 keeps of each slice of a picture: FFmpeg says to its log alone where one differs.

A packet ends with the trailer of its last slice: 3 bytes of its size, a byte, and 4 of a CRC (RFC 9043,
4.9). The polynomial is 0x04C11DB7, most significant bit first, so that the CRC of a whole slice with
its own CRC is what it began with: 0, or the number of later encoders (libavcodec, ffv1.h).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from fractions import Fraction

_TRAILER_BYTES = 8
_BEGINNINGS = (0, 0x7A8C4079)
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_ALL = 0xFFFFFFFF


class SliceCheckSums:
    """Finds packets of FFV1 that their own check sums contradict.

    Nothing in a packet tells whether there are check sums. That there are is known with the first one
    that fits; packets before it are remembered till then.
    """

    def __init__(self, codec_name: str) -> None:
        self.has_any = codec_name == "ffv1"
        """Whether it is worth asking."""
        self._beginning: int | None = None
        self._undecided: list[tuple[bytes, Fraction | None]] = []

    def contradicted(self, data: bytes, seconds: Fraction | None) -> list[Fraction | None]:
        """Times of packets that are damaged, as far as is known with this one."""
        if self._beginning is None:
            self._beginning = _beginning_of(data)
        if self._beginning is None:
            self._undecided = [*self._undecided[-_MOST_UNDECIDED:], (data, seconds)]
            return []
        waiting, self._undecided = [*self._undecided, (data, seconds)], []
        return [time for packet, time in waiting if not _fits(packet, self._beginning)]


_MOST_UNDECIDED = 8


def _beginning_of(data: bytes) -> int | None:
    for piece in _slices(data):
        if piece is not None:
            for beginning in _BEGINNINGS:
                if _crc(piece, beginning) == beginning:
                    return beginning
    return None


def _fits(data: bytes, beginning: int) -> bool:
    return all(piece is not None and _crc(piece, beginning) == beginning for piece in _slices(data))


def _slices(data: bytes) -> Iterator[memoryview | None]:
    """From the last one to the first; None, and no more, where a size makes no sense."""
    rest = memoryview(data)
    while rest:
        if len(rest) < _TRAILER_BYTES:
            yield None
            return
        size = int.from_bytes(rest[-_TRAILER_BYTES : -_TRAILER_BYTES + 3], "big") + _TRAILER_BYTES
        if size > len(rest):
            yield None
            return
        yield rest[-size:]
        rest = rest[:-size]


def _crc(data: memoryview, beginning: int) -> int:
    """zlib's CRC takes the bits of each byte, and its own, the other way round, and inverts it."""
    found = zlib.crc32(bytes(data).translate(_MIRRORED), _mirrored(beginning) ^ _ALL) ^ _ALL
    return _mirrored(found)


def _mirrored(number: int) -> int:
    return int.from_bytes(number.to_bytes(4, "big").translate(_MIRRORED), "little")
