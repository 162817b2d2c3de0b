"""Where the output goes: a name of a file that is held, a pipe, or an address."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import BinaryIO

from instantvir_models.errors import VideoWriteError
from instantvir_models.media.names import Destination, as_address, is_image_file, is_image_pattern
from instantvir_models.outputs.claim import Claim, claim, told
from instantvir_models.outputs.names import written_path
from instantvir_models.outputs.rule import check_writable, refuse


def claimed(destination: Destination, *, may_replace: bool) -> Claim | None:
    """The name of the file to be made, held by this run; None for a pipe, a device or an address.

    A missing folder is made for images.

    Raises:
        UsageError: if the file exists and may not be replaced, or another run writes it.
        VideoWriteError: if no file of this name can be made.
    """
    if isinstance(destination, Claim):
        return destination
    if (named := written_path(destination)) is not None and is_images(named):
        with told(named):
            named.parent.mkdir(parents=True, exist_ok=True)
    path = final_path(destination)
    if path is None:
        return None
    refuse(path, may_replace=may_replace)
    return claim(path, may_replace=may_replace)


def is_images(path: Path | None) -> bool:
    """Whether pictures are written, each into a file of its own."""
    return is_image_pattern(path) or is_image_file(path)


def final_path(destination: Destination) -> Path | None:
    """The file to be made, or None for a pipe, a device or an address."""
    path = destination.path if isinstance(destination, Claim) else written_path(destination)
    if path is None:
        return None
    with told(path):
        check_writable(path)
    is_special = os.path.exists(path) and not os.path.isfile(path)
    return None if is_special else path


def stream_of(destination: Destination) -> str | BinaryIO:
    """What FFmpeg writes to, for a destination without a `final_path`."""
    if isinstance(destination, Claim):
        return as_address(str(destination.path))
    if isinstance(destination, (str, Path)):
        text = str(destination)
        if text != "-":
            return as_address(text)
        if sys.stdout is None:
            raise VideoWriteError("standard output is closed", hint="give `-o FILE`")
        return sys.stdout.buffer
    return destination
