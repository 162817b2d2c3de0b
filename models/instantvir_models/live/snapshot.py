"""Pairs of pictures kept while a stream runs."""

from collections.abc import Callable
from pathlib import Path

import cv2

from instantvir_models.live.controls import Controls
from instantvir_models.media import Frame
from instantvir_models.media.frame import Pixels


class Snapshots:
    """Writes `snapshot_SECONDS_original.png` and `..._restored.png` when a pair is wanted."""

    def __init__(
        self, folder: Path, controls: Controls, *, on_event: Callable[[str], None]
    ) -> None:
        self._folder, self._controls, self._on_event = folder, controls, on_event

    def consider(self, measured: Frame, restored: Frame) -> None:
        """Keep this pair if one is wanted; a folder that cannot be written is told, not raised."""
        if not self._controls.take_snapshot_wish():
            return
        stem = f"snapshot_{measured.pts_seconds:.3f}"
        for name, frame in (("original", measured), ("restored", restored)):
            path = self._folder / f"{stem}_{name}.png"
            try:
                path.write_bytes(png(frame.pixels))
            except OSError as error:
                self._on_event(f"cannot keep `{path}`: {error.strerror}")
                return
        self._on_event(f"kept `{stem}_original.png` and `{stem}_restored.png` in `{self._folder}`")


def png(pixels: Pixels) -> bytes:
    """A lossless picture in the depth of the frame."""
    ok, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    assert ok
    return data.tobytes()
