"""How much closer to the clean video the restoration is than the input was."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from instantvir_models.errors import UsageError
from instantvir_models.media import USUAL_RULES, Frame, InputRules, open_video
from instantvir_models.metrics.fidelity import psnr, psnr_over_frames


class Gain:
    """Mean RGB PSNR of input and output against a clean reference, frame by frame.

    Args:
        reference: the clean video, with frames of the size of the output.
        start_seconds: where in the reference the first pair lies.
        rules: how far it may reach.
    """

    def __init__(
        self, reference: Path, *, start_seconds: float | None, rules: InputRules = USUAL_RULES
    ) -> None:
        self._reader = open_video(
            reference, start_seconds=start_seconds, other_streams=False, rules=rules
        )
        self._frames: Iterator[Frame] = iter(self._reader)
        self._path = reference
        self.before: list[float] = []
        """dB of each input frame."""
        self.after: list[float] = []
        """dB of each restored frame."""
        self.clean: Frame | None = None
        """The frame of the reference that belongs to the latest pair; None beyond its end."""

    def add(self, original: Frame, restored: Frame) -> None:
        """Take one pair; pairs beyond the end of the reference do not count.

        Raises:
            UsageError: if the reference has another size.
        """
        clean = self.clean = next(self._frames, None)
        if clean is None:
            return
        if clean.pixels.shape != restored.pixels.shape:
            raise UsageError(
                f"the reference `{self._path}` is {_size(clean.pixels)} "
                f"but the output is {_size(restored.pixels)}"
            )
        before: Any = original.pixels
        if before.shape != restored.pixels.shape:
            height, width = restored.pixels.shape[:2]
            before = cv2.resize(before, (width, height), interpolation=cv2.INTER_CUBIC)
        self.before.append(float(psnr(before[None], clean.pixels[None])[0]))
        self.after.append(float(psnr(restored.pixels[None], clean.pixels[None])[0]))

    def close(self) -> None:
        """Release the reference."""
        self._reader.close()

    @property
    def input_psnr(self) -> float:
        """dB, mean over frames, of which one that is equal counts as 100 dB."""
        return float(np.mean(self.before))

    @property
    def output_psnr(self) -> float:
        """dB, mean over frames, likewise."""
        return float(np.mean(self.after))

    @property
    def input_psnr_over_frames(self) -> float:
        """dB of the mean square over all frames."""
        return psnr_over_frames(self.before)

    @property
    def output_psnr_over_frames(self) -> float:
        """dB of the mean square over all frames."""
        return psnr_over_frames(self.after)


def _size(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
