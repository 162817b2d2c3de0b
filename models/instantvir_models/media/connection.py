"""Network addresses that are opened and written within a limit of time.

PyAV opens and finishes outputs while it holds the interpreter's lock, and knows no limit of time
for them: a server that accepts a connection and then says nothing would halt every thread of the
program. So the connection is made here, by the same FFmpeg, with the lock released and with the
callback by which FFmpeg asks whether to go on waiting; PyAV then writes to it as to a file.

RTSP and HLS over HTTP make connections of their own and stay with PyAV: a server that does not
answer holds up the whole program, RTSP for 5 s at each attempt.
"""

from __future__ import annotations

import ctypes
import errno
import threading
import time
from functools import cache
from typing import Any, ClassVar

import av
import av.container.core

from instantvir_models.errors import VideoWriteError

_AVIO_FLAG_WRITE = 2
_KNOWN_LIBAVFORMATS = (62, 63)
"""Major versions with the `AVIOContext` below: FFmpeg 8 (PyAV 18) and 9 (PyAV 19)."""

_GoOn = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


class _InterruptCallback(ctypes.Structure):
    """FFmpeg's `AVIOInterruptCB`."""

    _fields_: ClassVar = [("callback", _GoOn), ("opaque", ctypes.c_void_p)]


class _Context(ctypes.Structure):
    """The beginning of FFmpeg's `AVIOContext`; run with PyAV 18 and 19."""

    _fields_: ClassVar = [
        ("av_class", ctypes.c_void_p),
        ("buffer", ctypes.c_void_p),
        ("buffer_size", ctypes.c_int),
        ("buf_ptr", ctypes.c_void_p),
        ("buf_end", ctypes.c_void_p),
        ("opaque", ctypes.c_void_p),
        ("read_packet", ctypes.c_void_p),
        ("write_packet", ctypes.c_void_p),
        ("seek", ctypes.c_void_p),
        ("pos", ctypes.c_int64),
        ("eof_reached", ctypes.c_int),
        ("error", ctypes.c_int),
        ("write_flag", ctypes.c_int),
    ]


@cache
def _avformat() -> ctypes.CDLL | None:
    """The libavformat that PyAV is linked to; None where it is another than we know, or the loader
    does not find it (Windows)."""
    if av.library_versions["libavformat"][0] not in _KNOWN_LIBAVFORMATS:
        return None
    try:
        library = ctypes.CDLL(av.container.core.__file__)
        library.avio_write.restype = None
        library.avio_write.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
        library.avio_flush.restype = None
        library.avio_flush.argtypes = [ctypes.c_void_p]
        library.avio_open2.argtypes = [
            ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p,
        ]  # fmt: skip
        library.avio_closep.argtypes = [ctypes.c_void_p]
    except (AttributeError, OSError):
        return None
    return library


def can_connect(format_name: str | None) -> bool:
    """Whether a container of this format goes through a `Connection`: RTSP and HLS make their own."""
    if format_name is None or _avformat() is None:
        return False
    try:
        return not av.ContainerFormat(format_name, "w").no_file
    except ValueError:
        return False


class Connection:
    """A network address as a file to write to.

    Args:
        timeout_seconds: that opening, each write and closing may take.
        given_up: set it, from any thread, to let what waits fail at once.

    Raises:
        VideoWriteError: if the address cannot be opened.
    """

    def __init__(self, address: str, *, timeout_seconds: float, given_up: threading.Event) -> None:
        library = _avformat()
        assert library is not None, "ask `can_connect` first"
        self.name = address
        self._library, self._timeout_seconds, self._given_up = library, timeout_seconds, given_up
        self._context: Any = ctypes.POINTER(_Context)()
        self._has_failed = False
        self._begin()
        # Kept, since FFmpeg asks it as long as the connection lives.
        self._callback = _InterruptCallback(_GoOn(lambda opaque: self._must_end()), None)
        code = library.avio_open2(
            ctypes.byref(self._context), address.encode(), _AVIO_FLAG_WRITE,
            ctypes.byref(self._callback), None,
        )  # fmt: skip
        if code < 0:
            error = self._error(code)
            raise VideoWriteError(
                f"cannot open `{address}`: {error.strerror}",
                hint="check the address and that the server answers",
            ) from error
        self.buffer_bytes: int = self._context.contents.buffer_size
        """What to write at once: FFmpeg's packet size where the protocol has packets, as RTP and UDP
        have."""

    def write(self, data: bytes) -> int:
        """Send all of `data`; OSError or FFmpegError if that fails."""
        assert self._context, "write after close"
        self._begin()
        self._library.avio_write(self._context, bytes(data), len(data))
        self._library.avio_flush(self._context)
        if self._context.contents.error < 0:
            self._has_failed = True  # nobody waits for this server any more
            raise self._error(self._context.contents.error)
        return len(data)

    def close(self) -> None:
        """Say good-bye, as far as the other side still listens. Safe to call twice."""
        self._begin()
        if self._context:
            self._library.avio_closep(ctypes.byref(self._context))

    def _begin(self) -> None:
        self._began = time.monotonic()

    def _is_late(self) -> bool:
        return time.monotonic() - self._began > self._timeout_seconds

    def _must_end(self) -> int:
        return int(self._has_failed or self._given_up.is_set() or self._is_late())

    def _error(self, code: int) -> OSError:
        """The exception PyAV has for FFmpeg's error code, in words where it was us who ended it."""
        try:
            av.error.err_check(code, self.name)
        except av.error.ExitError:
            reason = (
                "it was given up"
                if self._given_up.is_set()
                else f"no answer for {self._timeout_seconds:g} s"
            )
            return TimeoutError(errno.ETIMEDOUT, reason)
        except OSError as error:
            return error
        except av.FFmpegError as error:
            return OSError(error.errno, error.strerror)
        raise AssertionError(f"{code} is no error")
