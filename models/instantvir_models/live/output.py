"""Where live frames go: each output has its own thread and queue, and troubles nobody else."""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from instantvir_models.errors import InstantVIRError
from instantvir_models.live.sink import LiveSink, RecoveringSink
from instantvir_models.live.status import KEPT_TIMES, OutputStatus, Percentiles
from instantvir_models.live.watchdog import Pulse
from instantvir_models.media import CompanionPacket, Frame
from instantvir_models.run.stages import PATIENCE_SECONDS, Link, Stage, Stopped

STALL_SECONDS = 2.0
"""Under back-pressure an output may hold up the others for so long; then it loses frames."""

NO_PATIENCE_SECONDS = 0.001


@dataclass(frozen=True)
class Restored:
    """A frame on its way out."""

    frame: Frame
    captured_at: float
    """Monotonic seconds."""


class _SoundCame:
    """Tells an output that waits for a frame that there are companions to write."""


class _Counts:
    """Frames of one output. Who offers counts what is refused, who writes what is lost."""

    def __init__(self) -> None:
        self.offered = self.written = self.refused = self.lost = 0
        self.delays: deque[float] = deque(maxlen=KEPT_TIMES)

    @property
    def dropped(self) -> int:
        return self.refused + self.lost

    @property
    def waiting(self) -> int:
        return self.offered - self.written - self.dropped


class LiveOutput:
    """Writes frames in its own thread; loses them rather than hold up the stream.

    Args:
        open_sink: opens the destination; called in the output's thread, again after a loss.
        queue_size: frames that wait at most; one more where no sound comes along.
        reconnect: open the sink again when it is lost.
        is_only_one: under back-pressure, wait for this output without limit: no other suffers.
        on_event: called with a sentence when something happens.
        on_give_up: makes a write that hangs fail, where the sink can.
    """

    def __init__(
        self,
        name: str,
        open_sink: Callable[[], LiveSink],
        *,
        queue_size: int,
        reconnect: bool,
        is_only_one: bool,
        on_event: Callable[[str], None],
        pulse: Pulse,
        on_give_up: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self._is_only_one, self._on_event, self._on_give_up = is_only_one, on_event, on_give_up
        self._sink = RecoveringSink(
            name, open_sink, reconnect=reconnect, on_event=on_event, pulse=pulse
        )
        self._stop = threading.Event()
        self._link: Link[Restored | _SoundCame] = Link(self._stop, queue_size + 1)
        self._is_told_of_sound = False
        self._is_stalled = False
        self._grace_seconds: float | None = None
        self._counts = _Counts()
        self._thread = Stage(f"output-{name}", lambda stage: self._run(), self._stop)

    def start(self) -> None:
        """Begin to take frames."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it still takes frames, or will again."""
        return self._sink.is_alive

    @property
    def failure(self) -> InstantVIRError | None:
        """Why the output ended before the stream did."""
        return self._sink.failure

    @property
    def status(self) -> OutputStatus:
        """Its numbers now."""
        counts = self._counts
        return OutputStatus(
            name=self.name,
            state=self._sink.state,
            frames_offered=counts.offered,
            frames_written=counts.written,
            frames_dropped=counts.dropped,
            frames_waiting=counts.waiting,
            reconnects=self._sink.reconnects,
            delay=Percentiles.of(list(counts.delays)),
        )

    def offer(self, restored: Restored, *, may_wait: bool) -> None:
        """Queue a frame. With `may_wait` a full queue holds up the caller, else the frame is lost."""
        self._counts.offered += 1
        if not self.is_alive:
            self._counts.refused += 1
            return
        with suppress(Stopped):
            if self._queued(restored, may_wait):
                self._is_stalled = False
                return
        self._counts.refused += 1
        if not self._is_stalled:
            self._is_stalled = True
            self._on_event(f"{self.name} does not keep up and loses frames")

    def _queued(self, restored: Restored, may_wait: bool) -> bool:
        if may_wait and self._is_only_one:
            return self._queued_in_the_end(restored)
        patience = STALL_SECONDS if may_wait and not self._is_stalled else NO_PATIENCE_SECONDS
        return self._link.put_within(restored, patience)

    def _queued_in_the_end(self, restored: Restored) -> bool:
        """Wait for room without limit, but once hurried only while the output gets on."""
        written, since = self._counts.written, time.monotonic()
        while self.is_alive:
            if self._link.put_within(restored, PATIENCE_SECONDS):
                return True
            if self._grace_seconds is None or self._counts.written != written:
                written, since = self._counts.written, time.monotonic()
            elif time.monotonic() - since > self._grace_seconds:
                self._leave_behind()
        return False

    def hurry(self, grace_seconds: float) -> None:
        """From now on wait at most so long for an output that does not get on."""
        self._grace_seconds = grace_seconds

    def offer_companions(self, packets: list[CompanionPacket]) -> None:
        """Queue audio and subtitle packets; the oldest give way if nobody takes them."""
        if self._sink.state != "open":
            return
        self._sink.add_companions(packets)
        if not self._is_told_of_sound:
            self._is_told_of_sound = True  # before the other thread can take it back
            with suppress(Stopped):
                if not self._link.put_within(_SoundCame(), NO_PATIENCE_SECONDS):
                    self._is_told_of_sound = False  # a frame will take the sound along

    def finish(self, *, grace_seconds: float, may_wait: Callable[[], bool]) -> None:
        """Let it write what it has and close. One that makes no progress for `grace_seconds` is
        left behind, unless it `may_wait` and is the only one."""
        is_told = False
        written, since = self._counts.written, time.monotonic()
        while self._thread.is_alive():
            with suppress(Stopped):
                is_told = is_told or self._link.put_within(None, PATIENCE_SECONDS)
            if is_told:
                self._thread.join(PATIENCE_SECONDS)
            is_patient = self._is_only_one and may_wait()
            if self._counts.written != written or is_patient:
                written, since = self._counts.written, time.monotonic()
            if time.monotonic() - since > grace_seconds:
                self._leave_behind()
                break
        self._counts.lost += self._counts.waiting

    @property
    def bug(self) -> BaseException | None:
        """What went wrong inside, where it was no expected failure."""
        return self._thread.failure

    def _leave_behind(self) -> None:
        if not self._stop.is_set():
            self._on_event(f"{self.name} is stuck and was left behind")
        self._sink.end("failed")
        self._stop.set()
        self._on_give_up()
        self._thread.join(1.0)

    def _run(self) -> None:
        try:
            while self.is_alive and (item := self._link.get()) is not None:
                if isinstance(item, _SoundCame):
                    self._is_told_of_sound = False
                    self._sink.write_companions()
                else:
                    self._deliver(item)
            self._sink.close()
        except Stopped:
            raise
        except Exception as error:  # a bug of ours: told now, raised when the stream has ended
            self._sink.end("failed")
            self._on_event(f"{self.name} has ended: {type(error).__name__}: {error}")
            raise
        finally:
            self._sink.end("closed" if self.failure is None else "failed")
            self._sink.abort()

    def _deliver(self, item: Restored) -> None:
        if self._sink.write(item.frame):
            self._counts.written += 1
            self._counts.delays.append(time.monotonic() - item.captured_at)
        else:
            self._counts.lost += 1
