"""Video out as numbered image files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from instantvir_models.errors import VideoWriteError
from instantvir_models.media.base import VideoWriter
from instantvir_models.media.color import as_uint8
from instantvir_models.media.destination import check_writable
from instantvir_models.media.ffmpeg_errors import write_error
from instantvir_models.media.frame import Frame
from instantvir_models.media.names import destination_name
from instantvir_models.media.packets import CompanionPacket

_DEEP_SUFFIXES = frozenset({".png", ".tif", ".tiff"})
"""Those that hold 16 bits."""


class ImageWriter(VideoWriter):
    """Writes `%05d.png` and its like, counted from 1, moved in place together on `close`.

    Raises:
        VideoWriteError: whatever goes wrong; no image is left behind then.
    """

    def __init__(self, pattern: Path, *, width: int, height: int) -> None:
        super().__init__(destination_name(pattern), width=width, height=height)
        check_writable(pattern.parent / "image")
        self._pattern = pattern
        self._folder = pattern.parent / f".{pattern.name.replace('%', '')}.part-{os.getpid()}"
        try:
            self._folder.mkdir()
        except OSError as error:
            raise VideoWriteError(f"cannot write `{pattern}`: {error.strerror}") from error
        self._names: list[str] = []

    def write_companions(self, packets: Iterable[CompanionPacket]) -> None:
        """Images have no sound."""

    def _write(self, frame: Frame) -> None:
        suffix = self._pattern.suffix.lower()
        pixels = frame.pixels
        if pixels.dtype == np.uint16 and suffix not in _DEEP_SUFFIXES:
            pixels = as_uint8(pixels)
        _, data = cv2.imencode(suffix, np.ascontiguousarray(pixels[..., ::-1]))
        name = self._pattern.name % (len(self._names) + 1)
        (self._folder / name).write_bytes(data.tobytes())
        self._names.append(name)

    def _finish(self) -> None:
        for name in self._names:
            os.replace(self._folder / name, self._pattern.parent / name)
        self._folder.rmdir()

    def _discard(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _sentence(self, error: BaseException) -> VideoWriteError | None:
        return write_error(error, self._name)
