"""From one restored frame to everybody who is to have it."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from instantvir_models.live.capture import Captured
from instantvir_models.live.controls import Controls
from instantvir_models.live.fit import blended, fitted
from instantvir_models.live.output import LiveOutput, Restored
from instantvir_models.live.sink import KEPT_COMPANIONS
from instantvir_models.live.status import Counters, OutputStatus
from instantvir_models.media import CompanionPacket, Frame
from instantvir_models.media.frame import Pixels


class FanOut:
    """Hands every frame to all outputs and to a watcher, at the size of the first, and sound along.

    Args:
        controls: how much of the restoration is shown.
        counters: count frames out, and their delay.
        may_wait: an output that is full holds up the stream; else it loses the frame.
    """

    def __init__(self, *, controls: Controls, counters: Counters, may_wait: bool) -> None:
        self._controls, self._counters, self._may_wait = controls, counters, may_wait
        self._outputs: Sequence[LiveOutput] = ()
        self._early_companions: deque[CompanionPacket] = deque(maxlen=KEPT_COMPANIONS)
        self._handing_on = threading.Lock()

    def start(
        self,
        outputs: Sequence[LiveOutput],
        *,
        size: tuple[int, int],
        on_pair: Callable[[Frame, Frame], None],
    ) -> None:
        """Let the outputs begin; sound and subtitles go there, those that came before first.

        Args:
            size: (height, width) that every frame is fitted into.
            on_pair: called with each measured frame and what is shown of it.
        """
        self._size, self._on_pair = size, on_pair
        with self._handing_on:
            self._outputs = outputs
            for output in outputs:
                output.offer_companions(list(self._early_companions))
            self._early_companions.clear()
        for output in outputs:
            output.start()

    def show(self, item: Captured, pixels: Pixels) -> None:
        """Hand on what has become of one frame."""
        shown = blended(item.frame.pixels, pixels, self._controls.settings.strength)
        frame = replace(item.frame, pixels=fitted(shown, self._size))
        self._counters.add("out")
        self._counters.add_delay(time.monotonic() - item.captured_at)
        self._on_pair(item.frame, frame)
        for output in self._outputs:
            output.offer(Restored(frame, item.captured_at), may_wait=self._may_wait)

    def offer_companions(self, packets: list[CompanionPacket]) -> None:
        """Hand on sound and subtitles, or keep them until there are outputs; from any thread."""
        with self._handing_on:
            if not self._outputs:
                self._early_companions.extend(packets)
            for output in self._outputs:
                output.offer_companions(packets)

    @property
    def has_ended(self) -> bool:
        """Whether there were outputs and all of them have ended."""
        return bool(self._outputs) and not any(output.is_alive for output in self._outputs)

    @property
    def statuses(self) -> tuple[OutputStatus, ...]:
        """The numbers of each output."""
        return tuple(output.status for output in self._outputs)

    def hurry(self, grace_seconds: float) -> None:
        """From now on wait at most so long for an output that does not get on."""
        for output in self._outputs:
            output.hurry(grace_seconds)

    @contextmanager
    def finishing(self, *, grace_seconds: float, may_wait: Callable[[], bool]) -> Iterator[None]:
        """While this lasts the outputs write what they have and close; waits for them at the end."""
        finishing = [
            threading.Thread(
                target=output.finish, kwargs={"grace_seconds": grace_seconds, "may_wait": may_wait}
            )
            for output in self._outputs
        ]
        for thread in finishing:
            thread.start()
        try:
            yield
        finally:
            for thread in finishing:
                thread.join()

    def raise_bugs(self) -> None:
        """Raise what went wrong inside an output, where it was no expected failure."""
        for output in self._outputs:
            if output.bug is not None:
                raise output.bug
