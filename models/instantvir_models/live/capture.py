"""Frames as they are captured, and their wait in front of restoration."""

import threading
import time
from collections import deque
from dataclasses import dataclass

import numpy as np

from instantvir_models.live.source import LiveSource
from instantvir_models.live.status import Counters
from instantvir_models.media import Frame
from instantvir_models.run.stages import PATIENCE_SECONDS, Link, Stage, Stopped

SILENT_SECONDS = 1.0
"""How long a source may take to notice that the stream is to end."""

Kind = tuple[int, int, np.dtype[np.uint8] | np.dtype[np.uint16]]
"""What a session is made for: height, width and type of the measured pixels."""


@dataclass(frozen=True)
class Captured:
    """A frame as it came."""

    frame: Frame
    captured_at: float
    """Monotonic seconds."""
    index: int
    """Of all frames captured so far, those dropped since included."""

    @property
    def kind(self) -> Kind:
        """What a session for it is made for."""
        pixels = self.frame.pixels
        return pixels.shape[0], pixels.shape[1], pixels.dtype


class Capture:
    """Takes the frames of a source in a thread of its own, and lets a bounded number wait.

    Args:
        queue_size: frames that wait at most.
        may_wait: a full queue holds up the source; else its oldest frames give way.
        ending: set when the stream is to end; a source that is silent then has ended.
        counters: count the frames captured, dropped, and abandoned by a source that was held up.
    """

    def __init__(
        self, *, queue_size: int, may_wait: bool, ending: threading.Event, counters: Counters
    ) -> None:
        self._may_wait, self._ending, self._counters = may_wait, ending, counters
        self._broken = threading.Event()
        self._waiting: Link[Captured] = Link(self._broken, queue_size)
        self._looked_at: deque[Captured] = deque()
        self._stage = Stage("capture", lambda stage: self._capture_all(), self._broken)
        self.source: LiveSource | None = None
        """Set by `start`."""

    def start(self, source: LiveSource) -> None:
        """Begin to capture."""
        self.source = source
        self._stage.start()

    @property
    def num_waiting(self) -> int:
        """Frames in the queue."""
        return len(self._waiting)

    @property
    def failure(self) -> BaseException | None:
        """Why the source ended, where that was no expected end."""
        return self._stage.failure

    def sample(self, num_frames: int) -> list[Frame]:
        """The first frames, fewer if the source is shorter or their kind changes; they still come."""
        looked_at = self._looked_at
        while len(looked_at) < num_frames and (item := self._next_waiting()) is not None:
            looked_at.append(item)
            if item.kind != looked_at[0].kind:  # of another video, for what it matters here
                break
        return [item.frame for item in looked_at if item.kind == looked_at[0].kind]

    def first(self) -> Captured | None:
        """The frame that comes next, which still comes; None as in `take`."""
        if not self._looked_at and (item := self._next_waiting()) is not None:
            self._looked_at.append(item)
        return self._looked_at[0] if self._looked_at else None

    def take(self) -> Captured | None:
        """The next frame; None when the source has ended, or is silent after a stop."""
        return self._looked_at.popleft() if self._looked_at else self._next_waiting()

    def close(self) -> None:
        """Capture no more and release the source."""
        self._broken.set()
        if self._stage.ident is not None:
            self._stage.join(SILENT_SECONDS)  # in a silent network it dies with the process
        if self.source is not None and not self._stage.is_alive():
            self.source.close()

    def drain(self) -> int:
        """How many frames nobody took; none is left then."""
        num_left = len(self._waiting.drain()) + len(self._looked_at)
        self._looked_at.clear()
        return num_left

    def _capture_all(self) -> None:
        assert self.source is not None
        for index, frame in enumerate(self.source):
            if self._broken.is_set():
                return  # nobody is left to look at it, nor to count it
            self._counters.add("in")
            if not self._queued(Captured(frame, time.monotonic(), index)):
                return

    def _queued(self, captured: Captured) -> bool:
        """Whether the stream goes on; the frame, or those it displaced, are counted."""
        if not self._may_wait:
            self._counters.add("dropped", len(self._waiting.offer(captured)))
            return True
        try:
            self._waiting.put(captured)
        except Stopped:
            self._counters.add("abandoned")
            return False
        return True

    def _next_waiting(self) -> Captured | None:
        since = time.monotonic()
        while True:
            has_ended = not self._stage.is_alive()  # before looking: it may still hand one over
            item = self._waiting.poll(PATIENCE_SECONDS)
            if item is not None or has_ended:
                return item
            if not self._ending.is_set():
                since = time.monotonic()
            elif time.monotonic() - since > SILENT_SECONDS:
                return None
