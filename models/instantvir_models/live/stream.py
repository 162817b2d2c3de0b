"""A live stream: capture, restoration and outputs side by side, with a bounded delay."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

import numpy as np

from instantvir_models.errors import DeviceMemoryError, UsageError
from instantvir_models.live.controls import Controls
from instantvir_models.live.fit import blended, fitted
from instantvir_models.live.output import KEPT_COMPANIONS, LiveOutput, Restored
from instantvir_models.live.overload import LoadGauge, Overload
from instantvir_models.live.source import LiveSource, SourceSettings
from instantvir_models.live.status import Counters, LiveStatus, resident_bytes
from instantvir_models.live.watchdog import Watchdog
from instantvir_models.media import CompanionPacket, Frame
from instantvir_models.media.frame import Pixels
from instantvir_models.run.session import Session
from instantvir_models.run.stages import PATIENCE_SECONDS, QUEUED_BLOCKS, Link, Stage, Stopped

SMALLEST_QUEUE = 4
"""Frames that may wait at least, so that a block of one rides out a hiccup."""


SILENT_SECONDS = 1.0
"""How long a source may take to notice that the stream is to end."""


@dataclass(frozen=True, kw_only=True)
class LiveSettings:
    """How a stream is run."""

    overload: Overload = Overload.BLOCK
    frames_per_block: int = 3
    stuck_seconds: float = 10.0
    """A stage that is busy with one thing for so long is reported."""
    grace_seconds: float = 10.0
    """Time for the outputs to finish once the stream has ended."""

    @property
    def queue_size(self) -> int:
        """Frames that wait for restoration, and in front of each output, at most."""
        return max(SMALLEST_QUEUE, QUEUED_BLOCKS * self.frames_per_block)


@dataclass(frozen=True)
class _Captured:
    frame: Frame
    captured_at: float
    """Monotonic seconds."""
    index: int
    """Of all frames captured so far, those dropped since included."""

    @property
    def kind(self) -> tuple[int, int, np.dtype[np.uint8] | np.dtype[np.uint16]]:
        """What a session is made for."""
        pixels = self.frame.pixels
        return pixels.shape[0], pixels.shape[1], pixels.dtype


class _Way(Enum):
    """How a block is treated."""

    RESTORE = auto()
    DEGRADE = auto()
    PASS = auto()


class LiveStream:
    """One source, one session after another, several outputs.

    Frames reach `Session` in its blocks and unchanged, so that what comes out equals what
    `restore_video` makes of the same frames as long as none was dropped, passed or degraded. When
    the size or bit depth changes, the old session gives out what it holds and a new one begins;
    outputs keep the size of the first, later frames are fitted into it.

    Use: `start`, then `sample` if frames are needed to decide on the degradation, then `run`.

    Args:
        on_event: called with a sentence when something happens, from any thread.
    """

    def __init__(
        self,
        source: SourceSettings,
        settings: LiveSettings,
        *,
        controls: Controls | None = None,
        on_event: Callable[[str], None],
    ) -> None:
        self._source_settings, self.settings = source, settings
        self.controls = controls or Controls()
        self._on_event = on_event
        self.counters = Counters()
        self.watchdog = Watchdog(settings.stuck_seconds, on_event, self._count_stall)
        self._may_wait = settings.overload is Overload.BLOCK
        self._is_asked_to_stop = False
        self._ending = threading.Event()
        self._broken = threading.Event()
        self._incoming: Link[_Captured] = Link(self._broken, settings.queue_size)
        self._gauge = LoadGauge(settings.queue_size, settings.frames_per_block)
        self._capture = Stage("capture", lambda stage: self._capture_frames(), self._broken)
        self.source: LiveSource | None = None
        """Set by `start`."""
        self._replay: deque[_Captured] = deque()
        self._outputs: Sequence[LiveOutput] = ()
        self._early_companions: deque[CompanionPacket] = deque(maxlen=KEPT_COMPANIONS)
        self._handing_on = threading.Lock()
        self._pulse = self.watchdog.add("restoration")
        self._block: list[_Captured] = []
        self._held: deque[_Captured] = deque()
        self._session: Session | None = None
        self._kind: object = None
        self._expected_index = 0
        self._output_size = (0, 0)
        self._look_ahead = 0

    def start(self) -> None:
        """Open the source and begin to capture; VideoOpenError if that fails."""
        self.watchdog.start()
        threading.Thread(target=self._wait_for_stop, name="instantvir-stop", daemon=True).start()
        self.source = LiveSource(
            self._source_settings,
            stop=self._ending,
            on_event=self._on_event,
            on_companions=self._hand_on_companions,
            pulse=self.watchdog.add("input"),
        )
        self._capture.start()

    def stop(self) -> None:
        """End the stream well: what was captured is restored and written. For signal handlers:
        takes no lock."""
        self._is_asked_to_stop = True

    def _wait_for_stop(self) -> None:
        while not self._is_asked_to_stop:
            if self._ending.wait(PATIENCE_SECONDS):
                return
        self._on_event("asked to stop: writing what was captured")
        self._ending.set()
        for output in self._outputs:
            output.hurry(self.settings.grace_seconds)

    @property
    def is_asked_to_stop(self) -> bool:
        """Whether `stop` was called."""
        return self._is_asked_to_stop

    def sample(self, num_frames: int) -> list[Frame]:
        """The first frames, fewer if the source is shorter; they will be restored all the same."""
        while len(self._replay) < num_frames and (item := self._next_captured()) is not None:
            self._replay.append(item)
            if item.kind != self._replay[0].kind:  # of another video, for what it matters here
                break
        return [item.frame for item in self._replay if item.kind == self._replay[0].kind]

    def run(
        self,
        new_session: Callable[[int, int], Session],
        new_outputs: Callable[[int, int], Sequence[LiveOutput]],
        *,
        on_pair: Callable[[Frame, Frame], None] = lambda measured, restored: None,
    ) -> LiveStatus:
        """Restore until the source ends, `stop` is called or no output is left.

        Args:
            new_session: makes a session for measured frames of (height, width).
            new_outputs: makes the outputs for restored frames of (height, width).
            on_pair: called in this thread with each measured frame and what is shown of it.

        Raises:
            UsageError: if the degradation does not fit the first frames.
        """
        self._new_session, self._on_pair = new_session, on_pair
        try:
            first = self._replay[0] if self._replay else self._next_captured()
            if first is None:
                return self.status()
            if not self._replay:
                self._replay.append(first)
            self._session, self._kind = new_session(*first.kind[:2]), first.kind
            self._output_size = self._session.output_size
            self._look_ahead = self._session.degradation.operator.temporal_radius
            self._start_outputs(new_outputs(*self._output_size))
            self._restore_all()
        finally:
            self._finish()
        if self._capture.failure is not None:
            raise self._capture.failure
        return self.status()

    def status(self) -> LiveStatus:
        """Every number, now."""
        counters = self.counters
        return LiveStatus(
            seconds=counters.seconds,
            frames_in=counters.count("in"),
            frames_out=counters.count("out"),
            frames_dropped=counters.count("dropped"),
            frames_abandoned=counters.count("abandoned"),
            frames_passed=counters.count("passed"),
            frames_degraded=counters.count("degraded"),
            fps_in=counters.fps("in"),
            fps_out=counters.fps("out"),
            queue_depth=len(self._incoming),
            queue_size=self._incoming.size,
            block_seconds=counters.block_seconds(),
            delay=counters.delay(),
            delay_bound_seconds=self._delay_bound_seconds(),
            first_frame_seconds=counters.first_frame_seconds,
            reconnects=self.source.reconnects if self.source else 0,
            input_stalls=counters.count("input stall"),
            size_changes=counters.count("size change"),
            resident_bytes=resident_bytes(),
            outputs=tuple(output.status for output in self._outputs),
        )

    def _delay_bound_seconds(self) -> float | None:
        """The queue, the block in progress and the own one, and the frames that complete it."""
        fps = self.counters.fps("in")
        if self.settings.overload is Overload.BLOCK or fps == 0:
            return None
        blocks = math.ceil(self.settings.queue_size / self.settings.frames_per_block) + 2
        waiting_frames = self.settings.frames_per_block - 1 + self._look_ahead
        return blocks * self.counters.slowest_block_seconds + waiting_frames / fps

    def _capture_frames(self) -> None:
        assert self.source is not None
        for index, frame in enumerate(self.source):
            if self._broken.is_set():
                return  # nobody is left to look at it, nor to count it
            self.counters.add("in")
            captured = _Captured(frame, time.monotonic(), index)
            if self._may_wait:
                try:
                    self._incoming.put(captured)
                except Stopped:
                    self.counters.add("abandoned")
                    return
            else:
                self.counters.add("dropped", len(self._incoming.offer(captured)))

    def _hand_on_companions(self, packets: list[CompanionPacket]) -> None:
        with self._handing_on:
            if not self._outputs:
                self._early_companions.extend(packets)
            for output in self._outputs:
                output.offer_companions(packets)

    def _start_outputs(self, outputs: Sequence[LiveOutput]) -> None:
        """From now on audio and subtitles go there, those that came before first."""
        with self._handing_on:
            self._outputs = outputs
            for output in outputs:
                output.offer_companions(list(self._early_companions))
            self._early_companions.clear()
        for output in outputs:
            output.start()
            if self._is_asked_to_stop:
                output.hurry(self.settings.grace_seconds)

    def _next_captured(self) -> _Captured | None:
        """The next frame; None when the source has ended, or is silent after a stop."""
        since = time.monotonic()
        while True:
            has_ended = not self._capture.is_alive()  # before looking: it may still hand one over
            item = self._incoming.poll(PATIENCE_SECONDS)
            if item is not None or has_ended:
                return item
            if not self._ending.is_set():
                since = time.monotonic()
            elif time.monotonic() - since > SILENT_SECONDS:
                return None

    def _restore_all(self) -> None:
        while True:
            item = self._replay.popleft() if self._replay else self._next_captured()
            if item is None:
                break
            if item.kind != self._kind:
                self._change_kind(item)
            if self._does_not_continue(item):
                self._process_block()
            self._block.append(item)
            if len(self._block) >= self._frames_to_gather:
                self._process_block()
            if self._outputs and not any(output.is_alive for output in self._outputs):
                return
        self._process_block()
        self._give_out_held()

    @property
    def _frames_to_gather(self) -> int:
        """Frames that make the session's next block come out: no frame waits for more."""
        if self._session is None:
            return self.settings.frames_per_block
        return self._session.frames_until_ready

    def _does_not_continue(self, item: _Captured) -> bool:
        """Whether frames are missing between the block and `item` that its operator counts."""
        return bool(self._block) and item.index != self._block[-1].index + 1 and self._counts_frames

    @property
    def _counts_frames(self) -> bool:
        """Whether the operator looks at neighbours, or differs from frame to frame."""
        if self._session is None:
            return False
        operator = self._session.degradation.operator
        return operator.changes_over_time or operator.temporal_radius > 0

    def _bridge_gap(self, index: int) -> None:
        """Begin a new session at frame `index` if the old one expects another that is counted."""
        if index != self._expected_index and self._counts_frames:
            assert self._session is not None
            self._give_out_held()
            self._session = self._session.restarted()
            self._session.skip(index)

    def _process_block(self) -> None:
        block, self._block = self._block, []
        if not block:
            return
        started = time.monotonic()
        way = self._way()
        if way is not _Way.PASS:
            self._bridge_gap(block[0].index)
        if self._session is None or way is _Way.PASS:
            self._begin_anew_if_holding()
            self.counters.add("passed", len(block))
            for item in block:
                self._emit(item, item.frame.pixels)
        else:
            self._relieve(self._session, is_asked=way is _Way.DEGRADE)
            self._held.extend(block)
            self._expected_index = block[-1].index + 1
            if (text := self.controls.settings.text) is not None:
                self._session.change_text(text)
            with self._pulse.busy("restoring a block"):
                frames: Pixels = np.stack([item.frame.pixels for item in block])  # type: ignore[assignment]
                restored = self._session.push(frames)
            if way is _Way.DEGRADE:
                self.counters.add("degraded", len(restored))
            self._emit_held(restored)
        self.counters.add_block(time.monotonic() - started)

    @staticmethod
    def _relieve(session: Session, *, is_asked: bool) -> None:
        """Let the next block be restored the cheap way, if that `is_asked`."""
        session.is_shrunk = is_asked and session.can_shrink
        session.is_student_skipped = is_asked and not session.can_shrink

    def _way(self) -> _Way:
        if not self.controls.settings.is_on:
            return _Way.PASS
        overload = self.settings.overload
        if overload in (Overload.SKIP, Overload.DEGRADE) and self._gauge.is_behind(
            len(self._incoming)
        ):
            return _Way.PASS if overload is Overload.SKIP else _Way.DEGRADE
        return _Way.RESTORE

    def _give_out_held(self) -> None:
        """Let the session give out what it holds back; if it held anything, it has then ended."""
        if self._session is not None and self._session.frames_held:
            self._emit_held(self._session.flush())

    def _begin_anew_if_holding(self) -> None:
        if self._session is not None and self._session.frames_held:
            self._give_out_held()
            self._session, self._expected_index = self._session.restarted(), 0

    def _session_for(self, height: int, width: int) -> Session | None:
        self._expected_index = 0
        try:
            return self._new_session(height, width)
        except (UsageError, DeviceMemoryError) as error:
            self._on_event(f"frames of {width}x{height} are passed through unrestored: {error}")
            return None

    def _change_kind(self, item: _Captured) -> None:
        self._process_block()
        self._give_out_held()
        height, width, depth = item.kind
        self.counters.add("size change")
        self._on_event(f"the input changes to {width}x{height} ({depth}); a new session begins")
        self._kind = item.kind
        self._session = self._session_for(height, width)

    def _emit_held(self, restored: Pixels) -> None:
        for pixels in restored:
            self._emit(self._held.popleft(), pixels)

    def _emit(self, item: _Captured, pixels: Pixels) -> None:
        shown = blended(item.frame.pixels, pixels, self.controls.settings.strength)
        frame = replace(item.frame, pixels=fitted(shown, self._output_size))
        self.counters.add("out")
        self.counters.add_delay(time.monotonic() - item.captured_at)
        self._on_pair(item.frame, frame)
        for output in self._outputs:
            output.offer(Restored(frame, item.captured_at), may_wait=self._may_wait)

    def _finish(self) -> None:
        finishing = [
            threading.Thread(target=self._finish_output, args=(output,)) for output in self._outputs
        ]
        for thread in finishing:
            thread.start()
        self.close()
        for thread in finishing:
            thread.join()
        self.counters.add("abandoned", self._num_left())
        for output in self._outputs:
            if output.bug is not None:
                raise output.bug

    def _num_left(self) -> int:
        """Frames that a stream which ended early has not given out."""
        waiting = self._incoming.drain()
        return len(waiting) + len(self._replay) + len(self._block) + len(self._held)

    def _finish_output(self, output: LiveOutput) -> None:
        output.finish(
            grace_seconds=self.settings.grace_seconds,
            may_wait=lambda: self._may_wait and not self._is_asked_to_stop,
        )

    def close(self) -> None:
        """Capture no more and release the source; frames not yet restored are lost."""
        self._ending.set()
        self._broken.set()
        if self._capture.ident is not None:
            self._capture.join(SILENT_SECONDS)  # in a silent network it dies with the process
        if self.source is not None and not self._capture.is_alive():
            self.source.close()
        self.watchdog.stop()

    def _count_stall(self, name: str) -> None:
        if name == "input":
            self.counters.add("input stall")
