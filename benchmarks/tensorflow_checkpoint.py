"""The arrays of a TensorFlow checkpoint, read without TensorFlow.

The index is a sorted string table (as LevelDB writes it) of protocol buffers that say where in the
data file each array is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOOTER_BYTES = 48
FLOAT = 1
ARRAY_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def arrays(prefix: Path) -> dict[str, NDArray[np.float32]]:
    """Every float32 array of `PREFIX.index` and `PREFIX.data-00000-of-00001` by its name."""
    index = prefix.with_name(prefix.name + ".index").read_bytes()
    data = prefix.with_name(prefix.name + ".data-00000-of-00001").read_bytes()
    found = {}
    for key, value in _rows(index):
        name = key.decode(errors="replace")
        if name.endswith(ARRAY_SUFFIX) and "OPTIMIZER" not in name:
            kind, shape, first, size = _entry(value)
            if kind == FLOAT:
                array = np.frombuffer(data[first : first + size], "<f4").reshape(shape)
                found[name.removesuffix(ARRAY_SUFFIX)] = array
    return found


def _rows(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    footer = table[-FOOTER_BYTES:]
    _, at = _varint(footer, 0)
    _, at = _varint(footer, at)
    offset, at = _varint(footer, at)
    size, _ = _varint(footer, at)
    for _, handle in _block(table, offset, size):
        inner_offset, at = _varint(handle, 0)
        inner_size, _ = _varint(handle, at)
        yield from _block(table, inner_offset, inner_size)


def _block(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values; a key repeats the beginning of the one before."""
    if table[offset + size]:
        raise ValueError("the checkpoint's index is compressed")
    block = table[offset : offset + size]
    (restarts,) = struct.unpack("<I", block[-4:])
    at, key = 0, b""
    while at < size - 4 - 4 * restarts:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + own]
        yield key, block[at + own : at + own + length]
        at += own + length


def _entry(message: bytes) -> tuple[int, tuple[int, ...], int, int]:
    """Type, shape, first byte and size of an array."""
    fields: dict[int, Any] = {4: 0} | dict(_fields(message))
    dimensions = [dict(_fields(part)) for _, part in _fields(fields.get(2, b""))]
    shape = tuple(int(dimension[1]) for dimension in dimensions)
    return fields[1], shape, fields[4], fields[5]


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag & 7 == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
        elif tag & 7 == 2:
            length, at = _varint(message, at)
            yield tag >> 3, message[at : at + length]
            at += length
        else:
            at += 4 if tag & 7 == 5 else 8


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
