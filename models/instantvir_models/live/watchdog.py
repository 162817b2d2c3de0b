"""Names the stage that is stuck."""

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

    def stuck(self, limit_seconds: float) -> tuple[str, float] | None:
        """What it has been doing for longer than `limit_seconds`, and for how long."""
        doing, seconds = self._doing, time.monotonic() - self._since
        return (doing, seconds) if doing is not None and seconds > limit_seconds else None


class Watchdog:
    """Reports every stage that is stuck, once, and again when it goes on.

    Args:
        on_report: called with a sentence, in the watchdog's thread.
        on_stuck: called with the name of a stage that has just got stuck.
    """

    def __init__(
        self,
        limit_seconds: float,
        on_report: Callable[[str], None],
        on_stuck: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._limit_seconds, self._on_report, self._on_stuck = limit_seconds, on_report, on_stuck
        self._pulses: list[Pulse] = []
        self._reported: set[str] = set()
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
            stuck = pulse.stuck(self._limit_seconds)
            if stuck is not None and pulse.name not in self._reported:
                self._reported.add(pulse.name)
                self._on_stuck(pulse.name)
                self._on_report(f"{pulse.name} is stuck: {stuck[0]} for {stuck[1]:.0f} s")
            elif stuck is None and pulse.name in self._reported:
                self._reported.discard(pulse.name)
                self._on_report(f"{pulse.name} goes on")

    def _watch(self) -> None:
        while not self._stop.wait(CHECK_SECONDS):
            self.check()
