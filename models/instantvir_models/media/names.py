"""What the user named as input or output: a path, an address, a pipe, or images by a pattern."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from instantvir_models.errors import VideoOpenError
from instantvir_models.outputs.claim import Claim
from instantvir_models.outputs.names import IMAGE_NUMBER, pictures_of, scheme_of

Source = str | Path | Sequence[str | Path] | BinaryIO
Destination = str | Path | BinaryIO | Claim
"""A claim is a name that is held already; see `outputs.claim`."""

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})
"""Pictures that are written."""

PICTURE_SUFFIXES = IMAGE_SUFFIXES | {
    ".avif", ".dpx", ".exr", ".hdr", ".heic", ".heif", ".j2k", ".jls", ".jp2", ".jxl", ".pam", ".pbm", ".pcx",
    ".pfm", ".pgm", ".pnm", ".ppm", ".psd", ".qoi", ".ras", ".sgi", ".sun", ".tga", ".xwd",
}  # fmt: skip
"""Pictures that are read."""


def as_address(text: str) -> str:
    """What FFmpeg is to open: it takes every colon in a path for the end of a scheme, unless one
    is in front."""
    return f"file:{text}" if ":" in text and scheme_of(text) is None else text


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
    if isinstance(destination, Claim):
        return f"`{destination.path}`"
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


def is_picture(source: object) -> bool:
    """Whether a file of this name is one picture, if it does not move; see `is_animated`."""
    return isinstance(source, (str, Path)) and Path(source).suffix.lower() in PICTURE_SUFFIXES


def is_animated(path: Path) -> bool:
    """Whether a file that is called like a picture (PNG, WebP, AVIF, HEIC) holds several that are shown
    one after the other."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    if head.startswith(b"\x89PNG"):
        return b"acTL" in head.partition(b"IDAT")[0]
    if head[4:8] == b"ftyp":
        return head[8:12] in (b"avis", b"msf1", b"hevc", b"hevx")
    return (
        head[:4] == b"RIFF"
        and head[8:16] == b"WEBPVP8X"
        and head[20:21] != b""
        and bool(head[20] & 2)
    )


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
    found = pictures_of(pattern)
    if not found:
        raise VideoOpenError(
            f"no file matches `{pattern}`", hint="check the folder and the number of digits"
        )
    return found
