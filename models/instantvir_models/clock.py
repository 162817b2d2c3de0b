"""Seconds by step, also where a device works on after the call that asked it to has returned."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum

import torch

_Mark = float | torch.cuda.Event


class Step(StrEnum):
    """What a session spends time on."""

    CONVERT = "convert"
    ESTIMATE = "estimate"
    STUDENT = "student"
    """The student, or all that a solver does outside the other steps."""
    CONSISTENCY = "consistency"


class StepClock:
    """Adds up the seconds of each step of a session.

    On a card a step is timed by events that the card itself reaches, so it is never waited for; they
    are read in `settle`, when the session has waited for the pixels anyway. A step inside another
    one is counted once, as the inner one.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_card = device.type == "cuda"
        self._seconds = dict.fromkeys(Step, 0.0)
        self._unread: list[tuple[Step, torch.cuda.Event, torch.cuda.Event]] = []
        self._running: tuple[Step, _Mark] | None = None

    @contextmanager
    def on_device(self, step: Step) -> Iterator[None]:
        """Time what is asked of the device inside; `timed` finds this clock meanwhile."""
        outer = self._turn_to(step)
        token = _LISTENING.set(self)
        try:
            yield
        except BaseException:
            self._running = None
            raise
        finally:
            _LISTENING.reset(token)
        self._turn_to(outer)

    def settle(self) -> None:
        """Read the times of the device; call when everything asked of it is known to be done."""
        for step, started, ended in self._unread:
            self._seconds[step] += started.elapsed_time(ended) / 1000
        self._unread.clear()

    def seconds(self, step: Step) -> float:
        """Seconds of `step` so far, those since the last `settle` left out."""
        return self._seconds[step]

    def _turn_to(self, step: Step | None) -> Step | None:
        """From now on time is that of `step`; the step it was of until now."""
        if self._running is None and step is None:
            return None
        now, ended = self._mark(), self._running
        self._running = None if step is None else (step, now)
        if ended is None:
            return None
        self._count(*ended, now)
        return ended[0]

    def _mark(self) -> _Mark:
        if not self._is_card:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _count(self, step: Step, started: _Mark, ended: _Mark) -> None:
        if isinstance(started, float):
            assert isinstance(ended, float)
            self._seconds[step] += ended - started
        else:
            assert not isinstance(ended, float)
            self._unread.append((step, started, ended))


_LISTENING: ContextVar[StepClock | None] = ContextVar("listening", default=None)
"""The clock of the session that is at work in this thread."""


@contextmanager
def timed(step: Step) -> Iterator[None]:
    """Count what is done inside as `step` of the session at work, if there is one."""
    clock = _LISTENING.get()
    if clock is None:
        yield
    else:
        with clock.on_device(step):
            yield
