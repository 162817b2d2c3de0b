"""One case in a child of this warm process: what it costs, and how it ended."""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

LONGEST_SECONDS = 20
MOST_BYTES = 2**30
"""That a case may take besides what this process had."""

_READ_STEP = 65536


@dataclass(frozen=True)
class Ending:
    """How a case ended."""

    said: str
    """What it returned; a traceback, a signal or `hang` where `is_bad`."""
    is_bad: bool
    seconds: float
    grown_bytes: int
    """Resident memory that the case added, at its peak."""


def run_forked(case: Callable[[], str]) -> Ending:
    """The ending of `case`, which returns a line, in a child with limits of time and memory."""
    reading, writing = os.pipe()
    before = _resident_bytes()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _run(case, writing)
    os.close(writing)
    said, is_late = _read(reading, began + LONGEST_SECONDS)
    os.close(reading)
    if is_late:
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    grown = max(0, usage.ru_maxrss * 1024 - before)
    return Ending(
        said=_ending(said, status, is_late=is_late),
        is_bad=is_late or status != 0 or grown > MOST_BYTES,
        seconds=usage.ru_utime + usage.ru_stime,
        grown_bytes=grown,
    )


def _run(case: Callable[[], str], writing: int) -> None:
    """The case in the child, which ends here."""
    code = 1
    try:
        _limit()
        said, code = case(), 0
    except BaseException:
        said = traceback.format_exc()
    with suppress(OSError):
        os.write(writing, said.encode("utf-8", "backslashreplace")[:_READ_STEP])
    os._exit(code)


def _limit() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LONGEST_SECONDS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_BYTES, MOST_BYTES))
    most = _pages()[0] + 2 * MOST_BYTES  # stacks of threads are mapped, and not used
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    sys.setrecursionlimit(1000)
    gc.freeze()


def _read(reading: int, until: float) -> tuple[bytes, bool]:
    data = b""
    while (left := until - time.monotonic()) > 0:
        if select.select([reading], [], [], left)[0]:
            piece = os.read(reading, _READ_STEP)
            if not piece:
                return data, False
            data += piece
    return data, True


def _ending(said: bytes, status: int, *, is_late: bool) -> str:
    if is_late:
        return "hang"
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    return said.decode("utf-8", "replace")


def _resident_bytes() -> int:
    return _pages()[1]


def _pages() -> tuple[int, int]:
    """Bytes of this process that are mapped, and that are resident."""
    with open("/proc/self/statm") as file:
        mapped, resident = file.read().split()[:2]
    return int(mapped) * resource.getpagesize(), int(resident) * resource.getpagesize()
