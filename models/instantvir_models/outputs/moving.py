"""A complete file gets its name: never over another one unless that is wanted, and for good."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import shutil
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_FINAL = frozenset(
    {errno.EEXIST, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOENT, errno.EISDIR}
)
"""What another way of moving would be told, too."""


def move_new(made: Path, name: Path) -> None:
    """Give a complete file a name that nothing has; what appeared there meanwhile stays.

    Raises:
        FileExistsError: if something has the name.
        OSError: if the file system refuses; nothing of ours is under the name then.
    """
    for way in (_renamed_new, _linked):
        try:
            return way(made, name)
        except OSError as error:
            if error.errno in _FINAL:
                raise
    _moved_onto_reserved(made, name)


def move_over(made: Path, name: Path) -> None:
    """Give a complete file its name, at once; what had it is gone.

    Raises:
        OSError: if the file system refuses.
    """
    try:
        os.replace(made, name)
    except OSError as error:
        if error.errno in _FINAL:
            raise
        with suppress(FileNotFoundError):
            name.unlink()  # never written through: it may be a link
        _moved_onto_reserved(made, name)


def _renamed_new(made: Path, name: Path) -> None:
    rename = _renameat2()
    if rename is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    sys.audit("os.rename", str(made), str(name), -1, -1)  # as `os.rename` says it
    if rename(_AT_FDCWD, os.fsencode(made), _AT_FDCWD, os.fsencode(name), _RENAME_NOREPLACE) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(name))


def _linked(made: Path, name: Path) -> None:
    os.link(made, name, follow_symlinks=False)
    made.unlink()


def _moved_onto_reserved(made: Path, name: Path) -> None:
    """Where a file system knows neither way (exFAT, some network shares): an empty file of ours takes
    the name first, which only one of two can do, and the complete one takes its place."""
    reserved = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | _NOFOLLOW, 0o666)
    try:
        try:
            os.replace(made, name)
        except OSError as error:
            if error.errno in _FINAL:
                raise
            _say_copied(name, error)
            with made.open("rb") as source:
                _copied(source.fileno(), reserved)
            made.unlink()
    except BaseException:
        with suppress(OSError):
            name.unlink()
        raise
    finally:
        os.close(reserved)


def _say_copied(name: Path, error: OSError) -> None:
    logger.warning("`%s` cannot be renamed here (%s); it is copied", name, error.strerror)


def _copied(source: int, target: int) -> None:
    with os.fdopen(os.dup(source), "rb") as reading, os.fdopen(os.dup(target), "wb") as writing:
        shutil.copyfileobj(reading, writing, 1 << 20)
        writing.flush()
        os.fsync(writing.fileno())


def sync_file(path: Path) -> None:
    """What was written to the file is on the disk.

    Raises:
        OSError: if the disk could not take all of it.
    """
    _synced(path, os.O_RDONLY)


def sync_folder(folder: Path) -> None:
    """The names in the folder are on the disk, where its file system can say so."""
    with suppress(OSError):
        _synced(folder, os.O_RDONLY)


def _synced(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0))
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)


@cache
def _renameat2() -> Any:
    """The system's rename that can refuse to replace; None where there is none."""
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return None
    function.argtypes = [
        ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint,
    ]  # fmt: skip
    function.restype = ctypes.c_int
    return function
