"""A live stream: capture, restoration and outputs side by side, with a bounded delay."""

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from instantvir_models.live.capture import Capture, Kind
from instantvir_models.live.controls import Controls
from instantvir_models.live.fan_out import FanOut
from instantvir_models.live.output import LiveOutput
from instantvir_models.live.overload import LoadGauge, Overload, Relief
from instantvir_models.live.restoration import Restoration
from instantvir_models.live.sessions import Sessions
from instantvir_models.live.source import LiveSource, SourceSettings
from instantvir_models.live.status import Counters, LiveStatus
from instantvir_models.live.watchdog import Watchdog
from instantvir_models.media import Frame
from instantvir_models.run.masks import FrameMaskSources
from instantvir_models.run.session import Session
from instantvir_models.run.stages import PATIENCE_SECONDS, QUEUED_BLOCKS

SMALLEST_QUEUE = 4
"""Frames that may wait at least, so that a block of one rides out a hiccup."""


@dataclass(frozen=True, kw_only=True)
class LiveSettings:
    """How a stream is run."""

    overload: Overload = Overload.BLOCK
    frames_per_block: int = 3
    stuck_seconds: float = 10.0
    """A stage that is busy with one thing for longer is reported, unless it is always slow."""
    grace_seconds: float = 10.0
    """Time for the outputs to finish once the stream has ended."""

    @property
    def queue_size(self) -> int:
        """Frames that wait for restoration, and in front of each output, at most."""
        return max(SMALLEST_QUEUE, QUEUED_BLOCKS * self.frames_per_block)

    @property
    def may_wait(self) -> bool:
        """Whether the source may be held up, and the delay has no bound."""
        return self.overload is Overload.BLOCK

    def delay_bound_seconds(
        self, *, fps: float, slowest_block_seconds: float, look_ahead: int
    ) -> float | None:
        """The queue, the block in progress and the own one, and the frames that complete it.

        None where there is no bound, or no frame yet.
        """
        if self.may_wait or fps == 0:
            return None
        blocks = math.ceil(self.queue_size / self.frames_per_block) + 2
        return blocks * slowest_block_seconds + (self.frames_per_block - 1 + look_ahead) / fps


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
        self._is_asked_to_stop = False
        self._ending = threading.Event()
        self._capture = Capture(
            queue_size=settings.queue_size,
            may_wait=settings.may_wait,
            ending=self._ending,
            counters=self.counters,
        )
        self._fan_out = FanOut(
            controls=self.controls, counters=self.counters, may_wait=settings.may_wait
        )
        self._restoration: Restoration | None = None

    @property
    def source(self) -> LiveSource | None:
        """What is captured; None before `start`."""
        return self._capture.source

    def start(self) -> None:
        """Open the source and begin to capture; VideoOpenError if that fails."""
        self.watchdog.start()
        threading.Thread(target=self._wait_for_stop, name="instantvir-stop", daemon=True).start()
        self._capture.start(
            LiveSource(
                self._source_settings,
                stop=self._ending,
                on_event=self._on_event,
                on_companions=self._fan_out.offer_companions,
                pulse=self.watchdog.add("input"),
            )
        )

    def stop(self) -> None:
        """End the stream well: what was captured is restored and written. For signal handlers:
        takes no lock."""
        self._is_asked_to_stop = True

    @property
    def is_asked_to_stop(self) -> bool:
        """Whether `stop` was called."""
        return self._is_asked_to_stop

    def sample(self, num_frames: int) -> list[Frame]:
        """The first frames, fewer if the source is shorter; they will be restored all the same."""
        return self._capture.sample(num_frames)

    def run(
        self,
        new_session: Callable[[int, int], Session],
        new_outputs: Callable[[int, int], Sequence[LiveOutput]],
        *,
        on_pair: Callable[[Frame, Frame], None] = lambda measured, restored: None,
        masks: FrameMaskSources | None = None,
    ) -> LiveStatus:
        """Restore until the source ends, `stop` is called or no output is left.

        Args:
            new_session: makes a session for measured frames of (height, width).
            new_outputs: makes the outputs for restored frames of (height, width).
            on_pair: called in this thread with each measured frame and what is shown of it.
            masks: of the frames, where they have some.

        Raises:
            UsageError: if the degradation does not fit the first frames, or a mask is missing.
        """
        try:
            if (first := self._capture.first()) is not None:
                sessions = self._new_sessions(new_session, first.kind, masks)
                size = sessions.output_size
                self._fan_out.start(new_outputs(*size), size=size, on_pair=on_pair)
                if self._is_asked_to_stop:
                    self._fan_out.hurry(self.settings.grace_seconds)
                finds_dust = masks is not None and masks.has_dust
                self._restoration = self._new_restoration(sessions, finds_dust=finds_dust)
                self._restore_all(self._restoration)
        finally:
            self._finish()
        if self._capture.failure is not None:
            raise self._capture.failure
        return self.status()

    def status(self) -> LiveStatus:
        """Every number, now."""
        counters = self.counters
        return counters.status(
            queue_depth=self._capture.num_waiting,
            queue_size=self.settings.queue_size,
            delay_bound_seconds=self.settings.delay_bound_seconds(
                fps=counters.fps("in"),
                slowest_block_seconds=counters.slowest_block_seconds,
                look_ahead=self._restoration.look_ahead if self._restoration else 0,
            ),
            reconnects=self.source.reconnects if self.source else 0,
            outputs=self._fan_out.statuses,
        )

    def close(self) -> None:
        """Capture no more and release the source; frames not yet restored are lost."""
        self._ending.set()
        self._capture.close()
        self.watchdog.stop()

    def _wait_for_stop(self) -> None:
        while not self._is_asked_to_stop:
            if self._ending.wait(PATIENCE_SECONDS):
                return
        self._on_event("asked to stop: writing what was captured")
        self._ending.set()
        self._fan_out.hurry(self.settings.grace_seconds)

    def _new_sessions(
        self,
        new_session: Callable[[int, int], Session],
        kind: Kind,
        masks: FrameMaskSources | None,
    ) -> Sessions:
        return Sessions(
            new_session,
            kind,
            frames_per_block=self.settings.frames_per_block,
            on_event=self._on_event,
            masks=masks,
        )

    def _new_restoration(self, sessions: Sessions, *, finds_dust: bool) -> Restoration:
        settings = self.settings
        gauge = LoadGauge(settings.queue_size, settings.frames_per_block)
        return Restoration(
            sessions,
            relief=Relief(settings.overload, gauge, lambda: self._capture.num_waiting),
            controls=self.controls,
            counters=self.counters,
            pulse=self.watchdog.add("restoration"),
            show=self._fan_out.show,
            finds_dust=finds_dust,
        )

    def _restore_all(self, restoration: Restoration) -> None:
        while (item := self._capture.take()) is not None:
            restoration.take(item)
            if self._fan_out.has_ended:
                return
        restoration.end()

    def _finish(self) -> None:
        with self._fan_out.finishing(
            grace_seconds=self.settings.grace_seconds,
            may_wait=lambda: self.settings.may_wait and not self._is_asked_to_stop,
        ):
            self.close()
        num_held = self._restoration.num_left if self._restoration else 0
        self.counters.add("abandoned", self._capture.drain() + num_held)
        self._fan_out.raise_bugs()

    def _count_stall(self, name: str) -> None:
        if name == "input":
            self.counters.add("input stall")
