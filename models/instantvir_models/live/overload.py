"""What happens to frames that come faster than they can be restored."""

from enum import StrEnum


class Overload(StrEnum):
    """Policy for a machine that is too slow for its input.

    All but `BLOCK` bound the delay: whatever else they do, a frame that finds the queue full
    displaces the oldest one in it, and that is counted.
    """

    BLOCK = "block"
    """Let the source wait: nothing is lost, and a source that cannot wait buffers by itself."""
    DROP = "drop"
    """Drop the oldest waiting frames."""
    SKIP = "skip"
    """Pass whole blocks through unrestored until the queue is short again."""
    DEGRADE = "degrade"
    """Restore without the student (initial estimate and data consistency) until it is short."""


class LoadGauge:
    """Says whether the machine is behind, with hysteresis so that it does not flutter.

    Args:
        queue_size: frames the incoming queue holds.
        frames_per_block: frames that leave it together.
    """

    def __init__(self, queue_size: int, frames_per_block: int) -> None:
        self._high = max(1, queue_size - frames_per_block)
        self._low = min(frames_per_block, self._high - 1)
        self._is_behind = False

    def is_behind(self, num_waiting: int) -> bool:
        """Whether relief is needed, now that so many frames wait."""
        if num_waiting >= self._high:
            self._is_behind = True
        elif num_waiting <= self._low:
            self._is_behind = False
        return self._is_behind
