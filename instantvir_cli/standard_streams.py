"""Standard input, output and error, whatever the caller left of them."""

import errno
import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO, cast

from instantvir_models.errors import VideoWriteError


def occupy_closed() -> None:
    """Open nothing under the numbers of closed standard streams: else the next file that is opened
    gets one of them, and what libraries print goes into a video."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(
                os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY
            )  # the lowest that is free


@contextmanager
def data_of_this_thread_alone() -> Iterator[None]:
    """While this lasts, what other threads print is dropped: Ray prints each death among the rows."""
    if sys.stdout is None:
        yield
        return
    with redirect_stdout(cast(TextIO, _OneThread(sys.stdout))):
        yield


class _OneThread:
    """A stream that takes what the thread writes that made it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._thread = stream, threading.get_ident()

    def write(self, text: str) -> int:
        return self._stream.write(text) if threading.get_ident() == self._thread else len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def put(text: str) -> None:
    """Data for standard output, a line or several, all of which has arrived.

    Raises:
        VideoWriteError: if it cannot be written: it is closed, its reader is gone, its disk is full.
    """
    if sys.stdout is None:
        raise VideoWriteError("standard output is closed", hint="give it a file or a program")
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        _give_up_output()
        raise VideoWriteError(
            f"standard output cannot take what is to be said: {_reason(error)}",
            hint="what was written to files is complete",
        ) from error


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, BrokenPipeError):
        return "the program that reads it has stopped"
    if getattr(error, "errno", None) == errno.ENOSPC:
        return "no space is left"
    return getattr(error, "strerror", None) or str(error)


def _give_up_output() -> None:
    """What is left in the buffer goes nowhere: at the end of the process it would fail once more."""
    try:
        number = sys.stdout.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
    except (OSError, ValueError):
        return


class StandardError(io.TextIOBase):
    """Standard error as it is at the moment. What it cannot take is lost: a reader that has gone, or
    a full disk, ends no run."""

    def write(self, text: str) -> int:
        try:
            if sys.stderr is not None:
                sys.stderr.write(text)
        except (OSError, ValueError):
            pass
        return len(text)

    def flush(self) -> None:
        try:
            if sys.stderr is not None:
                sys.stderr.flush()
        except (OSError, ValueError):
            pass

    def isatty(self) -> bool:
        return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()

    def fileno(self) -> int:
        if sys.stderr is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return sys.stderr.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(sys.stderr, "encoding", None) or "utf-8"
