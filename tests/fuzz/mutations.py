"""Bytes that went wrong, the same ones for the same seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
"""Where parsers count wrong."""

TOKENS = (
    b"file:///etc/passwd", b"../../secret.png", b"/dev/zero", b"%n%s%d", b"\0", b"\xff\xfe", b"{", b"[" * 64,
    b'"' * 8, b"1e999", b"-1", b"NaN", b"9" * 40, b"+", b"down:factor=8", b"mask:path=", b"\r\n\r\n", b"http://",
    b"Content-Length: 99999", b"true", b"null", b"\\ud800",
)  # fmt: skip


def mutated(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """`data` with one to four things wrong with it; `others` are what may be mixed in."""
    for _ in range(chance.choice((1, 1, 1, 2, 3, 4))):
        data = chance.choice(_WAYS)(data, others, chance)
    return data


def _flipped(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        if changed:
            changed[_place(data, chance)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _numbered(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    size = chance.choice((1, 2, 4, 4, 8))
    number = chance.choice(NUMBERS) % (1 << 8 * size)
    place = _place(data, chance)
    new = number.to_bytes(size, chance.choice(("big", "little")))
    return data[:place] + new + data[place + size :]


def _cut(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    return data[: _place(data, chance)]


def _without(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    begin = _place(data, chance)
    return data[:begin] + data[begin + chance.randrange(1, 200) :]


def _twice(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    begin = _place(data, chance)
    piece = data[begin : begin + chance.randrange(1, 200)]
    return data[:begin] + piece * chance.choice((2, 2, 3, 20)) + data[begin + len(piece) :]


def _with_token(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    place = _place(data, chance)
    return data[:place] + chance.choice(TOKENS) + data[place + chance.choice((0, 0, 1, 8)) :]


def _spliced(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    other = chance.choice(others)
    return data[: _place(data, chance)] + other[_place(other, chance) :]


def _place(data: bytes, chance: random.Random) -> int:
    """Somewhere, and in the beginning, where headers are, as often as everywhere else."""
    end = len(data) if chance.random() < 0.5 else min(len(data), 512)
    return chance.randrange(max(1, end))


_WAYS: tuple[Callable[[bytes, Sequence[bytes], random.Random], bytes], ...] = (
    _flipped, _flipped, _numbered, _numbered, _cut, _without, _twice, _with_token, _spliced,
)  # fmt: skip
