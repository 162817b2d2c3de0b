"""What the user named as input, opened; every failure becomes a sentence."""

from __future__ import annotations

import glob
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import av
from av.container import InputContainer

from instantvir_models.errors import VideoOpenError
from instantvir_models.media.address import scheme_of

logger = logging.getLogger(__name__)

Source = str | Path | Sequence[str | Path] | BinaryIO

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})
IMAGE_NUMBER = re.compile(r"%0?\d*d")
"""The place of the number in a pattern such as `out_%05d.png`."""


LIVE_OPTIONS = {"analyzeduration": "200000", "flags": "low_delay"}
"""Microseconds of probing that still find the sound of a transport stream. `fflags=nobuffer` and a
tiny `probesize` start sooner, but lose frames or the frame rate."""

LIVE_BUFFER_BYTES = 4096
USUAL_BUFFER_BYTES = 32768


def name_of(source: Source) -> str:
    """How messages call the source."""
    if isinstance(source, (str, Path)):
        return "standard input" if str(source) == "-" else f"`{source}`"
    if isinstance(source, Sequence):
        return f"the list of {len(source)} images"
    return f"`{getattr(source, 'name', None) or 'the given stream'}`"


def image_files(source: Source) -> list[Path] | None:
    """The files of an image sequence (list, glob, or pattern such as `%05d.png`), else None."""
    if isinstance(source, (str, Path)):
        text = str(source)
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
    if isinstance(source, Sequence):
        if not source:
            raise VideoOpenError("the list of images is empty", hint="give at least one image file")
        return [Path(name) for name in source]
    return None


def open_container(
    source: str | Path | BinaryIO,
    *,
    input_format: str | None,
    input_options: Mapping[str, str] | None,
    is_live: bool = False,
    timeout_seconds: float | None = None,
) -> InputContainer:
    """The opened container, or VideoOpenError.

    Args:
        is_live: read in small pieces and probe briefly, so that the first frame comes soon.
        timeout_seconds: give up on a network source that is silent for so long.
    """
    name = name_of(source)
    if isinstance(source, (str, Path)):
        if str(source) == "-":
            target: str | BinaryIO = _standard_input()
        else:
            _check_path(str(source), is_device=input_format is not None)
            target = str(source)
    else:
        target = source
    options = {**(LIVE_OPTIONS if is_live else {}), **(input_options or {})}
    buffer_bytes = LIVE_BUFFER_BYTES if is_live else USUAL_BUFFER_BYTES
    try:
        return _open(target, input_format, options, buffer_bytes, timeout_seconds)
    except (av.error.InvalidDataError, av.error.EOFError) as error:
        raise VideoOpenError(
            f"{name} is not a video that FFmpeg can read",
            hint="it may be cut off, empty inside or of another kind; try `ffprobe` on it",
        ) from error
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise VideoOpenError(f"cannot open {name}: {reason}", hint=_hint_for(error)) from error
    except ValueError as error:
        raise VideoOpenError(
            f"cannot open {name}: {error}", hint="check the name given as input format"
        ) from error


def _open(
    target: str | BinaryIO,
    input_format: str | None,
    options: dict[str, str],
    buffer_bytes: int,
    timeout_seconds: float | None,
) -> InputContainer:
    def opened(format_name: str | None) -> InputContainer:
        return av.open(
            target,
            "r",
            format=format_name,
            options=options,
            buffer_size=buffer_bytes,
            timeout=timeout_seconds,
        )

    try:
        return opened(input_format)
    except av.error.EOFError:
        # FFmpeg 8.1 does not recognise an MPEG-TS file of 9 or 10 packets.
        if input_format is None and str(target).lower().endswith((".ts", ".m2ts", ".mts")):
            return opened("mpegts")
        raise


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


def _standard_input() -> BinaryIO:
    stream = sys.stdin.buffer
    if hasattr(stream, "peek") and not stream.peek(1):
        raise VideoOpenError(
            "standard input is empty",
            hint="pipe a video into it, for example `ffmpeg -i in.mp4 -c copy -f matroska - | ...`",
        )
    return stream


def _check_path(text: str, *, is_device: bool) -> None:
    if is_device or scheme_of(text) is not None:
        return
    path = Path(text)
    if not path.exists():
        raise VideoOpenError(f"`{text}` does not exist", hint="check the spelling and the folder")
    if path.is_dir():
        raise VideoOpenError(
            f"`{text}` is a directory",
            hint=f"name a file, or its images as a pattern: '{text}/*.png'",
        )
    if path.is_file() and path.stat().st_size == 0:
        raise VideoOpenError(
            f"`{text}` is empty", hint="the file has 0 bytes; copy or record it again"
        )


def _hint_for(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "you may not read it; check its permissions"
    if isinstance(error, av.error.HTTPError | ConnectionError | TimeoutError):
        return "check the address and that the server answers"
    return "check the path or address, and the input format if one was given"
