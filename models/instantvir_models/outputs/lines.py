"""Files that grow by lines while a run goes on: its log, and what a farm has done."""

from __future__ import annotations

import os
from contextlib import suppress
from io import FileIO
from pathlib import Path

from instantvir_models.outputs.claim import PRIVATE, told


def add_line(path: Path, line: str) -> None:
    """Add a line to a file of ours; it is whole and on the disk when this returns, or not there.

    A half line that a killed run left is ended first. A link that has the name is not followed: in a
    folder that others write to it may lead to anything of ours.

    Raises:
        VideoWriteError: if it cannot be written.
    """
    with told(path):
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | PRIVATE, 0o666)
        with FileIO(descriptor, "r+") as file:
            size = file.seek(0, os.SEEK_END)
            end = b"\n" if _ends_in_a_half_line(file, size) else b""
            try:
                _write_all(file, end + line.encode() + b"\n")
                os.fsync(descriptor)
            except OSError:
                with suppress(OSError):
                    file.truncate(size)
                raise


def _ends_in_a_half_line(file: FileIO, size: int) -> bool:
    if size == 0:
        return False
    file.seek(size - 1)
    return file.read(1) != b"\n"


def _write_all(file: FileIO, data: bytes) -> None:
    """A disk that is nearly full takes a part."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
