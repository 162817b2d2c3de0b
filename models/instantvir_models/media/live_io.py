"""Standard input, standard output and growing files that never block for good.

Python's buffered standard streams hold a lock while they wait: a silent producer or a stuck
consumer would keep the whole process from ending. These wait in short steps and can be told to stop.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from pathlib import Path

from instantvir_models.errors import VideoOpenError, VideoWriteError

STEP_SECONDS = 0.1
"""How often a waiting call looks whether it should stop."""

_ATOMIC_BYTES = getattr(select, "PIPE_BUF", 512)
"""A pipe that is ready takes this much at once without blocking."""


class StandardInput:
    """What a producer writes, as it comes; ends when the producer does or `stop` is set."""

    name = "standard input"

    def __init__(self, stop: threading.Event, *, descriptor: int | None = None) -> None:
        if descriptor is None and sys.stdin is None:
            raise VideoOpenError("standard input is closed", hint="pipe a video into it")
        self._stop = stop
        self._descriptor = sys.stdin.fileno() if descriptor is None else descriptor
        self.num_bytes = 0
        """Bytes read so far."""

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end."""
        while not self._stop.is_set():
            if _is_ready(self._descriptor, to_write=False):
                data = os.read(self._descriptor, size)
                self.num_bytes += len(data)
                return data
        return b""


class GrowingFile:
    """A file that another program is still writing; ends when it has not grown for a while.

    Args:
        idle_seconds: how long to wait for more at the end of the file.

    Raises:
        VideoOpenError: if the file is missing.
    """

    def __init__(self, path: Path, stop: threading.Event, *, idle_seconds: float) -> None:
        self.name = f"growing {path}"  # not the bare path: readers then wait for whole frames
        self._stop, self._idle_seconds = stop, idle_seconds
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise VideoOpenError(
                f"cannot open `{path}`: {error.strerror}", hint="check the spelling and the folder"
            ) from error
        self.num_bytes = 0
        """Bytes read so far."""

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none once the file stopped growing."""
        waited_since = time.monotonic()
        while not self._stop.is_set():
            data = self._file.read(size) or b""
            if data:
                self.num_bytes += len(data)
                return data
            if time.monotonic() - waited_since > self._idle_seconds:
                break
            time.sleep(STEP_SECONDS / 2)
        return b""


class StandardOutput:
    """Writes to a pipe in pieces that cannot block, until `give_up` is called."""

    name = "standard output"

    def __init__(self, *, descriptor: int | None = None) -> None:
        if descriptor is None and sys.stdout is None:
            raise VideoWriteError("standard output is closed", hint="give `-o FILE`")
        self._descriptor = sys.stdout.fileno() if descriptor is None else descriptor
        self._has_given_up = threading.Event()

    def write(self, data: bytes) -> int:
        """Write all of `data`; BrokenPipeError if the reader is gone or nobody waits any more."""
        rest = memoryview(data)
        while rest:
            if self._has_given_up.is_set():
                raise BrokenPipeError(32, "the reader of standard output took nothing for too long")
            if _is_ready(self._descriptor, to_write=True):
                rest = rest[os.write(self._descriptor, rest[:_ATOMIC_BYTES]) :]
        return len(data)

    def give_up(self) -> None:
        """Let a waiting `write` fail."""
        self._has_given_up.set()


def _is_ready(descriptor: int, *, to_write: bool) -> bool:
    """Whether a read or write of a few bytes would return at once, waiting a step for it."""
    if os.name == "nt":  # select is for sockets there
        return True
    wanted = [descriptor]
    readable, writable, _ = select.select(
        [] if to_write else wanted, wanted if to_write else [], [], STEP_SECONDS
    )
    return bool(readable or writable)
