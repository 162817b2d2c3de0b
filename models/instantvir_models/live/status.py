"""Every number of a running stream, counted in one place and read as one frozen status."""

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

KEPT_TIMES = 1024
"""Latest delays and block times kept for percentiles."""

RATE_SECONDS = 5.0
"""Frames per second are counted over this span."""

_PAGE_BYTES = 4096


@dataclass(frozen=True)
class Percentiles:
    """Of the latest measurements, in seconds; 0 where there are none."""

    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0

    @staticmethod
    def of(seconds: Iterable[float]) -> "Percentiles":
        """Nearest-rank percentiles."""
        ordered = sorted(seconds)
        if not ordered:
            return Percentiles()
        last = len(ordered) - 1
        return Percentiles(*(ordered[round(q * last)] for q in (0.5, 0.95, 0.99)))


@dataclass(frozen=True, kw_only=True)
class OutputStatus:
    """One output so far. Every frame offered to it is written, dropped or still waiting."""

    name: str
    state: str
    """`open`, `lost` (trying again), `closed` or `failed`."""
    frames_offered: int
    frames_written: int
    frames_dropped: int
    frames_waiting: int
    reconnects: int
    delay: Percentiles
    """Seconds from capture to the encoder's hand-over, network and players excluded."""


@dataclass(frozen=True, kw_only=True)
class LiveStatus:
    """A stream at one moment. Frames in = out + dropped + abandoned + in progress."""

    seconds: float
    """Since the start."""
    frames_in: int
    frames_out: int
    """Restored or passed through."""
    frames_dropped: int
    """That never reached an output, for being late."""
    frames_abandoned: int
    """Captured and left behind by a stream that ended before its source: no output was left."""
    frames_passed: int
    """Of those out: unrestored, by policy, by request or because they fit no operator."""
    frames_degraded: int
    """Of those out: restored at half size or without the student, by policy."""
    frames_guarded: int
    """Of those out: the initial estimate in some places, because the student's could not be right."""
    fps_in: float
    fps_out: float
    queue_depth: int
    queue_size: int
    block_seconds: Percentiles
    """Wall seconds to restore one block."""
    delay: Percentiles
    """Seconds from capture until a frame is restored, the wait for its block included."""
    delay_bound_seconds: float | None
    """What no delay may exceed at the slowest block seen; None under back-pressure."""
    first_frame_seconds: float | None
    """From the start until the first frame was restored."""
    reconnects: int
    input_stalls: int
    size_changes: int
    resident_bytes: int
    outputs: tuple[OutputStatus, ...]


class Counters:
    """Counts what happens in all threads; `events` counts by name (`in`, `out`, `dropped`, ...)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._events: Counter[str] = Counter()
        self._recent: dict[str, deque[tuple[float, int]]] = {"in": deque(), "out": deque()}
        self._blocks: deque[float] = deque(maxlen=KEPT_TIMES)
        self._delays: deque[float] = deque(maxlen=KEPT_TIMES)
        self.slowest_block_seconds = 0.0
        self.first_frame_seconds: float | None = None

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    def add(self, name: str, number: int = 1) -> None:
        """Count `number` events of a kind."""
        with self._lock:
            self._events[name] += number
            if name in self._recent:
                self._note_rate(self._recent[name], number)

    def count(self, name: str) -> int:
        """Events of a kind so far."""
        with self._lock:
            return self._events[name]

    def add_block(self, seconds: float) -> None:
        """One block was restored in so many wall seconds."""
        with self._lock:
            self._blocks.append(seconds)
            self.slowest_block_seconds = max(self.slowest_block_seconds, seconds)

    def add_delay(self, seconds: float) -> None:
        """One frame came out so long after it was captured."""
        with self._lock:
            if self.first_frame_seconds is None:
                self.first_frame_seconds = self.seconds
            self._delays.append(seconds)

    def fps(self, name: str) -> float:
        """Events per second of a kind that has a rate, over the last `RATE_SECONDS`."""
        with self._lock:
            recent = self._recent[name]
            self._note_rate(recent, 0)
            return sum(number for _, number in recent) / min(RATE_SECONDS, self.seconds or 1.0)

    def block_seconds(self) -> Percentiles:
        """Of the latest blocks."""
        with self._lock:
            latest = list(self._blocks)
        return Percentiles.of(latest)

    def delay(self) -> Percentiles:
        """Of the latest frames."""
        with self._lock:
            latest = list(self._delays)
        return Percentiles.of(latest)

    def status(
        self,
        *,
        queue_depth: int,
        queue_size: int,
        delay_bound_seconds: float | None,
        reconnects: int,
        outputs: tuple[OutputStatus, ...],
    ) -> LiveStatus:
        """All that was counted, now, with what others know."""
        return LiveStatus(
            seconds=self.seconds,
            frames_in=self.count("in"),
            frames_out=self.count("out"),
            frames_dropped=self.count("dropped"),
            frames_abandoned=self.count("abandoned"),
            frames_passed=self.count("passed"),
            frames_degraded=self.count("degraded"),
            frames_guarded=self.count("guarded"),
            fps_in=self.fps("in"),
            fps_out=self.fps("out"),
            queue_depth=queue_depth,
            queue_size=queue_size,
            block_seconds=self.block_seconds(),
            delay=self.delay(),
            delay_bound_seconds=delay_bound_seconds,
            first_frame_seconds=self.first_frame_seconds,
            reconnects=reconnects,
            input_stalls=self.count("input stall"),
            size_changes=self.count("size change"),
            resident_bytes=resident_bytes(),
            outputs=outputs,
        )

    @staticmethod
    def _note_rate(recent: deque[tuple[float, int]], number: int) -> None:
        now = time.monotonic()
        if number:
            recent.append((now, number))
        while recent and recent[0][0] < now - RATE_SECONDS:
            recent.popleft()


def resident_bytes() -> int:
    """Memory of this process that is in RAM now; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0
