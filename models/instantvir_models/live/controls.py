"""What a viewer may change while the stream runs."""

import threading
from dataclasses import dataclass, replace

from instantvir_models.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ControlSettings:
    """How much of the restoration is shown."""

    is_on: bool = True
    """False passes frames through unrestored."""
    strength: float = 1.0
    """1 shows the restored frame, 0 the measured one (enlarged if need be), else a blend."""

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise UsageError(f"the strength is {self.strength:g}; it is a number from 0 to 1")


class Controls:
    """The current settings and snapshot wishes; any thread may read and change them."""

    def __init__(self, settings: ControlSettings | None = None) -> None:
        self._lock = threading.Lock()
        self._settings = settings or ControlSettings()
        self._snapshots_wanted = 0

    @property
    def settings(self) -> ControlSettings:
        """What holds for the next block."""
        with self._lock:
            return self._settings

    def change(self, *, is_on: bool | None = None, strength: float | None = None) -> None:
        """Change what is given; UsageError if it is out of range."""
        with self._lock:
            current = self._settings
            self._settings = replace(
                current,
                is_on=current.is_on if is_on is None else is_on,
                strength=current.strength if strength is None else strength,
            )

    def ask_for_snapshot(self) -> None:
        """The next frame out is to be kept as a pair of pictures."""
        with self._lock:
            self._snapshots_wanted += 1

    def take_snapshot_wish(self) -> bool:
        """Whether a pair is wanted of this frame; the wish is then fulfilled."""
        with self._lock:
            wanted = self._snapshots_wanted > 0
            self._snapshots_wanted = 0
            return wanted
