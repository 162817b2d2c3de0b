"""Seconds by stage, also where a device works on after the call that asked it to has returned."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

import torch


class Step(StrEnum):
    """What a session spends time on."""

    CONVERT = "convert"
    ESTIMATE = "estimate"
    STUDENT = "student"
    CONSISTENCY = "consistency"


class StepClock:
    """Adds up the seconds of each step of a session.

    On a card a step is timed by events that the card itself reaches, so it is never waited for; they
    are read in `settle`, when the session has waited for the pixels anyway.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_card = device.type == "cuda"
        self._seconds = dict.fromkeys(Step, 0.0)
        self._unread: list[tuple[Step, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def on_device(self, step: Step) -> Iterator[None]:
        """Time what is asked of the device inside."""
        if not self._is_card:
            with self.on_cpu(step):
                yield
            return
        started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        started.record()
        yield
        ended.record()
        self._unread.append((step, started, ended))

    @contextmanager
    def on_cpu(self, step: Step) -> Iterator[None]:
        """Time what is done inside, on the CPU."""
        started = time.perf_counter()
        yield
        self._seconds[step] += time.perf_counter() - started

    def settle(self) -> None:
        """Read the times of the device; call when everything asked of it is known to be done."""
        for step, started, ended in self._unread:
            self._seconds[step] += started.elapsed_time(ended) / 1000
        self._unread.clear()

    def seconds(self, step: Step) -> float:
        """Seconds of `step` so far, those since the last `settle` left out."""
        return self._seconds[step]
