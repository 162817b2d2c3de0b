"""What may be written: never what is read, and nothing that is there unless it may be replaced."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from instantvir_models.errors import UsageError, VideoWriteError
from instantvir_models.outputs.names import (
    IMAGE_NUMBER,
    identities_read,
    identity_of,
    pictures_of,
)

OVERWRITE_HINT = "give `--overwrite`, or another `-o`"


def refuse(path: Path, *, reads: Iterable[object] = (), may_replace: bool = False) -> None:
    """UsageError if a file to be made is one that is read, or is there and may not be replaced.

    Args:
        path: what `written_path` gave; a pattern such as `out_%05d.png` stands for all its pictures.
        reads: names of everything that is read, as typed; `-` for standard input.
        may_replace: whether a file that is there may be replaced; one that is read never is.
    """
    there = _there(path)
    read = identities_read([source for source in reads if source is not None])
    for found in there:
        if identity_of(found) in read:
            what = "is the input itself" if found == path else f"would replace the input `{found}`"
            raise UsageError(f"`{path}` {what}", hint="choose another name with `-o`")
    if any(map(_is_replaced, there)) and not may_replace:
        raise UsageError(_exists_already(path, there), hint=OVERWRITE_HINT)


def _there(path: Path) -> list[Path]:
    if os.path.lexists(path):
        return [path]
    return pictures_of(path) if IMAGE_NUMBER.search(path.name) else []


def _is_replaced(path: Path) -> bool:
    """Files, and links to nothing; devices and pipes are there to be written, folders refused."""
    return path.is_file() or not path.exists()


def _exists_already(path: Path, there: list[Path]) -> str:
    if there == [path]:
        return f"`{path}` exists already"
    return f"{len(there)} pictures of `{path}` exist already, the first is `{there[0].name}`"


def check_writable(path: Path, *, makes_folder: bool = False) -> None:
    """VideoWriteError if no file of this name can be made.

    Args:
        makes_folder: whether the folder is made when it is needed.
    """
    if path.is_dir():
        raise VideoWriteError(
            f"`{path}` is a directory", hint=f"name a file: `{path / 'restored.mp4'}`"
        )
    if makes_folder:
        check_can_be_made(path.parent)
        return
    if not path.parent.is_dir():
        raise VideoWriteError(
            f"the folder `{path.parent}` does not exist",
            hint=f"create it: mkdir -p '{path.parent}'",
        )
    _check_folder(path.parent)


def check_can_be_made(folder: Path) -> None:
    """VideoWriteError if the folder is not there and cannot be made, or takes no files."""
    there = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not there.is_dir():
        raise VideoWriteError(
            f"cannot make the folder `{folder}`: `{there}` is no folder",
            hint="choose another with `-o`",
        )
    _check_folder(there)


def _check_folder(folder: Path) -> None:
    if not os.access(folder, os.W_OK):
        raise VideoWriteError(
            f"the folder `{folder}` is not writable", hint="check its permissions or choose another"
        )
