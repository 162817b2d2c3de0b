"""Frames out as numbered image files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from instantvir_models.errors import VideoWriteError
from instantvir_models.media.color import as_uint8
from instantvir_models.media.destination import check_writable
from instantvir_models.media.source import IMAGE_NUMBER, IMAGE_SUFFIXES


def is_image_pattern(destination: object) -> bool:
    """Whether it is something like `out_%05d.png`."""
    if not isinstance(destination, (str, Path)):
        return False
    path = Path(destination)
    return bool(IMAGE_NUMBER.search(path.name)) and path.suffix.lower() in IMAGE_SUFFIXES


class ImageSequenceWriter:
    """Writes `%05d.png` and its like, counted from 1, moved in place together on `close`."""

    def __init__(self, pattern: Path) -> None:
        check_writable(pattern.parent / "image")
        self._pattern = pattern
        self._folder = pattern.parent / f".{pattern.name.replace('%', '')}.part-{os.getpid()}"
        try:
            self._folder.mkdir()
        except OSError as error:
            raise VideoWriteError(f"cannot write `{pattern}`: {error.strerror}") from error
        self._names: list[str] = []

    def write(self, pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
        """Encode one picture, RGB [H, W, 3]; 16-bit pictures need PNG or TIFF."""
        suffix = self._pattern.suffix.lower()
        if pixels.dtype == np.uint16 and suffix not in {".png", ".tif", ".tiff"}:
            pixels = as_uint8(pixels)
        _, data = cv2.imencode(suffix, np.ascontiguousarray(pixels[..., ::-1]))
        name = self._pattern.name % (len(self._names) + 1)
        (self._folder / name).write_bytes(data.tobytes())
        self._names.append(name)

    def close(self) -> None:
        for name in self._names:
            os.replace(self._folder / name, self._pattern.parent / name)
        self._folder.rmdir()

    def abort(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
