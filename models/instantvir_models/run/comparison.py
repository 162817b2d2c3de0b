"""Input beside output: a video and a sheet of stills for the eye."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from instantvir_models.errors import UsageError
from instantvir_models.media import EncoderSettings, Frame, create_video
from instantvir_models.media.color import as_uint8
from instantvir_models.outputs.claim import write_whole

SHEET_ROWS = 4
WIPE_SECONDS = 4
STYLES = ("side", "wipe")


def check_style(style: str) -> None:
    """UsageError for a style there is not."""
    if style not in STYLES:
        raise UsageError(f"`--compare-style` is `{style}`; it is `side` or `wipe`")


class Comparison:
    """Collects pairs of input and restored frames; one video and one picture come out.

    Args:
        video_path, sheet_path: where they go.
        width, height: of the restored frames.
        style: `side` puts both beside each other, `wipe` moves a line across them.
        frame_rate: of the video.
        may_replace: whether files that exist are replaced.

    Raises:
        VideoWriteError: if either cannot be written; the other is then whole, or not there.
    """

    def __init__(
        self,
        video_path: Path,
        sheet_path: Path,
        *,
        width: int,
        height: int,
        style: str,
        frame_rate: Fraction | None,
        may_replace: bool = False,
    ) -> None:
        self._size = (width, height)
        self._style = style
        self._frame_rate = float(frame_rate or 25)
        self._sheet_path = sheet_path
        self._sheet: list[tuple[float, NDArray[np.uint8]]] = []
        self._stride = 1
        self._count = 0
        self._writer = create_video(
            video_path,
            width=2 * width if style == "side" else width,
            height=height,
            settings=EncoderSettings(),
            frame_rate=frame_rate,
            overwrite=may_replace,
        )
        self._may_replace = may_replace

    def add(self, original: Frame, restored: Frame) -> None:
        """Take one pair."""
        before: Any = as_uint8(original.pixels)
        after = as_uint8(restored.pixels)
        if before.shape != after.shape:
            before = cv2.resize(before, self._size, interpolation=cv2.INTER_CUBIC)
        self._writer.write(
            Frame(
                self._composed(before, after), restored.pts, restored.time_base, restored.duration
            )
        )
        if self._count % self._stride == 0:
            row = np.concatenate([_labelled(before, "input"), _labelled(after, "restored")], 1)
            self._sheet.append((restored.pts_seconds, row))
            if len(self._sheet) > SHEET_ROWS:  # keep every other: memory stays constant
                self._sheet = self._sheet[::2]
                self._stride *= 2
        self._count += 1

    def close(self) -> None:
        """Finish the video and write the sheet."""
        self._writer.close()
        sheet = np.concatenate([row for _, row in self._sheet])
        _, data = cv2.imencode(".png", np.ascontiguousarray(sheet[..., ::-1]))
        write_whole(self._sheet_path, data.tobytes(), may_replace=self._may_replace)

    def abort(self) -> None:
        """Leave nothing behind."""
        self._writer.abort()

    def _composed(self, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self._style == "side":
            return np.concatenate([before, after], 1)
        width = self._size[0]
        phase = self._count / (WIPE_SECONDS * self._frame_rate) % 1
        edge = round(width * (1 - abs(2 * phase - 1)))
        wiped = after.copy()
        wiped[:, :edge] = before[:, :edge]
        wiped[:, max(0, edge - 1) : edge + 1] = 255
        return wiped


def _labelled(pixels: NDArray[np.uint8], label: str) -> NDArray[np.uint8]:
    """A copy with `label` written in the upper left corner."""
    picture = np.ascontiguousarray(pixels)
    scale = max(0.3, min(pixels.shape[:2]) / 700)
    place = (round(10 * scale) + 2, round(34 * scale) + 2)
    font = cv2.FONT_HERSHEY_SIMPLEX
    for colour, weight in (((0, 0, 0), 4), ((255, 255, 255), 1)):
        thickness = max(1, round(weight * scale * 2))
        cv2.putText(picture, label, place, font, scale, colour, thickness, cv2.LINE_AA)
    return picture
