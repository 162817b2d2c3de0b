"""What ends a program from outside: SIGINT (Ctrl-C), SIGTERM and SIGHUP, heard in one place."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

GRACE_SECONDS = 1.0
"""Signals that follow the first within this are the same wish: a terminal that closes sends several."""

NUMBERS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class EndedBySignal(KeyboardInterrupt):
    """A signal asked the program to end; what is open is tidied up on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def told_of_signals(on_first: Callable[[int], None]) -> Iterator[None]:
    """While this lasts the first signal calls `on_first`, in whatever the main thread does; a later
    one does what it would have done without this. Signals that were ignored, as `nohup` does, stay so.

    `on_first` may raise; it takes no lock, for the interrupted code may hold it. Has no effect in other
    threads than the main one, which alone hears signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first_seconds: float | None = None

    def heard(number: int, frame: FrameType | None) -> None:
        nonlocal first_seconds
        now = time.monotonic()
        if first_seconds is None:
            first_seconds = now
            on_first(number)
        elif now - first_seconds > GRACE_SECONDS:
            usual = before[number]
            if callable(usual) and usual is not signal.default_int_handler:
                usual(number, frame)
                return
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    before = {number: signal.getsignal(number) for number in NUMBERS}
    heard_of = [number for number in NUMBERS if before[number] is not signal.SIG_IGN]
    for number in heard_of:
        signal.signal(number, heard)
    try:
        yield
    finally:
        for number in heard_of:
            signal.signal(number, before[number])


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """While this lasts a signal raises `EndedBySignal` in the main thread."""

    def end(number: int) -> None:
        raise EndedBySignal(number)

    with told_of_signals(end):
        yield
