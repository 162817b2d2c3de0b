"""An endless NUT stream in pieces: FFmpeg's demuxer remembers each synchronisation point for good.

libavformat keeps about 100 bytes for every syncpoint of a NUT stream until it is closed, and raw
video has one a frame: hundreds of megabytes a day. All that a demuxer needs to go on at a syncpoint
are the headers at the beginning of the stream, as time stamps start afresh there (NUT Open Container
Format, `syncpoint`); so a new one takes over now and then.
"""

from typing import Protocol

FILE_ID = b"nut/multimedia container\0"
SYNCPOINT = bytes.fromhex("4e4be4adeeca4569")
"""The startcode of a syncpoint."""

HEAD_BYTES = len(SYNCPOINT) + 1
"""Of a syncpoint: the startcode and the length of its body, which ends with the checksum."""
CHECKSUM_BYTES = 4
LARGEST_BODY = 64
"""Those with a time stamp, a clock time and a pointer back have about 30 bytes."""

SYNCPOINTS_PER_PIECE = 2048


class ByteSource(Protocol):
    """What bytes come from, such as a pipe."""

    name: str
    num_bytes: int
    """Bytes read so far."""

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end."""


class NutPieces:
    """A source of bytes that ends at a syncpoint now and then, until `begin_next_piece` is called.

    Each piece is a NUT stream of its own and together they hold every frame once. What is not NUT
    passes unchanged, as one piece.
    """

    def __init__(
        self, source: ByteSource, *, syncpoints_per_piece: int = SYNCPOINTS_PER_PIECE
    ) -> None:
        self._source, self._limit = source, syncpoints_per_piece
        self.name = source.name
        self._is_nut: bool | None = None
        self._headers = b""
        self._has_all_headers = False
        self._num_syncpoints = 0
        """Of this piece, so far."""
        self._ready = b""
        """Of this piece, not yet given out."""
        self._rest = b""
        """What begins with half a syncpoint, or with the one that ends this piece."""
        self._is_at_boundary = False

    @property
    def num_bytes(self) -> int:
        """Bytes that came from the source so far."""
        return self._source.num_bytes

    @property
    def has_begun(self) -> bool:
        """Whether anything was read from the source."""
        return self._is_nut is not None

    def peek(self, size: int) -> bytes:
        """The first bytes of the source, which are still to be read: as many as were needed to tell
        whether it is NUT."""
        if self._is_nut is None:
            self._recognise()
        return (self._ready or self._rest)[:size]

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end of the piece."""
        if self._is_nut is None:
            self._recognise()
        while not (self._ready or self._is_at_boundary):
            data = self._source.read(size)
            if not data:
                self._ready, self._rest = self._rest, b""
                break
            self._sort(self._rest + data)
        given, self._ready = self._ready[:size], self._ready[size:]
        return given

    def begin_next_piece(self) -> bool:
        """Let `read` go on with the syncpoint that ended this piece; False if the source ended."""
        if not self._is_at_boundary:
            return False
        self._is_at_boundary, self._num_syncpoints = False, 0
        self._ready = self._headers
        self._sort(self._rest)
        return True

    def _recognise(self) -> None:
        data = b""
        while len(data) < len(FILE_ID) and (more := self._source.read(len(FILE_ID) - len(data))):
            data += more
        self._is_nut = data == FILE_ID
        self._sort(data)

    def _sort(self, data: bytes) -> None:
        """Tell what belongs to this piece from what may not, or is half a syncpoint."""
        if not self._is_nut:
            self._ready += data
            return
        self._rest = data
        while (found := self._rest.find(SYNCPOINT)) >= 0:
            self._give(found)
            self._has_all_headers = True
            if self._num_syncpoints == self._limit:
                self._is_at_boundary = True
                return
            length = _syncpoint_bytes(self._rest)
            if length > len(self._rest):
                return
            self._rest = without_back_pointer(self._rest)
            self._num_syncpoints += 1
            self._give(length)
        self._give(len(self._rest) - _length_of_half_a_startcode(self._rest))

    def _give(self, num_bytes: int) -> None:
        """Let so many bytes of the rest belong to this piece."""
        given, self._rest = self._rest[:num_bytes], self._rest[num_bytes:]
        self._ready += given
        if not self._has_all_headers:
            self._headers += given


def without_back_pointer(data: bytes) -> bytes:
    """`data`, whose leading syncpoint no longer says how far back its keyframes are.

    The pointer serves seeking only, but a demuxer that began behind its target takes the syncpoint
    for a damaged one. One that is damaged stays as it is.
    """
    begin, end = HEAD_BYTES, _syncpoint_bytes(data)
    body = bytearray(data[begin : end - CHECKSUM_BYTES])
    if _checksum(data[begin:end]) != 0:
        return data
    pointer = _end_of_number(body, 0)  # behind the time stamp
    for index in range(pointer, last := _end_of_number(body, pointer)):
        body[index] = 0x80 if index < last - 1 else 0
    checksum = _checksum(body).to_bytes(CHECKSUM_BYTES, "big")
    return data[:begin] + bytes(body) + checksum + data[end:]


def _syncpoint_bytes(data: bytes) -> int:
    """Length of the syncpoint at the beginning of `data`, as far as can be told from it."""
    body_bytes = data[HEAD_BYTES - 1] if len(data) >= HEAD_BYTES else 0
    return HEAD_BYTES + min(body_bytes, LARGEST_BODY)


def _end_of_number(body: bytes | bytearray, begin: int) -> int:
    """Where the number of 7 bits a byte ends that begins there: its last byte has no top bit."""
    while begin < len(body) and body[begin] & 0x80:
        begin += 1
    return min(begin + 1, len(body))


def _checksum(data: bytes | bytearray) -> int:
    """CRC-32 with the polynomial 0x04C11DB7, most significant bit first, starting from 0; it is 0
    of data that ends with its own checksum."""
    value = 0
    for byte in data:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1) ^ (0x104C11DB7 if value & 0x80000000 else 0)
    return value


def _length_of_half_a_startcode(data: bytes) -> int:
    """How many bytes at the end of `data` may be the beginning of a startcode."""
    for length in range(min(len(data), len(SYNCPOINT) - 1), 0, -1):
        if data.endswith(SYNCPOINT[:length]):
            return length
    return 0
