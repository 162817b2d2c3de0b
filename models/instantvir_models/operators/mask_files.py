"""Files of masks, read with care: they come along with videos of others."""

import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instantvir_models.errors import UsageError

MOST_IMAGE_PIXELS = 2**25
"""Of a still mask, or of a point spread: those of 8K."""

MOST_PACKED_PIXELS = 2**27
"""Of all masks in an `.npz`, whatever its size: 64 frames of 1920x1080."""

PIXELS_PER_BYTE = 512
"""And so many more for each byte of the file: random masks take an eighth of a byte for each."""

_PNG = b"\x89PNG\r\n\x1a\n"
_AROUND_A_CHUNK = 12
"""Bytes of its length, name and checksum."""

_SIDES = 3
_MOST_HEADER_BYTES = 1024


def read_packed(path: Path) -> NDArray[np.uint8]:
    """The masks in an `.npz` of `save_mask`, [T, H, W] of 0 and 1.

    Only the two arrays that it has are read, as what they have to be; nothing larger than they say is
    made, and they may not say more than a file of that size can mean.

    Raises:
        UsageError: if it is something else, or damaged.
    """
    try:
        most = MOST_PACKED_PIXELS + PIXELS_PER_BYTE * path.stat().st_size
        with zipfile.ZipFile(path) as stored:
            shape = _array(stored, "shape.npy", np.dtype(np.int64), most=_SIDES)
            frames, height, width = (int(side) for side in shape)
            if min(frames, height, width) < 1 or frames * height * width > most:
                raise ValueError(f"{frames} masks of {width}x{height}, more than such a file means")
            num_pixels = frames * height * width
            packed = _array(stored, "known.npy", np.dtype(np.uint8), most=-(-num_pixels // 8))
        if len(packed) != -(-num_pixels // 8):
            raise ValueError(f"{len(packed)} bytes for {num_pixels} pixels")
        return np.unpackbits(packed.view(np.uint8), count=num_pixels).reshape(frames, height, width)
    except _DAMAGE as error:
        raise UsageError(
            f"`{path}` is not a mask of ours ({_in_short(error)})",
            hint="give a PNG, white where pixels are known",
        ) from error


_DAMAGE = (
    OSError, ValueError, KeyError, EOFError, NotImplementedError, RuntimeError, OverflowError,
    struct.error, zlib.error, zipfile.BadZipFile,
)  # fmt: skip


def _in_short(error: Exception) -> str:
    """What an error says, without all the bytes that `zipfile` may quote of a damaged file."""
    text = str(error)
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


_LONGEST_REASON = 120


def _array(
    stored: zipfile.ZipFile, name: str, dtype: np.dtype[np.generic], *, most: int
) -> NDArray[np.generic]:
    """A flat array of at most so many numbers of one kind."""
    with stored.open(name) as member:
        data = member.read(most * dtype.itemsize + _MOST_HEADER_BYTES + 1)
    if data[:6] != b"\x93NUMPY" or len(data) < 12:
        raise ValueError(f"`{name}` is no array")
    length_bytes = 2 if data[6] == 1 else 4
    header_bytes = 8 + length_bytes + int.from_bytes(data[8 : 8 + length_bytes], "little")
    header = data[8 + length_bytes : header_bytes].decode("latin-1")
    if header_bytes > _MOST_HEADER_BYTES or f"'descr': '{dtype.str}'" not in header:
        raise ValueError(f"`{name}` is no array of {dtype}")
    body = data[header_bytes:]
    if len(body) > most * dtype.itemsize or len(body) % dtype.itemsize:
        raise ValueError(
            f"`{name}` has {len(body)} bytes, at most {most * dtype.itemsize} are right"
        )
    return np.frombuffer(body, dtype)


def can_be_named(path: Path) -> bool:
    """Whether the system lets a file be called so."""
    try:
        path.exists()
    except (OSError, ValueError):
        return False
    return True


def stated_size(path: Path) -> tuple[int, int] | None:
    """(width, height) that a PNG or JPEG says it has; None of another file."""
    with path.open("rb") as file:
        head = file.read(2**16)
    if head.startswith(_PNG) and len(head) >= 24:
        return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    if head.startswith(b"\xff\xd8"):
        return _size_of_jpeg(head)
    return None


def claims_too_much(path: Path) -> bool:
    """Whether a PNG has a part that is larger than the file: OpenCV makes room for it all the same."""
    end = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(_PNG)) != _PNG:
            return False
        place = len(_PNG)
        while place < end:
            file.seek(place)
            place += int.from_bytes(file.read(4), "big") + _AROUND_A_CHUNK
            if file.read(4) == b"IEND":
                break
        return place > end


_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})


def _size_of_jpeg(head: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 <= len(head) and head[place] == 0xFF:
        if head[place + 1] in _FRAME_MARKERS:
            height, width = struct.unpack(">HH", head[place + 5 : place + 9])
            return width, height
        place += 2 + int.from_bytes(head[place + 2 : place + 4], "big")
    return None
