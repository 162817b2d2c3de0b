"""Where live frames go: each output has its own thread and queue, and troubles nobody else."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from instantvir_models.errors import InstantVIRError, VideoWriteError
from instantvir_models.live.backoff import Backoff
from instantvir_models.live.status import KEPT_TIMES, OutputStatus, Percentiles
from instantvir_models.live.watchdog import Pulse
from instantvir_models.media import CompanionPacket, Frame
from instantvir_models.run.stages import PATIENCE_SECONDS, Link, Stage, Stopped

STALL_SECONDS = 2.0
"""Under back-pressure an output may hold up the others for so long; then it loses frames."""

NO_PATIENCE_SECONDS = 0.001
KEPT_COMPANIONS = 4096
"""Audio and subtitle packets that wait for one output at most."""


class LiveSink(Protocol):
    """What an output writes to, such as a live `VideoWriter`."""

    def write(self, frame: Frame) -> None:
        """Take one frame, later than the one before."""

    def write_companions(self, packets: Iterable[CompanionPacket]) -> None:
        """Take audio and subtitle packets."""

    def close(self) -> None:
        """Finish."""

    def abort(self) -> None:
        """Give up."""


@dataclass(frozen=True)
class Restored:
    """A frame on its way out."""

    frame: Frame
    captured_at: float
    """Monotonic seconds."""


class _SoundCame:
    """Tells an output that waits for a frame that there are companions to write."""


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
        self.failure: InstantVIRError | None = None
        """Why the output ended before the stream did."""
        self._open_sink, self._reconnect, self._is_only_one = open_sink, reconnect, is_only_one
        self._on_event, self._on_give_up, self._pulse = on_event, on_give_up, pulse
        self._stop = threading.Event()
        self._link: Link[Restored | _SoundCame] = Link(self._stop, queue_size + 1)
        self._is_told_of_sound = False
        self._companions: deque[CompanionPacket] = deque(maxlen=KEPT_COMPANIONS)
        self._sink: LiveSink | None = None
        self._state = "open"
        self._is_stalled = False
        self._grace_seconds: float | None = None
        self._next_attempt, self._backoff = 0.0, Backoff()
        self._offered = self._written = self._dropped_offers = self._dropped_writes = 0
        self._reconnects = 0
        self._delays: deque[float] = deque(maxlen=KEPT_TIMES)
        self._thread = Stage(f"output-{name}", lambda stage: self._run(), self._stop)

    def start(self) -> None:
        """Begin to take frames."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it still takes frames, or will again."""
        return self._state in ("open", "lost")

    @property
    def status(self) -> OutputStatus:
        """Its numbers now."""
        dropped = self._dropped_offers + self._dropped_writes
        return OutputStatus(
            name=self.name,
            state=self._state,
            frames_offered=self._offered,
            frames_written=self._written,
            frames_dropped=dropped,
            frames_waiting=self._offered - self._written - dropped,
            reconnects=self._reconnects,
            delay=Percentiles.of(list(self._delays)),
        )

    def offer(self, restored: Restored, *, may_wait: bool) -> None:
        """Queue a frame. With `may_wait` a full queue holds up the caller, else the frame is lost."""
        self._offered += 1
        if not self.is_alive:
            self._dropped_offers += 1
            return
        with suppress(Stopped):
            if self._queued(restored, may_wait):
                self._is_stalled = False
                return
        self._dropped_offers += 1
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
        written, since = self._written, time.monotonic()
        while self.is_alive:
            if self._link.put_within(restored, PATIENCE_SECONDS):
                return True
            if self._grace_seconds is None or self._written != written:
                written, since = self._written, time.monotonic()
            elif time.monotonic() - since > self._grace_seconds:
                self._leave_behind()
        return False

    def hurry(self, grace_seconds: float) -> None:
        """From now on wait at most so long for an output that does not get on."""
        self._grace_seconds = grace_seconds

    def offer_companions(self, packets: list[CompanionPacket]) -> None:
        """Queue audio and subtitle packets; the oldest give way if nobody takes them."""
        if self._state != "open":
            return
        self._companions.extend(packets)
        if not self._is_told_of_sound:
            self._is_told_of_sound = True  # before the other thread can take it back
            with suppress(Stopped):
                if not self._link.put_within(_SoundCame(), NO_PATIENCE_SECONDS):
                    self._is_told_of_sound = False  # a frame will take the sound along

    def finish(self, *, grace_seconds: float, may_wait: Callable[[], bool]) -> None:
        """Let it write what it has and close. One that makes no progress for `grace_seconds` is
        left behind, unless it `may_wait` and is the only one."""
        is_told = False
        written, since = self._written, time.monotonic()
        while self._thread.is_alive():
            with suppress(Stopped):
                is_told = is_told or self._link.put_within(None, PATIENCE_SECONDS)
            if is_told:
                self._thread.join(PATIENCE_SECONDS)
            is_patient = self._is_only_one and may_wait()
            if self._written != written or is_patient:
                written, since = self._written, time.monotonic()
            if time.monotonic() - since > grace_seconds:
                self._leave_behind()
                break
        waiting = self._offered - self._written - self._dropped_offers - self._dropped_writes
        self._dropped_writes += waiting

    @property
    def bug(self) -> BaseException | None:
        """What went wrong inside, where it was no expected failure."""
        return self._thread.failure

    def _leave_behind(self) -> None:
        if not self._stop.is_set():
            self._on_event(f"{self.name} is stuck and was left behind")
        self._end("failed")
        self._stop.set()
        self._on_give_up()
        self._thread.join(1.0)

    def _run(self) -> None:
        try:
            while self.is_alive and (item := self._link.get()) is not None:
                if isinstance(item, _SoundCame):
                    self._deliver_sound()
                else:
                    self._deliver(item)
            self._close()
        except Stopped:
            raise
        except Exception as error:  # a bug of ours: told now, raised when the stream has ended
            self._end("failed")
            self._on_event(f"{self.name} has ended: {type(error).__name__}: {error}")
            raise
        finally:
            self._end("closed" if self.failure is None else "failed")
            if self._sink is not None:
                with suppress(InstantVIRError):
                    self._sink.abort()

    def _deliver(self, item: Restored) -> None:
        if self._sink is None and not self._connect():
            self._dropped_writes += 1
            return
        assert self._sink is not None
        try:
            with self._pulse.busy("writing a frame"):
                self._write_companions()
                self._sink.write(item.frame)
        except InstantVIRError as error:
            self._dropped_writes += 1
            self._lose(error)
            return
        self._written += 1
        self._delays.append(time.monotonic() - item.captured_at)

    def _deliver_sound(self) -> None:
        self._is_told_of_sound = False
        if self._sink is None:
            return  # it comes with the first frame
        try:
            with self._pulse.busy("writing sound"):
                self._write_companions()
        except InstantVIRError as error:
            self._lose(error)

    def _write_companions(self) -> None:
        packets = []
        while self._companions:
            packets.append(self._companions.popleft())
        if packets and self._sink is not None:
            self._sink.write_companions(packets)

    def _connect(self) -> bool:
        """Open the sink, if it is time to; whether it is open."""
        if time.monotonic() < self._next_attempt:
            return False
        try:
            with self._pulse.busy("opening the output"):
                self._sink = self._open_sink()
        except InstantVIRError as error:
            self._lose(error)
            return False
        if self._state == "lost":
            self._reconnects += 1
            self._on_event(f"{self.name} is back")
        self._state = "open"
        self._backoff.reset()
        return True

    def _lose(self, error: InstantVIRError) -> None:
        """The sink failed: try again later, or end this output."""
        if self._sink is not None:
            with suppress(InstantVIRError):
                self._sink.abort()
            self._sink = None
        self._companions.clear()
        if not self.is_alive:  # it was left behind, which was said
            self.failure = None if self._reconnect else error
            return
        if self._reconnect:
            if self._state == "open":
                self._on_event(f"{self.name} is lost: {error}; connecting again")
            self._state = "lost"
            self._next_attempt = time.monotonic() + self._backoff.next_seconds()
            return
        self.failure = error
        self._end("failed")
        self._on_event(f"{self.name} has ended: {error}")

    def _close(self) -> None:
        if self._sink is None:
            return
        try:
            with self._pulse.busy("closing the output"):
                self._write_companions()
                self._sink.close()
            self._sink = None
        except VideoWriteError as error:
            self._sink = None
            self.failure = error
            self._on_event(f"{self.name} could not be finished: {error}")

    def _end(self, state: str) -> None:
        if self._state != "failed":
            self._state = state
