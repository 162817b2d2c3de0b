"""What tests of live streams share: a small student, pipes with a will of their own, fake sinks."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from instantvir_models.live.output import LiveOutput
from instantvir_models.live.watchdog import Pulse
from instantvir_models.students.tiny import TinyConfig, TinyStudent


def small_student() -> TinyStudent:
    """A student whose output depends on every input, fast enough for tests."""
    torch.manual_seed(0)
    config = TinyConfig(
        fine_channels=16, state_channels=8, coarse_channels=16, coarse_layers=2,
        bottom_channels=32, num_heads=2,
    )  # fmt: skip
    student = TinyStudent(config).eval().requires_grad_(False)
    for layer in (student.head, student.attention.out, student.film.out):
        torch.nn.init.normal_(layer.weight, std=0.05)
    return student


@contextmanager
def stdin_from(monkeypatch, data: bytes, chunks: Iterator[int], *, pause_at: int | None = None):
    """While this lasts, standard input is a pipe that delivers `data` in pieces of these sizes.

    With `pause_at` the producer falls silent for a while after that many bytes.
    """
    read_end, write_end = os.pipe()

    def feed() -> None:
        position, has_paused = 0, pause_at is None
        try:
            while position < len(data):
                size = next(chunks)
                os.write(write_end, data[position : position + size])
                position += size
                if not has_paused and position >= pause_at:
                    has_paused = True
                    time.sleep(1.2)
        except BrokenPipeError:
            pass
        finally:
            os.close(write_end)

    feeder = threading.Thread(target=feed, daemon=True)
    with os.fdopen(read_end, "rb", buffering=0) as pipe:
        monkeypatch.setattr("sys.stdin", pipe)
        feeder.start()
        yield
    feeder.join(5)


def random_sizes(seed: int, largest: int) -> Iterator[int]:
    """Sizes from 1 to `largest` without end."""
    rng = np.random.default_rng(seed)
    while True:
        yield int(rng.integers(1, largest + 1))


class Sink:
    """Keeps what it is given; may be slow, hang, or fail from some frame on."""

    def __init__(self, *, fails_at: int | None = None, error: Exception | None = None) -> None:
        self.frames, self.packets = [], []
        self.is_closed = self.is_aborted = False
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self._fails_at, self._error = fails_at, error

    def write(self, frame) -> None:
        self.may_go_on.wait(20)
        if self._fails_at is not None and len(self.frames) >= self._fails_at:
            raise self._error
        self.frames.append(frame)

    def write_companions(self, packets) -> None:
        self.packets.extend(packets)

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_aborted = True


def output_to(sink, name="sink", *, events=None, only=False, reconnect=False, queue_size=9):
    """A `LiveOutput` into `sink`, which is a sink or a function that opens one."""
    return LiveOutput(
        name,
        sink if callable(sink) else lambda: sink,
        queue_size=queue_size,
        reconnect=reconnect,
        is_only_one=only,
        on_event=(events if events is not None else []).append,
        pulse=Pulse(name),
    )
