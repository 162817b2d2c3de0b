"""From captured frames to those that are shown: in blocks, restored or as they came."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from instantvir_models.live.capture import Captured
from instantvir_models.live.controls import Controls
from instantvir_models.live.overload import Relief, Way
from instantvir_models.live.sessions import RestoredPair, Sessions
from instantvir_models.live.status import Counters
from instantvir_models.live.watchdog import Pulse
from instantvir_models.media import Frame
from instantvir_models.media.frame import Pixels
from instantvir_models.run.dust import DustFinder


class Restoration:
    """Gathers frames into blocks and gives out each frame once, in order.

    Args:
        relief: says how a block is treated while the controls are on.
        show: called with each frame and the pixels to show of it.
        finds_dust: each frame waits for the next, beside which its dust shows.
    """

    def __init__(
        self,
        sessions: Sessions,
        *,
        relief: Relief,
        controls: Controls,
        counters: Counters,
        pulse: Pulse,
        show: Callable[[Captured, Pixels], None],
        finds_dust: bool = False,
    ) -> None:
        self._sessions, self._relief = sessions, relief
        self._controls, self._counters, self._pulse = controls, counters, pulse
        self._show = show
        self._block: list[Captured] = []
        self._finder = DustFinder() if finds_dust else None
        self._beside: deque[Captured] = deque()
        """Frames that wait for the next one."""

    @property
    def look_ahead(self) -> int:
        """Frames that a block waits for beyond its own."""
        return self._sessions.look_ahead + (self._finder is not None)

    @property
    def num_left(self) -> int:
        """Frames that were taken and not given out."""
        return len(self._beside) + len(self._block) + self._sessions.num_held

    def take(self, item: Captured) -> None:
        """One more frame; gives out what is ready."""
        if item.kind != self._sessions.kind:
            self._change_kind(item)
        if self._finder is None:
            self._gather(item)
        else:
            self._beside.append(item)
            self._gather_told(self._finder.push(item.frame))

    def end(self) -> None:
        """Give out what is left."""
        if self._finder is not None:
            self._gather_told(self._finder.flush())
        self._process_block()
        self._show_all(self._sessions.give_out())

    def _gather_told(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            self._gather(replace(self._beside.popleft(), frame=frame))

    def _gather(self, item: Captured) -> None:
        if self._does_not_continue(item):
            self._process_block()
        self._block.append(item)
        if len(self._block) >= self._sessions.frames_to_gather:
            self._process_block()

    def _change_kind(self, item: Captured) -> None:
        self.end()
        self._counters.add("size change")
        self._sessions.change_kind(item.kind)

    def _does_not_continue(self, item: Captured) -> bool:
        """Whether frames are missing between the block and `item` that its operator counts."""
        is_gap = bool(self._block) and item.index != self._block[-1].index + 1
        return is_gap and self._sessions.counts_frames

    def _process_block(self) -> None:
        block, self._block = self._block, []
        if not block:
            return
        started = time.monotonic()
        way = self._way()
        if way is Way.PASS or not self._sessions.can_restore:
            self._pass_on(block)
        else:
            self._restore(block, is_cheap=way is Way.DEGRADE)
        self._counters.add_block(time.monotonic() - started)

    def _way(self) -> Way:
        return self._relief.way() if self._controls.settings.is_on else Way.PASS

    def _pass_on(self, block: list[Captured]) -> None:
        held = self._sessions.give_out()
        if held:
            self._show_all(held)
            self._sessions.begin_anew()
        self._counters.add("passed", len(block))
        self._show_all((item, item.frame.pixels) for item in block)

    def _restore(self, block: list[Captured], *, is_cheap: bool) -> None:
        first = block[0].index
        if self._sessions.misses_frames_before(first):
            self._show_all(self._sessions.give_out())
            self._sessions.begin_anew(first)
        settings = self._controls.settings
        with self._pulse.busy("restoring a block"):
            restored = self._sessions.restore(
                block, text=settings.text, sharpness=settings.sharpness, is_cheap=is_cheap
            )
        if is_cheap:
            self._counters.add("degraded", len(restored))
        self._show_all(restored)

    def _show_all(self, pairs: Iterable[RestoredPair]) -> None:
        for item, pixels in pairs:
            self._show(item, pixels)
        self._counters.add("guarded", self._sessions.newly_guarded())
