"""Whether a file holds all the bytes that it says it has: FFmpeg reads one that was cut as if it ended."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_LARGEST_OGG_PAGE = 65_307
_BOXES_OF_PICTURES = frozenset({b"moov", b"moof", b"mdat"})
_UNREADABLE = (OSError, ValueError, IndexError, struct.error)


def holds_all(path: Path | None, format_name: str) -> bool | None:
    """True or False for a file that tells; None for one that does not, and for what is no file.

    Args:
        path: of the file.
        format_name: FFmpeg's.
    """
    check = next((_CHECKS[n] for n in format_name.split(",") if n in _CHECKS), None)
    try:
        if check is None or path is None:
            return None
        with path.open("rb") as file:
            return check(file, path.stat().st_size)
    except _UNREADABLE:
        return None


def _riff(file: BinaryIO, num_bytes: int) -> bool | None:
    """AVI: a chunk of RIFF, above 1 GB one after the other."""
    at = 0
    while at < num_bytes:
        file.seek(at)
        kind, size = struct.unpack("<4sI", file.read(8))
        if kind != b"RIFF":
            return True  # something was put behind
        if size == 0:
            return None  # whoever wrote it did not come back to say it
        at += 8 + size + size % 2
    return at in (num_bytes, num_bytes + 1)


def _matroska(file: BinaryIO, num_bytes: int) -> bool | None:
    found = segment_of(file)
    return None if found is None else found[1] <= num_bytes


def segment_of(file: BinaryIO) -> tuple[int, int] | None:
    """Begin and end of what a Matroska file holds behind its head; None where it does not say.

    Raises:
        IndexError: if the file ends before that.
    """
    identity, at, size = ebml_element(file, 0)
    if identity != _EBML or size is None:
        return None
    identity, at, size = ebml_element(file, at + size)
    return None if identity != _SEGMENT or size is None else (at, at + size)


def ebml_element(file: BinaryIO, at: int) -> tuple[int, int, int | None]:
    """Identity, begin of the content and size of an EBML element; no size where it is not known.

    Raises:
        IndexError: if the file ends before that.
    """
    file.seek(at)
    head = file.read(12)
    id_length = 9 - head[0].bit_length()
    size_length = 9 - head[id_length].bit_length()
    size = int.from_bytes(head[id_length : id_length + size_length]) & ((1 << 7 * size_length) - 1)
    is_known = size != (1 << 7 * size_length) - 1
    begin = at + id_length + size_length
    return int.from_bytes(head[:id_length]), begin, size if is_known else None


def _quicktime(file: BinaryIO, num_bytes: int) -> bool | None:
    """MP4 and QuickTime: boxes, one behind the other."""
    at, kind = 0, b""
    while at + 8 <= num_bytes:
        file.seek(at)
        size, kind = struct.unpack(">I4s", file.read(8))
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8))
        if size < 8:
            return None  # one that goes on to the end, or something else that was put behind
        at += size
    return False if at > num_bytes and kind in _BOXES_OF_PICTURES else None


def _flash(file: BinaryIO, num_bytes: int) -> bool | None:
    """FLV: each tag is followed by its size."""
    file.seek(num_bytes - 4)
    size = int.from_bytes(file.read(4))
    if not 11 <= size <= num_bytes - 13:
        return False
    file.seek(num_bytes - 4 - size)
    return int.from_bytes(file.read(4)[1:]) == size - 11


def _asf(file: BinaryIO, num_bytes: int) -> bool | None:
    head = file.read(65_536)
    at = head.index(_ASF_FILE_PROPERTIES)
    (size,) = struct.unpack_from("<Q", head, at + 40)
    return None if size == 0 else size <= num_bytes


def _ogg(file: BinaryIO, num_bytes: int) -> bool | None:
    """The last page says how long it is; not whether another one was to follow."""
    begin = max(0, num_bytes - 2 * _LARGEST_OGG_PAGE)
    file.seek(begin)
    tail = file.read()
    at = tail.rindex(b"OggS")
    count = tail[at + 26]
    size = 27 + count + sum(tail[at + 27 : at + 27 + count])
    return False if at + size > len(tail) else None


_CHECKS: dict[str, Callable[[BinaryIO, int], bool | None]] = {
    "avi": _riff,
    "matroska": _matroska,
    "webm": _matroska,
    "mov": _quicktime,
    "flv": _flash,
    "asf": _asf,
    "ogg": _ogg,
}
