"""What tests of live streams share: a small student, pipes with a will of their own, fake sinks, a
status, and what asks a page."""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction

import numpy as np
import torch

from instantvir_models.live.output import LiveOutput
from instantvir_models.live.status import LiveStatus, OutputStatus, Percentiles
from instantvir_models.live.watchdog import Pulse
from instantvir_models.media import Frame
from instantvir_models.students.tiny import TinyConfig, TinyStudent
from tests.media_clips import picture

STATUS = LiveStatus(
    seconds=12.5, frames_in=100, frames_out=80, frames_dropped=15,
    frames_abandoned=1, frames_passed=6,
    frames_degraded=3, frames_guarded=2, fps_in=25.0, fps_out=20.0, queue_depth=4, queue_size=9,
    block_seconds=Percentiles(0.1, 0.2, 0.3), delay=Percentiles(0.4, 0.5, 0.6),
    delay_bound_seconds=1.5, first_frame_seconds=0.7, reconnects=2, input_stalls=1,
    size_changes=0, resident_bytes=2**28,
    outputs=(
        OutputStatus(
            name="-", state="open", frames_offered=80, frames_written=70, frames_dropped=8,
            frames_waiting=2, reconnects=1, delay=Percentiles(0.4, 0.5, 0.6),
        ),
    ),
)  # fmt: skip


def frame(number=0, width=32, height=24):
    return Frame(picture(number, width, height), number, Fraction(1, 25), 1)


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


def ask(server, path, *, body=None, headers=None):
    """(HTTP status, headers, body) of a request."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", **(headers or {})},
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()
