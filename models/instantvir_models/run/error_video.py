"""How far a restoration believes to be off, pixel by pixel, as a grey video beside it."""

from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instantvir_models.media import EncoderSettings, Frame, create_video

STEPS_PER_LEVEL = 10
"""Grey levels for each 8-bit level of the expected error: the video shows errors up to 25.5 levels."""


class ErrorVideo:
    """Collects maps of expected errors; one grey video comes out, lossless as Matroska.

    Raises:
        VideoWriteError: if it cannot be written.
    """

    def __init__(
        self,
        path: Path,
        *,
        width: int,
        height: int,
        frame_rate: Fraction | None,
        may_replace: bool = False,
    ) -> None:
        codec = "ffv1" if path.suffix.lower() == ".mkv" else None
        self._writer = create_video(
            path,
            width=width,
            height=height,
            settings=EncoderSettings(codec=codec),
            frame_rate=frame_rate,
            overwrite=may_replace,
        )

    def add(self, restored: Frame, error_levels: NDArray[np.float32]) -> None:
        """Take the map [H, W] of one frame, in 8-bit levels."""
        grey = np.rint(error_levels * STEPS_PER_LEVEL).clip(0, 255).astype(np.uint8)
        pixels = np.repeat(grey[..., None], 3, -1)
        self._writer.write(Frame(pixels, restored.pts, restored.time_base, restored.duration))

    def close(self) -> None:
        """Finish the video."""
        self._writer.close()

    def abort(self) -> None:
        """Leave nothing behind."""
        self._writer.abort()
