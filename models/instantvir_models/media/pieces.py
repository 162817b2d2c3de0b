"""The files of a playlist, opened for FFmpeg: it does not notice when one of them cannot be written."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

_READ_ONLY = 1
"""FFmpeg's flag."""


class Pieces:
    """Opens files, and remembers that one could not be written to its end."""

    def __init__(self) -> None:
        self._error: OSError | None = None

    def check(self) -> None:
        """OSError if a file could not be written."""
        if self._error is not None:
            raise self._error

    def note(self, error: OSError) -> None:
        """A file could not be written; the first time counts."""
        self._error = self._error or error

    def opened(self, address: str, flags: int, options: dict[str, Any]) -> io.FileIO:
        """A file as PyAV wants it."""
        path = Path(address.removeprefix("file:"))
        return io.FileIO(path, "rb") if flags == _READ_ONLY else _Piece(path, self)


class _Piece(io.FileIO):
    def __init__(self, path: Path, pieces: Pieces) -> None:
        self._pieces = pieces
        try:
            super().__init__(path, "wb")
        except OSError as error:
            pieces.note(error)
            raise

    def write(self, data: Any, /) -> int:
        """All of it, though the system may take less at a time; what it refuses is noted, for PyAV would
        print all but the first of several errors."""
        left = memoryview(data)
        try:
            while left:
                left = left[super().write(left) :]
        except OSError as error:
            self._pieces.note(error)
        return len(data)

    def close(self) -> None:
        """What is refused now is noted, too."""
        try:
            super().close()
        except OSError as error:
            self._pieces.note(error)
