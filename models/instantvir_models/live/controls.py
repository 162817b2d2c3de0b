"""What a viewer may change while the stream runs."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from instantvir_models.errors import UsageError
from instantvir_models.students.text import TextRows
from instantvir_models.tasks import MOST_SHARPNESS


@dataclass(frozen=True, kw_only=True)
class ControlSettings:
    """How much of the restoration is shown, and what the student is told."""

    is_on: bool = True
    """False passes frames through unrestored."""
    strength: float = 1.0
    """1 shows the restored frame, 0 the measured one (enlarged if need be), else a blend."""
    sharpness: float = 0.0
    """As `Session.change_sharpness` takes it."""
    prompt: str | None = None
    """What is seen, in words, or the file of rows that say it; None as long as nobody said."""
    text: TextRows | None = None
    """The prompt as a session takes it; None leaves a session with its student's own."""

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise UsageError(f"the strength is {self.strength:g}; it is a number from 0 to 1")
        if not 0 <= self.sharpness <= MOST_SHARPNESS:
            raise UsageError(
                f"the sharpness is {self.sharpness:g}; it is a number from 0 to {MOST_SHARPNESS:g}"
            )

    def but(
        self, *, is_on: bool | None, strength: float | None, sharpness: float | None
    ) -> "ControlSettings":
        """These settings with what is given changed; UsageError if it is out of range."""
        return replace(
            self,
            is_on=self.is_on if is_on is None else is_on,
            strength=self.strength if strength is None else strength,
            sharpness=self.sharpness if sharpness is None else sharpness,
        )


class Controls:
    """The current settings and snapshot wishes; any thread may read and change them.

    Args:
        read_prompt: makes rows of a prompt; None where the student reads no text.
        can_sharpen: whether the sharpness can be changed.
    """

    def __init__(
        self,
        settings: ControlSettings | None = None,
        *,
        read_prompt: Callable[[str], TextRows] | None = None,
        can_sharpen: bool = False,
    ) -> None:
        self.can_sharpen = can_sharpen
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._settings = settings or ControlSettings()
        self._read_prompt = read_prompt
        self._snapshots_wanted = 0

    @property
    def settings(self) -> ControlSettings:
        """What holds for the next block."""
        with self._lock:
            return self._settings

    @property
    def reads_text(self) -> bool:
        """Whether a prompt can be changed."""
        return self._read_prompt is not None

    def change(
        self,
        *,
        is_on: bool | None = None,
        strength: float | None = None,
        sharpness: float | None = None,
        prompt: str | None = None,
    ) -> None:
        """Change what is given, all of it or, on an error, nothing.

        A prompt is read in the calling thread, which may take a text encoder's time; the stream
        goes on meanwhile with the old one.

        Raises:
            UsageError: if a value is out of range, the student reads no text or cannot be sharpened, or
                another prompt is being read.
            CheckpointError: if the prompt does not fit the student.
        """
        if sharpness is not None and not self.can_sharpen:
            raise UsageError("the method of this stream cannot be sharpened")
        change = partial(ControlSettings.but, is_on=is_on, strength=strength, sharpness=sharpness)
        change(self.settings)  # told before a prompt is read
        text = None if prompt is None else self._read(prompt)
        with self._lock:
            self._settings = change(self._settings)
            if text is not None:
                self._settings = replace(self._settings, prompt=prompt, text=text)

    def _read(self, prompt: str) -> TextRows:
        if self._read_prompt is None:
            raise UsageError("the student of this stream reads no text")
        if not self._reading.acquire(blocking=False):  # an encoder fits into memory once
            raise UsageError("another prompt is being read", hint="try again in a moment")
        try:
            return self._read_prompt(prompt)
        except (MemoryError, OSError, RuntimeError) as error:  # the stream needs no encoder
            raise UsageError(f"the prompt could not be read: {error}") from error
        finally:
            self._reading.release()

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
