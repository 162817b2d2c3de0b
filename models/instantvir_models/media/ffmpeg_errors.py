"""What FFmpeg and the system report, as sentences to a person."""

from __future__ import annotations

import errno

import av

from instantvir_models.errors import VideoOpenError, VideoWriteError
from instantvir_models.outputs.claim import hint_of_the_system


def open_error(error: Exception, name: str) -> VideoOpenError:
    """Why the source called `name` could not be opened: an FFmpegError, OSError or ValueError."""
    if isinstance(error, av.error.InvalidDataError | av.error.EOFError):
        return VideoOpenError(
            f"{name} is not a video that FFmpeg can read",
            hint="it may be cut off, empty inside or of another kind; try `ffprobe` on it",
        )
    if isinstance(error, av.FFmpegError | OSError):
        reason = getattr(error, "strerror", None) or str(error)
        return VideoOpenError(f"cannot open {name}: {reason}", hint=_open_hint(error))
    return VideoOpenError(
        f"cannot open {name}: {error}", hint="check the name given as input format"
    )


def _open_hint(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "you may not read it; check its permissions"
    if isinstance(error, av.error.HTTPError | ConnectionError | TimeoutError):
        return "check the address and that the server answers"
    return "check the path or address, and the input format if one was given"


def write_error(
    error: BaseException,
    name: str,
    *,
    codec: str | None = None,
    format_name: str | None = None,
    is_network: bool = False,
) -> VideoWriteError | None:
    """Why the output called `name` could not be written; None for an error of another kind.

    Args:
        codec: the encoder in use.
        format_name: the container's format.
        is_network: the output is an address.
    """
    if isinstance(error, av.FFmpegError | OSError):
        return _refused(error, name, codec, format_name, is_network)
    if isinstance(error, ValueError) and "format does not support" in str(error):
        return VideoWriteError(
            f"{name} cannot hold {codec} video",
            hint="write .mkv, which holds every codec, or choose another codec",
        )
    return None


def _refused(
    error: av.FFmpegError | OSError,
    name: str,
    codec: str | None,
    format_name: str | None,
    is_network: bool,
) -> VideoWriteError:
    reason = error.strerror or str(error)
    if error.errno == errno.ENOSPC:
        return VideoWriteError(
            f"no space is left for {name}", hint="free some space or write to another disk"
        )
    if isinstance(error, BrokenPipeError):
        return VideoWriteError(
            f"the program that reads {name} has stopped", hint="look at its messages"
        )
    if "avcodec_open2" in str(error):
        return VideoWriteError(
            f"{codec} refused its settings ({reason})",
            hint="check crf, preset, pixel format, size and rate; hardware encoders need their hardware",
        )
    if is_network or isinstance(error, ConnectionError | TimeoutError):
        hint = "check the address and that the server answers"
    elif (told := hint_of_the_system(error.errno)) is not None:
        hint = told
    else:
        words = getattr(error, "log", None)
        reason = f"{reason} ({words[2].strip()})" if words else reason
        hint = (
            f"{format_name} refuses what it was given: {codec} video or its settings; "
            "`.mkv` takes nearly everything"
        )
    return VideoWriteError(f"cannot write {name}: {reason}", hint=hint)
