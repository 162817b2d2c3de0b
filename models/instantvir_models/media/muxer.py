"""The output's container, set up for a whole file, a pipe or a stream without end."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

import av
from av.container import OutputContainer

from instantvir_models.errors import VideoWriteError
from instantvir_models.media.connection import Connection
from instantvir_models.media.limits import MATROSKA_FORMATS, MOV_FORMATS
from instantvir_models.media.pieces import Pieces
from instantvir_models.media.source import USUAL_BUFFER_BYTES
from instantvir_models.outputs.claim import Claim

_MOV_SUFFIXES = frozenset({".mp4", ".mov", ".m4v"})
_LIVE_OPTIONS = {"max_interleave_delta": "1000000"}
"""Microseconds that a frame waits for sound or subtitles of its moment; FFmpeg's default is 10 s."""

# A playlist of the last seconds, without the pieces that left it: an endless stream fills no disk.
_LIVE_HLS_OPTIONS = {"hls_time": "2", "hls_list_size": "6", "hls_flags": "delete_segments"}
# RTSP connects by itself, while PyAV holds the interpreter's lock: not for long. Microseconds.
_LIVE_RTSP_OPTIONS = {"timeout": "5000000"}

_SEVERAL_FILES = frozenset({"hls", "dash", "segment", "stream_segment", "image2", "webm_chunk"})
_PLAYLIST_SUFFIXES = frozenset({".m3u8", ".mpd"})


def writes_several(output_format: str | None, destination: object) -> bool:
    """Whether it is a playlist, beside which FFmpeg puts files of its own."""
    path = destination.path if isinstance(destination, Claim) else destination
    suffix = Path(path).suffix.lower() if isinstance(path, str | Path) else ""
    return output_format in _SEVERAL_FILES or (
        output_format is None and suffix in _PLAYLIST_SUFFIXES
    )


def pieces_of(playlist: Path) -> list[Path]:
    """Files that are there under names that the pieces of a playlist would get."""
    piece = re.compile(re.escape(playlist.stem) + r"\d+\.(ts|m4s)")
    return sorted(path for path in playlist.parent.glob("*") if piece.fullmatch(path.name))


def open_muxer(
    target: str | BinaryIO,
    output_format: str | None,
    *,
    name: str,
    is_whole: bool,
    is_live: bool,
    says_projection: bool = False,
    pieces: Pieces | None = None,
) -> OutputContainer:
    """A container to add streams to, or VideoWriteError if nothing tells which.

    Args:
        output_format: FFmpeg's name of the container; None where the name of `target` tells.
        name: how messages call the output.
        is_whole: it is a file that nobody reads before it is complete.
        is_live: it has no end.
        says_projection: the video is spherical or stereo, which MP4 only knows unofficially.
        pieces: what opens the files of a playlist.
    """
    suffix = Path(target).suffix.lower() if isinstance(target, str) else ""
    options = _options(output_format, suffix, is_whole=is_whole)
    if says_projection:
        options["strict"] = "unofficial"
    if is_live:
        options |= _live_options(output_format, suffix)
    buffer_bytes = target.buffer_bytes if isinstance(target, Connection) else USUAL_BUFFER_BYTES
    try:
        return av.open(
            target,
            "w",
            format=output_format,
            container_options=options,
            buffer_size=buffer_bytes,
            io_open=None if pieces is None else pieces.opened,
        )
    except ValueError as error:
        raise VideoWriteError(
            f"{name}: no container format is known for this name",
            hint="use .mp4, .mkv, .mov, .webm, .avi, .gif or .webp, or name it with `--format`; "
            "a folder's name ends in `/`",
        ) from error


def suffix_tells_format(name: str) -> bool:
    """Whether FFmpeg knows a container by the end of this name."""
    return Path(name).suffix.lower().lstrip(".") in _known_suffixes()


@cache
def _known_suffixes() -> frozenset[str]:
    found: set[str] = set()
    for format_name in av.formats_available:
        with suppress(ValueError):
            found |= av.ContainerFormat(format_name, "w").extensions
    return frozenset(found - {""})


def _options(output_format: str | None, suffix: str, *, is_whole: bool) -> dict[str, str]:
    # Without bitexact Matroska draws random numbers, and two runs differ.
    options = {"fflags": "+bitexact"} if is_whole else {"flush_packets": "1"}
    if output_format in MOV_FORMATS or (output_format is None and suffix in _MOV_SUFFIXES):
        # use_metadata_tags would keep unknown keys but hides the standard ones from players.
        whole = "+faststart"
        live = "frag_keyframe+empty_moov+default_base_moof"
        options["movflags"] = whole if is_whole else live
        options["movie_timescale"] = "90000"  # offsets of streams are counted in it, else to 1 ms
    if output_format in {*MATROSKA_FORMATS, "avi"} or suffix in {".mkv", ".webm", ".avi"}:
        # Else the audio's priming samples, before time 0, would delay every frame by 21 ms.
        options["avoid_negative_ts"] = "disabled"
    return options


def _live_options(output_format: str | None, suffix: str) -> dict[str, str]:
    options = dict(_LIVE_OPTIONS)
    if output_format == "hls" or suffix == ".m3u8":
        options |= _LIVE_HLS_OPTIONS
    if output_format == "rtsp":
        options |= _LIVE_RTSP_OPTIONS
    if output_format == "nut" or suffix == ".nut":
        # NUT would remember every keyframe for an index that an endless stream never writes.
        options["write_index"] = "0"
    return options
