"""What the user named as input or output: a path, an address, a pipe, or images by a pattern."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from instantvir_models.errors import VideoOpenError

Source = str | Path | Sequence[str | Path] | BinaryIO
Destination = str | Path | BinaryIO

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})
_LOCAL_SCHEMES = frozenset({"file", "pipe", "fd", "concat", "subfile", "data", "cache", "async"})
IMAGE_NUMBER = re.compile(r"%0?\d*d")
"""The place of the number in a pattern such as `out_%05d.png`."""


def scheme_of(text: str) -> str | None:
    """The lower-case scheme of something like `rtsp://camera/1` or `file:x.mp4`; None for a path.

    One letter is a drive of Windows, not a scheme, and `Show: part 1.mp4` is a name: what follows a
    scheme is `//`, unless it is one of those of local things. A file of that name is a path.
    """
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):(//)?", text)
    if match is None or not (match[2] or match[1].lower() in _LOCAL_SCHEMES):
        return None
    return None if _is_there(text) else match[1].lower()


def as_address(text: str) -> str:
    """What FFmpeg is to open: it takes every colon in a path for the end of a scheme, unless one
    is in front."""
    return f"file:{text}" if ":" in text and scheme_of(text) is None else text


def _is_there(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False


def is_network_address(text: str) -> bool:
    """Whether `text` is something like `rtsp://camera/1`; files as `file:...` are not."""
    return scheme_of(text) not in {None, "file", "pipe", "fd"}


def source_name(source: Source) -> str:
    """How messages call the source."""
    if isinstance(source, (str, Path)):
        return "standard input" if str(source) == "-" else f"`{source}`"
    if isinstance(source, Sequence):
        return f"the list of {len(source)} images"
    return _stream_name(source)


def destination_name(destination: Destination) -> str:
    """How messages call the destination."""
    if isinstance(destination, (str, Path)):
        return "standard output" if str(destination) == "-" else f"`{destination}`"
    return _stream_name(destination)


def _stream_name(stream: BinaryIO) -> str:
    return f"`{getattr(stream, 'name', None) or 'the given stream'}`"


def is_image_pattern(destination: object) -> bool:
    """Whether it is something like `out_%05d.png`."""
    if not isinstance(destination, (str, Path)):
        return False
    path = Path(destination)
    return bool(IMAGE_NUMBER.search(path.name)) and path.suffix.lower() in IMAGE_SUFFIXES


def is_image_file(destination: object) -> bool:
    """Whether it is one image, such as `out.png`; WebP holds animations and is a container."""
    if not isinstance(destination, (str, Path)) or is_image_pattern(destination):
        return False
    return Path(destination).suffix.lower() in IMAGE_SUFFIXES - {".webp"}


def image_files(source: Source) -> list[Path] | None:
    """The files of an image sequence (list, glob, or pattern such as `%05d.png`), else None.

    Raises:
        VideoOpenError: if it is one and has no file.
    """
    if isinstance(source, (str, Path)):
        return _files_of_pattern(str(source))
    if isinstance(source, Sequence):
        if not source:
            raise VideoOpenError("the list of images is empty", hint="give at least one image file")
        return [Path(name) for name in source]
    return None


def _files_of_pattern(text: str) -> list[Path] | None:
    if text == "-" or scheme_of(text) is not None or Path(text).exists():
        return None
    if IMAGE_NUMBER.search(Path(text).name):
        return _numbered_files(Path(text))
    if not glob.has_magic(text):
        return None
    files = sorted(Path(name) for name in glob.glob(text))
    if not files:
        raise VideoOpenError(
            f"no file matches `{text}`", hint="quote the pattern and check the folder"
        )
    return files


def _numbered_files(pattern: Path) -> list[Path]:
    before, after = IMAGE_NUMBER.split(pattern.name, maxsplit=1)
    number = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
    matches = [number.fullmatch(path.name) for path in pattern.parent.glob("*")]
    found = sorted((int(match[1]), match[0]) for match in matches if match)
    if not found:
        raise VideoOpenError(
            f"no file matches `{pattern}`", hint="check the folder and the number of digits"
        )
    return [pattern.parent / name for _, name in found]
