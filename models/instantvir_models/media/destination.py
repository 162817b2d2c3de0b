"""Where the output goes: a file that appears whole or not at all, a pipe, or an address."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import BinaryIO

from instantvir_models.errors import VideoWriteError
from instantvir_models.media.names import Destination, as_address, scheme_of

logger = logging.getLogger(__name__)


LONGEST_NAME_BYTES = 255
"""What file systems allow."""


def is_address(destination: Destination) -> bool:
    """Whether it is something like `rtmp://host/name` rather than a path."""
    return isinstance(destination, str) and scheme_of(destination) is not None


def final_path(destination: Destination) -> Path | None:
    """The file to be made, or None for a pipe, a device or an address."""
    if not isinstance(destination, (str, Path)) or str(destination) == "-":
        return None
    if is_address(destination):
        return None
    path = Path(destination)
    check_writable(path)
    is_special = path.exists() and not path.is_file()
    return None if is_special else path


def stream_of(destination: Destination) -> str | BinaryIO:
    """What FFmpeg writes to, for a destination without a `final_path`."""
    if isinstance(destination, (str, Path)):
        text = str(destination)
        return sys.stdout.buffer if text == "-" else as_address(text)
    return destination


def partial_path(path: Path) -> Path:
    """The hidden neighbour that is written and then renamed."""
    end = f".part-{os.getpid()}{path.suffix}"
    room = LONGEST_NAME_BYTES - len(os.fsencode(end)) - 1
    stem = os.fsencode(path.name)[:room].decode("utf-8", "ignore")
    return path.with_name(f".{stem}{end}")


def move_into_place(partial: Path, final: Path) -> None:
    """Give the complete file its name; where the file system cannot do that at once, by a copy."""
    try:
        os.replace(partial, final)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
            raise
        logger.warning("`%s` cannot be renamed here (%s); it is copied", final, error.strerror)
        shutil.copyfile(partial, final)
        partial.unlink()


def check_writable(path: Path) -> None:
    """VideoWriteError if no file of this name can be made."""
    if path.is_dir():
        raise VideoWriteError(
            f"`{path}` is a directory", hint=f"name a file: `{path / 'restored.mp4'}`"
        )
    if not path.parent.is_dir():
        raise VideoWriteError(
            f"the folder `{path.parent}` does not exist",
            hint=f"create it: mkdir -p '{path.parent}'",
        )
    if not os.access(path.parent, os.W_OK):
        raise VideoWriteError(
            f"the folder `{path.parent}` is not writable",
            hint="check its permissions or choose another",
        )
