"""A destination that is opened when the first frame comes, and again when it was lost."""

import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Protocol

from instantvir_models.errors import InstantVIRError, VideoWriteError
from instantvir_models.live.backoff import Backoff
from instantvir_models.live.watchdog import Pulse
from instantvir_models.media import CompanionPacket, Frame

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


class RecoveringSink:
    """A sink and its state; what fails is told and kept, not raised.

    One thread writes; any other may read the state, hand in sound, or `end` it.

    Args:
        open_sink: opens the destination, again after a loss.
        reconnect: open the sink again when it is lost.
        on_event: called with a sentence when something happens.
        pulse: tells a watchdog what the sink is busy with.
    """

    def __init__(
        self,
        name: str,
        open_sink: Callable[[], LiveSink],
        *,
        reconnect: bool,
        on_event: Callable[[str], None],
        pulse: Pulse,
    ) -> None:
        self._name, self._open_sink, self._reconnect = name, open_sink, reconnect
        self._on_event, self._pulse = on_event, pulse
        self.state = "open"
        """`open` (as long as nothing failed), `lost` (trying again), `closed` or `failed`."""
        self.failure: InstantVIRError | None = None
        """Why it ended before the stream did."""
        self.reconnects = 0
        self._companions: deque[CompanionPacket] = deque(maxlen=KEPT_COMPANIONS)
        self._sink: LiveSink | None = None
        self._next_attempt, self._backoff = 0.0, Backoff()

    @property
    def is_alive(self) -> bool:
        """Whether it still takes frames, or will again."""
        return self.state in ("open", "lost")

    def add_companions(self, packets: Iterable[CompanionPacket]) -> None:
        """Sound and subtitles to write before the next frame; the oldest give way."""
        self._companions.extend(packets)

    def write(self, frame: Frame) -> bool:
        """Write a frame, and the sound before it; whether it was taken."""
        if self._sink is None and not self._connect():
            return False
        assert self._sink is not None
        try:
            with self._pulse.busy("writing a frame"):
                self._write_companions()
                self._sink.write(frame)
        except InstantVIRError as error:
            self._lose(error)
            return False
        return True

    def write_companions(self) -> None:
        """Write the sound that waits; before there is a sink it comes with the first frame."""
        if self._sink is None:
            return
        try:
            with self._pulse.busy("writing sound"):
                self._write_companions()
        except InstantVIRError as error:
            self._lose(error)

    def close(self) -> None:
        """Write what is left and close."""
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
            self._on_event(f"{self._name} could not be finished: {error}")

    def abort(self) -> None:
        """Let go of a sink that was not closed."""
        if self._sink is not None:
            with suppress(InstantVIRError):
                self._sink.abort()
            self._sink = None

    def end(self, state: str) -> None:
        """It takes no more: `closed`, or `failed`, which stays."""
        if self.state != "failed":
            self.state = state

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
        if self.state == "lost":
            self.reconnects += 1
            self._on_event(f"{self._name} is back")
        self.state = "open"
        self._backoff.reset()
        return True

    def _lose(self, error: InstantVIRError) -> None:
        """The sink failed: try again later, or end."""
        self.abort()
        self._companions.clear()
        if not self.is_alive:  # it was left behind, which was said
            self.failure = None if self._reconnect else error
        elif self._reconnect:
            self._try_again_later(error)
        else:
            self.failure = error
            self.end("failed")
            self._on_event(f"{self._name} has ended: {error}")

    def _try_again_later(self, error: InstantVIRError) -> None:
        if self.state == "open":
            self._on_event(f"{self._name} is lost: {error}; connecting again")
        self.state = "lost"
        self._next_attempt = time.monotonic() + self._backoff.next_seconds()
