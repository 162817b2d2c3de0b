"""Decode, restore and encode side by side, joined by short queues."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from instantvir_models.media import Frame
from instantvir_models.session import Session, SessionReport

QUEUED_BLOCKS = 3
"""Blocks that wait in front of a stage at most."""

PATIENCE_SECONDS = 0.1
"""How often a waiting stage looks whether the others still run."""


class FrameSink(Protocol):
    """Takes restored frames, such as a `VideoWriter`."""

    def write(self, frame: Frame) -> None:
        """Take one frame, later than the one before."""


@dataclass(frozen=True, kw_only=True)
class PipelineReport:
    """What a run did and where its time went. Stages overlap, so their sum exceeds the wall time."""

    session: SessionReport
    wall_seconds: float
    first_frame_seconds: float | None
    """From the start to the first restored frame; None if there was none."""
    decode_seconds: float
    encode_seconds: float

    @property
    def frames(self) -> int:
        """Frames that came out."""
        return self.session.frames_out

    @property
    def fps(self) -> float:
        """Frames per second of the whole run."""
        return self.frames / self.wall_seconds if self.wall_seconds > 0 else 0.0

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Busy wall seconds by stage."""
        return {
            "decode": self.decode_seconds,
            "convert": self.session.convert_seconds,
            "estimate": self.session.estimate_seconds,
            "student": self.session.student_seconds,
            "consistency": self.session.consistency_seconds,
            "encode": self.encode_seconds,
        }


class _Stopped(Exception):
    """Another stage failed or the run was interrupted."""


class _Link:
    """A bounded queue between two threads that gives up when the run stops."""

    def __init__(self, stop: threading.Event, size: int) -> None:
        self._queue: queue.Queue[Frame | None] = queue.Queue(size)
        self._stop = stop

    def put(self, frame: Frame | None) -> None:
        """Hand over a frame, or None for the end; waits for room."""
        while True:
            if self._stop.is_set():
                raise _Stopped
            try:
                return self._queue.put(frame, timeout=PATIENCE_SECONDS)
            except queue.Full:
                continue

    def get(self) -> Frame | None:
        """The next frame, or None at the end; waits for it."""
        while True:
            if self._stop.is_set():
                raise _Stopped
            try:
                return self._queue.get(timeout=PATIENCE_SECONDS)
            except queue.Empty:
                continue


class _Stage(threading.Thread):
    """A thread that does one job, keeps its busy time and its failure, and stops the run on it."""

    def __init__(self, name: str, job: Callable[["_Stage"], None], stop: threading.Event) -> None:
        super().__init__(name=f"instantvir-{name}", daemon=True)
        self._job, self._stop_all = job, stop
        self.busy_seconds = 0.0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self._job(self)
        except _Stopped:
            pass
        except BaseException as error:  # raised again in the caller's thread
            self.failure = error
            self._stop_all.set()


def restore_video(
    frames: Iterable[Frame],
    session: Session,
    sink: FrameSink | None,
    *,
    on_pair: Callable[[Frame, Frame], None] | None = None,
) -> PipelineReport:
    """Every frame of `frames` restored by `session` and written to `sink`, with its own time.

    Frames are read in one thread, restored in the caller's and written in another; a few blocks
    wait between them, so memory is constant.

    Args:
        sink: where restored frames go; None throws them away.
        on_pair: called in the caller's thread with each input frame and its restoration.

    Raises:
        Whatever reading, restoring or writing raised first; the other stages have ended by then.
    """
    stop = threading.Event()
    size = QUEUED_BLOCKS * session.frames_per_block
    incoming, outgoing = _Link(stop, size), _Link(stop, size)
    decoder = _Stage("decode", lambda stage: _read(frames, incoming, stage), stop)
    encoder = _Stage("encode", lambda stage: _write(outgoing, sink, stage), stop)
    started = time.perf_counter()
    first_frame: float | None = None

    def deliver(originals: deque[Frame], pixels: np.ndarray) -> None:
        nonlocal first_frame
        for restored_pixels in pixels:
            if first_frame is None:
                first_frame = time.perf_counter() - started
            original = originals.popleft()
            restored = replace(original, pixels=restored_pixels)
            if on_pair is not None:
                on_pair(original, restored)
            outgoing.put(restored)

    decoder.start()
    encoder.start()
    try:
        originals: deque[Frame] = deque()
        while (frame := incoming.get()) is not None:
            originals.append(frame)
            deliver(originals, session.push(frame.pixels[None]))
        deliver(originals, session.flush())
        outgoing.put(None)
        encoder.join()
    except _Stopped:
        pass
    finally:
        stop.set()
        decoder.join(timeout=5)  # it may be waiting for a silent pipe; it dies with the process
        encoder.join()
    for stage in (decoder, encoder):
        if stage.failure is not None:
            raise stage.failure
    return PipelineReport(
        session=session.report,
        wall_seconds=time.perf_counter() - started,
        first_frame_seconds=first_frame,
        decode_seconds=decoder.busy_seconds,
        encode_seconds=encoder.busy_seconds,
    )


def _read(frames: Iterable[Frame], incoming: _Link, stage: _Stage) -> None:
    iterator = iter(frames)
    while True:
        started = time.perf_counter()
        frame = next(iterator, None)
        stage.busy_seconds += time.perf_counter() - started
        incoming.put(frame)
        if frame is None:
            return


def _write(outgoing: _Link, sink: FrameSink | None, stage: _Stage) -> None:
    while (frame := outgoing.get()) is not None:
        if sink is not None:
            started = time.perf_counter()
            sink.write(frame)
            stage.busy_seconds += time.perf_counter() - started
