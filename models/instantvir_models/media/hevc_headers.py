"""The quantiser that an HEVC file says of its key frames: FFmpeg's decoder does not hand it on.

Reads just enough of sequence, picture and slice headers (Rec. ITU-T H.265, section 7.3).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

_IDR = (19, 20)
_SPS, _PPS = 33, 34
_HIGHEST_QP = 51
_UNREADABLE = (KeyError, ValueError, IndexError)
"""What broken or unusual headers end in: nothing is said then."""


class _Bits:
    """Reads numbers off a payload whose emulation prevention bytes are gone."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data), 8 * len(data)

    def read(self, count: int) -> int:
        if count > self._left:
            raise ValueError("the header ends too early")
        self._left -= count
        return (self._value >> self._left) & ((1 << count) - 1)

    def flag(self) -> bool:
        return bool(self.read(1))

    def unsigned(self) -> int:
        """An Exp-Golomb code."""
        zeros = 0
        while not self.read(1):
            zeros += 1
        return (1 << zeros) - 1 + self.read(zeros)

    def signed(self) -> int:
        code = self.unsigned()
        return (code + 1) // 2 if code % 2 else -(code // 2)


@dataclass(frozen=True)
class _Sequence:
    """What of a sequence parameter set a slice header depends on."""

    has_separate_planes: bool
    has_chroma: bool
    has_offsets: bool
    """Sample adaptive offset."""


@dataclass(frozen=True)
class _PictureSet:
    """The same of a picture parameter set."""

    sequence: int
    has_output_flag: bool
    extra_bits: int
    initial_qp: int


class HEVCHeaders:
    """Remembers the parameter sets of one stream.

    Args:
        extradata: what the container says of the codec; may be empty.
    """

    def __init__(self, extradata: bytes) -> None:
        self._sequences: dict[int, _Sequence] = {}
        self._pictures: dict[int, _PictureSet] = {}
        self._length_size = 0
        if len(extradata) > 22 and extradata[0] == 1:
            self._length_size = (extradata[21] & 3) + 1
            units = _units_of_configuration(extradata)
        else:
            units = _units_between_start_codes(extradata)
        with suppress(*_UNREADABLE):
            for unit in units:
                self._note(unit)

    def qp_of(self, packet: bytes) -> int | None:
        """The quantiser of the first slice of a key frame; None of others, and of what is unusual."""
        for unit in self._units(packet):
            try:
                found = self._note(unit)
            except _UNREADABLE:
                return None
            if found is not None:
                return found if -48 <= found <= _HIGHEST_QP else None
        return None

    def has_message(self, packet: bytes, units: frozenset[int], kind: int) -> bool:
        """Whether the packet has a message (SEI) of that kind in units of those."""
        return any(
            kind in _messages_in(unit)
            for unit in self._units(packet)
            if len(unit) > 2 and unit[0] >> 1 & 63 in units
        )

    def _units(self, packet: bytes) -> Iterator[bytes]:
        if not self._length_size:
            return _units_between_start_codes(packet)
        return _units_with_length(packet, self._length_size)

    def _note(self, unit: bytes) -> int | None:
        """The quantiser if the unit is a slice of a key frame; parameter sets are remembered."""
        if len(unit) < 3:
            return None
        kind = unit[0] >> 1 & 63
        if kind == _SPS:
            identity, sequence = _sequence_in(_payload(unit))
            self._sequences[identity] = sequence
        elif kind == _PPS:
            identity, picture = _picture_in(_payload(unit))
            self._pictures[identity] = picture
        elif kind in _IDR:
            return self._slice_qp(_payload(unit[:64]))
        return None

    def _slice_qp(self, bits: _Bits) -> int:
        if not bits.flag():
            raise ValueError("not the first slice")
        bits.read(1)
        picture = self._pictures[bits.unsigned()]
        sequence = self._sequences[picture.sequence]
        bits.read(picture.extra_bits)
        bits.unsigned()  # type of the slice
        bits.read(int(picture.has_output_flag) + 2 * int(sequence.has_separate_planes))
        if sequence.has_offsets:
            bits.read(1 + int(sequence.has_chroma))
        return picture.initial_qp + bits.signed()


def _sequence_in(bits: _Bits) -> tuple[int, _Sequence]:
    bits.read(4)
    sub_layers = bits.read(3)
    bits.read(1)
    _skip_profile(bits, sub_layers)
    identity, chroma = bits.unsigned(), bits.unsigned()
    has_separate_planes = chroma == 3 and bits.flag()
    bits.unsigned(), bits.unsigned()  # size
    if bits.flag():
        for _ in range(4):  # conformance window
            bits.unsigned()
    bits.unsigned(), bits.unsigned(), bits.unsigned()  # depths, length of the order count
    for _ in range(sub_layers + 1 if bits.flag() else 1):
        bits.unsigned(), bits.unsigned(), bits.unsigned()
    for _ in range(6):  # sizes of blocks and transforms, depths of their trees
        bits.unsigned()
    if bits.flag() and bits.flag():
        raise ValueError("scaling lists are not read")
    bits.read(1)
    return identity, _Sequence(has_separate_planes, chroma != 0, has_offsets=bits.flag())


def _skip_profile(bits: _Bits, sub_layers: int) -> None:
    bits.read(96)
    present = [(bits.flag(), bits.flag()) for _ in range(sub_layers)]
    bits.read(2 * (8 - sub_layers) if sub_layers else 0)
    for has_profile, has_level in present:
        bits.read(88 * has_profile + 8 * has_level)


def _picture_in(bits: _Bits) -> tuple[int, _PictureSet]:
    identity, sequence = bits.unsigned(), bits.unsigned()
    bits.read(1)
    has_output_flag, extra_bits = bits.flag(), bits.read(3)
    bits.read(2)
    bits.unsigned(), bits.unsigned()  # numbers of references
    return identity, _PictureSet(sequence, has_output_flag, extra_bits, 26 + bits.signed())


def _messages_in(unit: bytes) -> Iterator[int]:
    """Kinds of the messages in a unit (section 7.3.5)."""
    data, at = unit[2:].replace(b"\0\0\3", b"\0\0"), 0
    while at + 2 < len(data):
        kind, at = _number_of_bytes(data, at)
        size, at = _number_of_bytes(data, at)
        yield kind
        at += size


def _number_of_bytes(data: bytes, at: int) -> tuple[int, int]:
    """A number that is the sum of its bytes, of which all but the last are 255, and where it ends."""
    begin = at
    while at < len(data) and data[at] == 255:
        at += 1
    last = data[at] if at < len(data) else 0
    return 255 * (at - begin) + last, at + 1


def _payload(unit: bytes) -> _Bits:
    return _Bits(unit[2:].replace(b"\0\0\3", b"\0\0"))


def _units_of_configuration(extradata: bytes) -> Iterator[bytes]:
    """Parameter sets in an HEVCDecoderConfigurationRecord."""
    at = 23
    for _ in range(extradata[22]):
        count, at = int.from_bytes(extradata[at + 1 : at + 3]), at + 3
        for _ in range(count):
            size = int.from_bytes(extradata[at : at + 2])
            yield extradata[at + 2 : at + 2 + size]
            at += 2 + size


def _units_with_length(packet: bytes, length_size: int) -> Iterator[bytes]:
    at = 0
    while at + length_size <= len(packet):
        size = int.from_bytes(packet[at : at + length_size])
        yield packet[at + length_size : at + length_size + size]
        at += length_size + size


def _units_between_start_codes(data: bytes) -> Iterator[bytes]:
    return (unit for unit in data.split(b"\0\0\1")[1:] if unit)
