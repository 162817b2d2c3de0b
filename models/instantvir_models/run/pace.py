"""How fast frames come out, and how long the rest will take."""

from collections import deque

WARM_UP_BLOCKS = 1
"""Blocks that do not count: memory is laid out and kernels are chosen meanwhile."""

FEWEST_BLOCKS = 3
"""Blocks behind those that are waited for before anything is said."""

LEAST_SECONDS = 2.0
"""They have to take so long together, for what is shorter is mostly chance."""

WINDOW_SECONDS = 60.0
"""What lies longer back says little of what is to come."""

SPACING_SECONDS = 0.25
"""Between the beginnings of blocks that are remembered."""


class Pace:
    """Frames per second, measured from block to block.

    The frames of a block come at once, so the time of a block is that between the first frames of two.

    Args:
        frames_per_block: frames that come at once.
    """

    def __init__(self, *, frames_per_block: int) -> None:
        self._frames_per_block = frames_per_block
        self._frames_done = 0
        self._first_frame: int | None = None
        self._blocks_seen = 0
        self._beginnings: deque[tuple[int, float]] = deque()

    def note(self, frames: int, seconds: float) -> None:
        """That `frames` are done, `seconds` after some moment that stays the same."""
        if self._first_frame is None:
            self._first_frame = frames
        if (frames - self._first_frame) % self._frames_per_block == 0:
            self._blocks_seen += 1
            if self._blocks_seen > WARM_UP_BLOCKS:
                self._remember(frames - 1, seconds)
        self._frames_done = frames

    @property
    def fps(self) -> float | None:
        """Of the last minute; None before enough was measured."""
        if len(self._beginnings) < 2 or self._blocks_seen < WARM_UP_BLOCKS + 1 + FEWEST_BLOCKS:
            return None
        (frames, began), (frames_now, now) = self._beginnings[0], self._beginnings[-1]
        if now - began < LEAST_SECONDS:
            return None
        return (frames_now - frames) / (now - began)

    def seconds_left(self, total_frames: int | None) -> float | None:
        """Until the last of `total_frames`; None where that cannot be said."""
        fps = self.fps
        if fps is None or total_frames is None:
            return None
        return max(0, total_frames - self._frames_done) / fps

    def _remember(self, frames: int, seconds: float) -> None:
        if self._beginnings and seconds - self._beginnings[-1][1] < SPACING_SECONDS:
            return
        self._beginnings.append((frames, seconds))
        while len(self._beginnings) > 2 and seconds - self._beginnings[1][1] > WINDOW_SECONDS:
            self._beginnings.popleft()
