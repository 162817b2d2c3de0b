"""Names the stage that takes long."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CHECK_SECONDS = 0.5


class Pulse:
    """What one stage is busy with, and since when.

    Args:
        name: of the stage, as the report calls it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._doing: str | None = None
        self._since = 0.0

    @contextmanager
    def busy(self, doing: str) -> Iterator[None]:
        """While this lasts the stage is expected to come to an end."""
        self._since = time.monotonic()
        self._doing = doing
        try:
            yield
        finally:
            self._doing = None

    def doing(self) -> tuple[str, float] | None:
        """What it is busy with and for how many seconds; None where it is idle."""
        doing, seconds = self._doing, time.monotonic() - self._since
        return None if doing is None else (doing, seconds)


class Watchdog:
    """Reports every stage that takes longer than usual, once, and again when it goes on.

    What is usual is learned: a source that sends a picture every 15 seconds is reported for its first
    pause, and then for none that is not twice as long.

    Args:
        limit_seconds: what is never reported.
        on_report: called with a sentence, in the watchdog's thread.
        on_long: called with the name of a stage that was just reported.
    """

    def __init__(
        self,
        limit_seconds: float,
        on_report: Callable[[str], None],
        on_long: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._limit_seconds, self._on_report, self._on_long = limit_seconds, on_report, on_long
        self._pulses: list[Pulse] = []
        self._usual_seconds: dict[str, float] = {}
        self._reported: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="instantvir-watchdog", daemon=True)

    def add(self, name: str) -> Pulse:
        """The pulse of one more stage."""
        pulse = Pulse(name)
        self._pulses.append(pulse)
        return pulse

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more; a stage that has just gone on is still reported."""
        self.check()
        self._stop.set()

    def check(self) -> None:
        """Look at every stage once."""
        for pulse in list(self._pulses):
            doing, seconds = pulse.doing() or ("", 0.0)
            if pulse.name in self._reported and seconds < self._reported[pulse.name]:
                self._usual_seconds[pulse.name] = self._reported.pop(pulse.name)
                self._on_report(f"{pulse.name} goes on")
            limit = max(self._limit_seconds, 2 * self._usual_seconds.get(pulse.name, 0.0))
            if pulse.name in self._reported:
                self._reported[pulse.name] = seconds
            elif seconds > limit:
                self._reported[pulse.name] = seconds
                self._on_long(pulse.name)
                self._on_report(f"{pulse.name}: {doing} for {seconds:.0f} s so far")

    def _watch(self) -> None:
        while not self._stop.wait(CHECK_SECONDS):
            self.check()
