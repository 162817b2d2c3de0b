"""Pairs of pictures kept while a stream runs."""

import queue
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import TracebackType

import cv2

from instantvir_models.errors import InstantVIRError
from instantvir_models.live.controls import Controls
from instantvir_models.media import Frame
from instantvir_models.media.frame import Pixels
from instantvir_models.outputs.claim import write_whole

MOST_WAITING = 4
"""Pairs that wait to be written; a disk that hangs costs pairs, not memory or delay."""

GRACE_SECONDS = 10.0
"""How long the end waits for pairs that are not written yet."""


class Snapshots:
    """Writes `snapshot_SECONDS_original.png` and `..._restored.png` when a pair is wanted.

    Written in a thread of its own while used as a context; leaving it waits for what was wanted.
    A picture appears whole under its name or not at all, and never replaces another one: the name
    then gets a number. What goes wrong is told, not raised.
    """

    def __init__(
        self, folder: Path, controls: Controls, *, on_event: Callable[[str], None]
    ) -> None:
        self._folder, self._controls, self._on_event = folder, controls, on_event
        self._waiting: queue.Queue[tuple[Frame, Frame] | None] = queue.Queue(MOST_WAITING + 1)
        self._thread = threading.Thread(
            target=self._write_all, name="instantvir-snapshots", daemon=True
        )

    def __enter__(self) -> "Snapshots":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._waiting.put(None)  # `consider` leaves room for it
        self._thread.join(GRACE_SECONDS)
        if self._thread.is_alive():
            self._on_event(f"`{self._folder}` takes no picture; the last ones were not kept")

    def consider(self, measured: Frame, restored: Frame) -> None:
        """Keep this pair if one is wanted; does not wait for the disk."""
        if not self._controls.take_snapshot_wish():
            return
        if self._waiting.qsize() >= MOST_WAITING:
            self._on_event(f"a pair was not kept: `{self._folder}` takes them too slowly")
            return
        self._waiting.put((measured, restored))

    def _write_all(self) -> None:
        while (pair := self._waiting.get()) is not None:
            try:
                stem = self._write(*pair)
            except InstantVIRError as error:
                self._on_event(f"cannot keep a pair in `{self._folder}`: {error}")
            else:
                self._on_event(
                    f"kept `{stem}_original.png` and `{stem}_restored.png` in `{self._folder}`"
                )

    def _write(self, measured: Frame, restored: Frame) -> str:
        """What the names of the two files begin with."""
        pictures = {"original": png(measured.pixels), "restored": png(restored.pixels)}
        stem = self._free_stem(f"snapshot_{measured.pts_seconds:.3f}", list(pictures))
        kept: list[Path] = []
        try:
            for name, data in pictures.items():
                path = self._folder / f"{stem}_{name}.png"
                write_whole(path, data)
                kept.append(path)
        except InstantVIRError:
            for path in kept:  # half a pair is none
                path.unlink(missing_ok=True)
            raise
        return stem

    def _free_stem(self, stem: str, names: list[str]) -> str:
        numbered = (stem if number == 1 else f"{stem}-{number}" for number in count(1))
        return next(
            candidate
            for candidate in numbered
            if not any((self._folder / f"{candidate}_{name}.png").exists() for name in names)
        )


def png(pixels: Pixels) -> bytes:
    """A lossless picture in the depth of the frame."""
    ok, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    assert ok
    return data.tobytes()
