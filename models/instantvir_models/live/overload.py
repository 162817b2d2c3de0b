"""What happens to frames that come faster than they can be restored."""

from collections.abc import Callable
from enum import Enum, StrEnum, auto


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
    """Restore at half the height and width, and enlarge, until it is short. Where the operator does
    not say what it is at half size (masks, down-sampling, over time), restore without the student:
    initial estimate and data consistency.

    Measured at 832x480 on one core of an AMD EPYC, PSNR of a smooth clip / a detailed one and CPU
    time per block. Blur of 1.5 px with noise 3 (36.7 / 25.9 dB): restored 42.3 / 30.2 dB, at half
    size 41.7 / 28.0 dB in 1/3.8 of the time, without the student 32.0 / 28.2 dB in 1/3.9. Noise 12
    (26.7 / 26.9 dB): 40.9 / 34.2 dB, at half size 39.8 / 27.9 dB in 1/3.4; without the student
    nothing happens.
    """


class Way(Enum):
    """How a block is treated."""

    RESTORE = auto()
    DEGRADE = auto()
    PASS = auto()


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


_WAY_WHEN_BEHIND = {Overload.SKIP: Way.PASS, Overload.DEGRADE: Way.DEGRADE}


class Relief:
    """Says, by policy and load, how the next block is treated.

    Args:
        num_waiting: says how many frames wait now.
    """

    def __init__(
        self, overload: Overload, gauge: LoadGauge, num_waiting: Callable[[], int]
    ) -> None:
        self._way_when_behind = _WAY_WHEN_BEHIND.get(overload, Way.RESTORE)
        self._gauge, self._num_waiting = gauge, num_waiting

    def way(self) -> Way:
        """How it is treated; ask once a block."""
        is_behind = self._gauge.is_behind(self._num_waiting())
        return self._way_when_behind if is_behind else Way.RESTORE
