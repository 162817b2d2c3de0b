"""How much closer to the clean video the restoration is than the input was."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from instantvir_models.errors import UsageError
from instantvir_models.media import Frame, VideoReader


class Gain:
    """Mean RGB PSNR of input and output against a clean reference, frame by frame.

    Args:
        reference: the clean video, with frames of the size of the output.
        start_seconds: where in the reference the first pair lies.
    """

    def __init__(self, reference: Path, *, start_seconds: float | None) -> None:
        self._reader = VideoReader(reference, start_seconds=start_seconds, other_streams=False)
        self._frames: Iterator[Frame] = iter(self._reader)
        self._path = reference
        self._before: list[float] = []
        self._after: list[float] = []

    def add(self, original: Frame, restored: Frame) -> None:
        """Take one pair; pairs beyond the end of the reference do not count.

        Raises:
            UsageError: if the reference has another size.
        """
        clean = next(self._frames, None)
        if clean is None:
            return
        if clean.pixels.shape != restored.pixels.shape:
            raise UsageError(
                f"the reference `{self._path}` is {_size(clean.pixels)} "
                f"but the output is {_size(restored.pixels)}"
            )
        before = original.pixels
        if before.shape != restored.pixels.shape:
            height, width = restored.pixels.shape[:2]
            before = cv2.resize(before, (width, height), interpolation=cv2.INTER_CUBIC)
        self._before.append(_psnr(before, clean.pixels))
        self._after.append(_psnr(restored.pixels, clean.pixels))

    def close(self) -> None:
        """Release the reference."""
        self._reader.close()

    @property
    def input_psnr(self) -> float:
        """dB, mean over frames."""
        return float(np.mean(self._before))

    @property
    def output_psnr(self) -> float:
        """dB, mean over frames."""
        return float(np.mean(self._after))


def _unit(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.float32]:
    return pixels.astype(np.float32) / np.iinfo(pixels.dtype).max


def _psnr(
    a: NDArray[np.uint8] | NDArray[np.uint16], b: NDArray[np.uint8] | NDArray[np.uint16]
) -> float:
    error = float(np.mean((_unit(a) - _unit(b)) ** 2, dtype=np.float64))
    return -10 * float(np.log10(max(error, 1e-10)))


def _size(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
