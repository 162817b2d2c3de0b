"""Decode, restore and encode side by side, joined by short queues."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from instantvir_models.media import Frame
from instantvir_models.run.kept import KeptMemory
from instantvir_models.run.session import Session, SessionReport
from instantvir_models.run.stages import QUEUED_BLOCKS, Link, Stage, Stopped

MOST_FRAMES = 64
"""Frames of a block that count for the queues, for a block may be a whole clip."""


class FrameSink(Protocol):
    """Takes restored frames, such as a `VideoWriter`."""

    def write(self, frame: Frame) -> None:
        """Take one frame, later than the one before."""


class Segments(Protocol):
    """Keeps what is done in pieces."""

    def is_due(self, frames_out: int) -> bool:
        """Whether a piece ends with the frame before `frames_out`, at the end of a block."""

    def is_time(self) -> bool:
        """Whether what is done is to be noted at the end of a block that ends no piece."""

    def end(self, memory: KeptMemory, frames_out: int) -> None:
        """End it, in the thread that writes; `memory` is what the session knew there."""

    def note(self, memory: KeptMemory, frames_out: int) -> None:
        """Note what is done so far, in the same thread."""

    def add(self, frame: Frame) -> None:
        """Take note of a frame that was written, in the same thread."""


@dataclass(frozen=True)
class _BlockEnd:
    """Stands between the frames of two blocks, where what is done is kept."""

    memory: KeptMemory
    frames_out: int
    ends_piece: bool


@dataclass(frozen=True, kw_only=True)
class PipelineReport:
    """What a run did and where its time went. Stages overlap, so their sum exceeds the wall time."""

    session: SessionReport
    wall_seconds: float
    first_frame_seconds: float | None
    """From the start to the first restored frame; None if there was none."""
    decode_seconds: float
    encode_seconds: float
    input_wait_seconds: float
    """Seconds in which restoring waited for frames to be read; likewise below."""
    output_wait_seconds: float
    """For room to hand over what was restored, and in the end for the last frames to be written."""

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


class _Waiting:
    """Seconds that a thread spends waiting for others."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def counted(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started


def restore_video(
    frames: Iterable[Frame],
    session: Session,
    sink: FrameSink | None,
    *,
    on_pair: Callable[[Frame, Frame], None] | None = None,
    on_error: Callable[[Frame, NDArray[np.float32]], None] | None = None,
    segments: Segments | None = None,
    waiting: Sequence[Frame] = (),
    seconds_before: float = 0.0,
) -> PipelineReport:
    """Every frame of `frames` restored by `session` and written to `sink`, with its own time.

    Frames are read in one thread, restored in the caller's and written in another; a few blocks
    wait between them, so memory is constant.

    Args:
        sink: where restored frames go; None throws them away.
        on_pair: called in the caller's thread with each input frame and its restoration.
        on_error: called likewise with each restoration and the error [H, W] in 8-bit levels that is
            expected of it, of a session that `keeps_errors`.
        segments: told at the ends of blocks; None keeps nothing.
        waiting: frames that the session holds already, where it goes on with an earlier run's.
        seconds_before: that such a run worked.

    Raises:
        Whatever reading, restoring or writing raised first; the other stages have ended by then.
    """
    stop = threading.Event()
    size = QUEUED_BLOCKS * min(session.frames_per_block, MOST_FRAMES)
    incoming, outgoing = Link[Frame](stop, size), Link[Frame | _BlockEnd](stop, size)
    decoder = Stage("decode", lambda stage: _read(frames, incoming, stage), stop)
    encoder = Stage("encode", lambda stage: _write(outgoing, sink, segments, stage), stop)
    started = time.perf_counter()
    first_frame: float | None = None
    for_input, for_output = _Waiting(), _Waiting()

    def deliver(originals: deque[Frame], pixels: np.ndarray) -> None:
        nonlocal first_frame
        errors = iter(session.taken_errors())
        for restored_pixels in pixels:
            if first_frame is None:
                first_frame = time.perf_counter() - started
            original = originals.popleft()
            restored = replace(original, pixels=restored_pixels, known=None, guessed=None)
            if on_pair is not None:
                on_pair(original, restored)
            if on_error is not None:
                on_error(restored, next(errors))
            with for_output.counted():
                outgoing.put(restored)

    decoder.start()
    encoder.start()
    try:
        originals = deque(waiting)
        while (frame := _next(incoming, for_input)) is not None:
            originals.append(frame)
            masks = (None if mask is None else mask[None] for mask in (frame.known, frame.guessed))
            block = session.push(frame.pixels[None], *masks)
            deliver(originals, block)
            if segments is None or not len(block):
                continue
            if (end := _end_of_block(segments, session)) is not None:
                outgoing.put(end)
        deliver(originals, session.flush())
        with for_output.counted():
            outgoing.put(None)
            encoder.join()
    except Stopped:
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
        wall_seconds=seconds_before + time.perf_counter() - started,
        first_frame_seconds=first_frame,
        decode_seconds=decoder.busy_seconds,
        encode_seconds=encoder.busy_seconds,
        input_wait_seconds=for_input.seconds,
        output_wait_seconds=for_output.seconds,
    )


def _end_of_block(segments: Segments, session: Session) -> _BlockEnd | None:
    """What is to be kept of a session that is at the end of a block; None where nothing is."""
    is_due = segments.is_due(session.frames_out)
    if not is_due and not segments.is_time():
        return None
    return _BlockEnd(session.memory(), session.frames_out, ends_piece=is_due)


def _next(incoming: Link[Frame], waiting: _Waiting) -> Frame | None:
    with waiting.counted():
        return incoming.get()


def _read(frames: Iterable[Frame], incoming: Link[Frame], stage: Stage) -> None:
    iterator = iter(frames)
    while True:
        started = time.perf_counter()
        frame = next(iterator, None)
        stage.busy_seconds += time.perf_counter() - started
        incoming.put(frame)
        if frame is None:
            return


def _write(
    outgoing: Link[Frame | _BlockEnd],
    sink: FrameSink | None,
    segments: Segments | None,
    stage: Stage,
) -> None:
    while (item := outgoing.get()) is not None:
        started = time.perf_counter()
        if isinstance(item, _BlockEnd):
            assert segments is not None
            (segments.end if item.ends_piece else segments.note)(item.memory, item.frames_out)
        elif sink is not None:
            sink.write(item)
            if segments is not None:
                segments.add(item)
        stage.busy_seconds += time.perf_counter() - started
