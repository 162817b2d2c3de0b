"""What the user named as input, opened; every failure becomes a sentence."""

from __future__ import annotations

import codecs
import io
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import av
from av.container import InputContainer

from instantvir_models.errors import VideoOpenError
from instantvir_models.media.ffmpeg_errors import open_error
from instantvir_models.media.names import as_address, is_animated, is_picture, source_name
from instantvir_models.media.nut import NutPieces
from instantvir_models.media.reach import (
    MOST_STREAMS,
    PROBED_BYTES,
    USUAL_RULES,
    InputRules,
    head_of,
    points_elsewhere,
    refuse_content_that_reaches,
    refuse_names_that_reach,
    whitelists,
)
from instantvir_models.media.webp_film import webp_film
from instantvir_models.outputs.names import scheme_of

LIVE_OPTIONS = {"analyzeduration": "200000", "flags": "low_delay"}
"""Microseconds of probing that still find the sound of a transport stream. `fflags=nobuffer` and a
tiny `probesize` start sooner, but lose frames or the frame rate."""

LIVE_BUFFER_BYTES = 4096
USUAL_BUFFER_BYTES = 32768


_FOREIGN_TEXT = "instantvir-foreign-text"


def _as_latin(error: UnicodeError) -> tuple[str, int]:
    """What is not UTF-8 read as Windows' Latin alphabet: the usual one of old tags."""
    assert isinstance(error, UnicodeDecodeError)
    wrong = error.object[error.start : error.end]
    return wrong.decode("cp1252", "replace"), error.end


codecs.register_error(_FOREIGN_TEXT, _as_latin)

UNPROBED = {"probesize": "32", "analyzeduration": "1", "fpsprobesize": "0"}
"""For a piece of a stream that is known: probing would hold back the frames of 0.2 s each time."""


@dataclass(frozen=True)
class ContainerSource:
    """What a container is read from, and how it is opened."""

    source: str | Path | BinaryIO
    """A path, an address, `-`, or a file object."""
    input_format: str | None = None
    """FFmpeg's name of the format or device, where it cannot be told from the data."""
    input_options: Mapping[str, str] | None = None
    is_live: bool = False
    """Read in small pieces and probe briefly, so that the first frame comes soon."""
    timeout_seconds: float | None = None
    """Give up on a network source that is silent for so long."""
    rules: InputRules = USUAL_RULES
    """How far it may reach, and what it may cost."""
    codec: str | None = None
    """The one codec that may be decoded, where whoever hands the container on is not trusted."""

    @property
    def name(self) -> str:
        """How messages call it."""
        return source_name(self.source)

    @property
    def path(self) -> Path | None:
        """The file that is read; None of anything else."""
        if not isinstance(self.source, (str, Path)):
            return None
        text = str(self.source)
        path = Path(text.partition(":")[2] if scheme_of(text) == "file" else text)
        return path if path.is_file() else None

    @property
    def is_file(self) -> bool:
        """Whether it is a whole file, which may be read twice."""
        return self.path is not None

    def open(self) -> InputContainer:
        """The opened container, or VideoOpenError."""
        target = self._target()
        self._refuse_what_reaches(target)
        input_format, by_name = self.input_format, self._told_by_its_name(target)
        if by_name:
            input_format = "image2pipe"
        options = {
            "probesize": str(PROBED_BYTES),
            **(LIVE_OPTIONS if self.is_live else {}),
            **by_name,
            **(self.input_options or {}),
            **whitelists(self._address(target), input_format, self.rules),
            **({} if self.codec is None else {"codec_whitelist": self.codec}),
        }
        buffer_bytes = LIVE_BUFFER_BYTES if self.is_live else USUAL_BUFFER_BYTES
        try:
            container = _open(target, input_format, options, buffer_bytes, self.timeout_seconds)
        except av.error.ArgumentError as error:
            if self.input_format or self.input_options or self.rules.follow_references:
                raise open_error(error, self.name) from error
            raise VideoOpenError(
                f"{self.name} is of a kind that is not opened: it is no container of video, or one "
                "that names others",
                hint="`--follow-references` opens every kind, if you trust it",
            ) from error
        except (av.FFmpegError, OSError, ValueError) as error:
            raise open_error(error, self.name) from error
        return self._checked(container)

    def _checked(self, container: InputContainer) -> InputContainer:
        if len(container.streams) <= MOST_STREAMS:
            return container
        num_streams = len(container.streams)
        container.close()
        raise VideoOpenError(
            f"{self.name} has {num_streams} streams; at most {MOST_STREAMS} are read",
            hint="take the video out of it with another program first",
        )

    def _refuse_what_reaches(self, target: str | BinaryIO) -> None:
        """VideoOpenError for what would open something else."""
        if isinstance(target, str):
            refuse_names_that_reach(target, self.input_format, self.rules)
        if self.input_format is not None or (isinstance(target, NutPieces) and target.has_begun):
            return
        refuse_content_that_reaches(head_of(target), self.name, self.rules)
        is_path = isinstance(target, str) and not self.rules.follow_references
        if is_path and points_elsewhere(Path(str(target).removeprefix("file:"))):
            raise VideoOpenError(
                f"{self.name} keeps its pictures in another file",
                hint="`--follow-references` opens that, if you trust it",
            )

    def open_next_piece(self) -> InputContainer | None:
        """The next container of a source that comes in pieces; None when there is none."""
        if not (isinstance(self.source, NutPieces) and self.source.begin_next_piece()):
            return None
        return replace(self, input_options={**(self.input_options or {}), **UNPROBED}).open()

    def _target(self) -> str | BinaryIO:
        if not isinstance(self.source, (str, Path)):
            return self.source
        if str(self.source) == "-":
            return _standard_input()
        text = str(self.source)
        _check_path(text, is_device=self.input_format is not None)
        path = self.path
        if path is not None and path.suffix.lower() == ".webp" and is_animated(path):
            return webp_film(path, self.name, self.rules)
        if ("%" in text or is_picture(text)) and path is not None:  # no pattern, no list
            return _under_a_plain_name(path)
        return as_address(text) if self.input_format is None or self.is_file else text

    def _told_by_its_name(self, target: str | BinaryIO) -> dict[str, str]:
        """FFmpeg's options for a file that is whole in one packet and of a kind that only its name
        tells: TGA begins with nothing that is its own, and FFmpeg knows PAM by nothing else."""
        path = self.path
        if self.input_format or isinstance(target, str) or path is None or not _needs_name(path):
            return {}
        return {"frame_size": str(path.stat().st_size)}

    def _address(self, target: str | BinaryIO) -> str | None:
        return target if isinstance(target, str) else None


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
            metadata_errors=_FOREIGN_TEXT,
        )

    try:
        return opened(input_format)
    except av.error.EOFError:
        # FFmpeg 8.1 does not recognise an MPEG-TS file of 9 or 10 packets.
        if input_format is None and str(target).lower().endswith((".ts", ".m2ts", ".mts")):
            return opened("mpegts")
        raise


def _under_a_plain_name(path: Path) -> BinaryIO:
    """The file under a name that FFmpeg does not take for a pattern of others, nor for a picture of a
    series, as it does with `.jpg`."""
    raw = io.FileIO(path)
    keeps_name = _needs_name(path) or not is_picture(path)
    raw.name = str(path if keeps_name else path.with_suffix("")).replace("%", "_")
    return io.BufferedReader(raw)


def _needs_name(path: Path) -> bool:
    return path.suffix.lower() in (".tga", ".pam")


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise VideoOpenError("standard input is closed", hint="pipe a video into it")
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
