"""Check sums that nobody verifies: FFmpeg says to its log alone, or not at all, where one differs.

FFV1: a packet ends with the trailer of its last slice: 3 bytes of its size, a byte, and 4 of a CRC
(RFC 9043, 4.9). The polynomial is 0x04C11DB7, most significant bit first, so that the CRC of a whole
slice with its own CRC is what it began with: 0, or the number of later encoders (libavcodec, ffv1.h).

Matroska: an element may begin with a CRC-32 of what follows in it (RFC 9559, 6.2; zlib's, least
significant byte first). FFmpeg writes one for each cluster, and verifies none.

HEVC: a message behind a picture may hold the MD5 of its planes (Rec. ITU-T H.265, D.3.19).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext

from instantvir_models.media.hevc_headers import HEVCHeaders
from instantvir_models.media.whole import ebml_element, segment_of

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


_CRC_32, _VOID, _TRACKS, _CLUSTER = 0xBF, 0xEC, 0x1654AE6B, 0x1F43B675
_PARTS_OF_A_SEGMENT = frozenset(
    {_CRC_32, _VOID, _TRACKS, _CLUSTER, 0x114D9B74, 0x1549A966, 0x1C53BB6B, 0x1941A469, 0x1043A770,
     0x1254C367}
)  # fmt: skip
_STEP_BYTES = 2**20
MOST_PARTS = 1_000_000
"""Of a file that are looked at; more are there to take time."""


class PartCheckSums:
    """Finds the clusters of a Matroska file, and its description of tracks, that their own check sums
    contradict.

    Args:
        path: of the file; None, or another kind of file, has nothing to be checked.
        format_name: FFmpeg's.
    """

    def __init__(self, path: Path | None, format_name: str) -> None:
        self._path = path if "matroska" in format_name else None
        self._file: BinaryIO | None = None
        self._has_any = False
        self._at, self._end, self._left = 0, 0, MOST_PARTS

    def contradicted(self, position: int | None) -> bool:
        """Whether a part is damaged that was reached with the packet at this position.

        What is passed over on the way to it is not read.
        """
        if self._path is None or position is None:
            return False
        is_wrong = False
        with suppress(OSError, IndexError):
            file = self._file or self._opened(self._path)
            while self._at <= position and self._at < self._end and self._left > 0:
                self._left -= 1
                is_wrong |= self._is_next_wrong(file, position)
        return is_wrong

    def _opened(self, path: Path) -> BinaryIO:
        self._file = path.open("rb")
        self._at, self._end = segment_of(self._file) or (0, 0)
        return self._file

    def _is_next_wrong(self, file: BinaryIO, position: int) -> bool:
        identity, begin, size = ebml_element(file, self._at)
        if size is None or identity not in _PARTS_OF_A_SEGMENT:
            self._end = 0  # nothing that follows can be found
            return self._has_any and size is not None
        self._at = begin + size
        is_asked = identity == _TRACKS or (identity == _CLUSTER and self._at > position)
        return is_asked and self._is_wrong(file, begin, size)

    def _is_wrong(self, file: BinaryIO, begin: int, size: int) -> bool:
        identity, content, length = ebml_element(file, begin)
        if identity != _CRC_32 or length != 4:
            return False
        file.seek(content)
        told, left, found = file.read(4), begin + size - content - 4, 0
        while left > 0 and (piece := file.read(min(left, _STEP_BYTES))):
            found, left = zlib.crc32(piece, found), left - len(piece)
        if left:
            return False  # cut short, which is told otherwise
        self._has_any = True
        return found.to_bytes(4, "little") != told

    def close(self) -> None:
        """Let go of the file."""
        self._path = None
        if self._file is not None:
            self._file.close()


_HASH_MESSAGE = 132
_MESSAGES = frozenset({39, 40})
_LOOKED_AT = 4
"""Packets after which no hash is expected any more: who writes them writes one for each picture."""


class PictureHashes:
    """Finds pictures of HEVC that do not have the MD5 that is kept of them.

    The decoder compares, but tells its log; so packets with a hash go through a strict decoder, too,
    and what it makes of them is thrown away. Few files have hashes.
    """

    def __init__(self, video: VideoCodecContext) -> None:
        self.has_any = video.codec.canonical_name == "hevc"
        """Whether it is worth asking."""
        self._video = video
        self._headers = HEVCHeaders(bytes(video.extradata or b"")) if self.has_any else None
        self._decoder: VideoCodecContext | None = None
        self._without = 0

    def is_contradicted(self, packet: av.Packet[Stream]) -> bool:
        """Whether the picture of the packet is not the one that was encoded."""
        if self._decoder is None and not self._begins_with(packet):
            return False
        assert self._decoder is not None
        try:
            self._decoder.decode(packet)
        except av.FFmpegError:
            return True
        return False

    def _begins_with(self, packet: av.Packet[Stream]) -> bool:
        assert self._headers is not None
        if not self._headers.has_message(bytes(packet), _MESSAGES, _HASH_MESSAGE):
            self._without += 1
            self.has_any = self._without < _LOOKED_AT
            return False
        decoder = av.CodecContext.create(self._video.codec.name, "r")
        assert isinstance(decoder, VideoCodecContext)
        decoder.extradata = self._video.extradata
        decoder.thread_count = 1
        decoder.options = {**self._video.options, "err_detect": "crccheck+explode"}
        self._decoder = decoder
        return True
