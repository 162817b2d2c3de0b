"""One name held by one run, and the hidden folder in which what is to get it is made.

Beside `clip.mp4` stands `.clip.mp4.instantvir/` while it is written. The folder is private, so nobody
can plant links in it, and a file in it is locked, so two runs cannot have one name. What a run left
that was killed is found by its lock being free: the next run in the same folder removes and names it,
unless it was kept on purpose, to go on from.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import socket
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

from instantvir_models.errors import UsageError, VideoWriteError
from instantvir_models.outputs.moving import move_new, move_over, sync_file, sync_folder
from instantvir_models.outputs.rule import check_writable, refuse

logger = logging.getLogger(__name__)

PRIVATE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
"""How a file of ours is opened: through no link, and closed in programs that are started."""

ENDING = ".instantvir"
"""How the names of the hidden folders end."""

LOCK, KEPT, PLACING = "lock", "kept", "placing"
"""Files in it that are not made to get a name. The last says which one is just getting its."""

_LONGEST_NAME_BYTES = 255
"""What file systems allow."""
USUAL_HINT = "check the folder, its permissions and the disk"
_GONE = frozenset(
    {errno.EIO, errno.ENODEV, errno.ENXIO, errno.EROFS, errno.ESTALE, errno.ENOTCONN}
)  # fmt: skip
"""What the system says of a disk that was there."""
_OF_THE_SYSTEM = frozenset(
    {errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EDQUOT, errno.EMFILE,
     errno.ENFILE, errno.ENAMETOOLONG, errno.EISDIR, errno.EFBIG}
)  # fmt: skip
"""What else it says, and not FFmpeg of what it is to write."""
_TRIES, _PAUSE_SECONDS = 6, 0.05
"""A name may be held for a moment by a run that looks whether it was left, or just ends."""
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL})


class Claim:
    """A name that this run alone writes; see `claim`. As a context manager it is released at the end.

    Attributes:
        path: the name.
        folder: where what is to get the name is made; nobody else writes there.
        may_replace: whether what has the name may be replaced.
        is_adopted: whether `folder` holds what an earlier run kept.
    """

    def __init__(self, path: Path, folder: Path, lock: int, *, may_replace: bool) -> None:
        self.path, self.folder, self.may_replace = path, folder, may_replace
        self.is_adopted = False
        # Also where nobody has it any more, as after an interruption before it was given to anybody.
        self._owner = os.getpid()
        self._let_go = weakref.finalize(self, _let_go, folder, lock, self._owner)
        _held_now.add(self)

    @property
    def unfinished(self) -> Path:
        """Where to write what `commit` gives the name."""
        return self.folder / self.path.name

    def made(self) -> list[Path]:
        """The files in `folder`, not those in folders in it, `unfinished` last: what a muxer writes
        may be several."""
        entries = [path for path in self.folder.iterdir() if path.name not in (LOCK, KEPT, PLACING)]
        files = [path for path in entries if path.is_file()]
        return sorted(files, key=lambda path: (path == self.unfinished, path.name))

    @property
    def is_held(self) -> bool:
        """Whether the name still belongs to this run."""
        return self._let_go.alive

    @property
    def has_kept(self) -> bool:
        """Whether `folder` is there to be adopted by a later run."""
        return _is_kept(self.folder)

    def keep(self) -> None:
        """From now on `folder` outlives this run: the next one that claims the name can adopt it.

        Raises:
            VideoWriteError: if the mark cannot be written.
        """
        with told(self.path):
            (self.folder / KEPT).touch()
            sync_folder(self.folder)

    def keep_no_more(self) -> None:
        """Take `keep` back: `folder` ends with this run."""
        (self.folder / KEPT).unlink(missing_ok=True)

    def commit(self, made: Sequence[Path] = ()) -> None:
        """Give what was made its name, for good, and release the claim.

        Args:
            made: files in `folder`, each with the name that it is to have, in this order; else only
                `unfinished`.

        Raises:
            VideoWriteError: if a file has one of the names that was not there when the claim was made
                (it stays; what was made is kept beside it, and the sentence says where), or the disk
                refuses.
        """
        self.place(made)
        self.release(for_good=True)

    def place(self, made: Sequence[Path] = ()) -> None:
        """The same, while the name stays claimed: for files that grow under their own names."""
        files = list(made) or [self.unfinished]
        with told(self.path):
            for file in files:
                sync_file(file)
            if self.has_kept:
                (self.folder / PLACING).write_bytes(os.fsencode(files[-1].name))
            try:
                self._moved(files)
            except OSError:
                (self.folder / PLACING).unlink(missing_ok=True)
                raise
            sync_folder(self.path.parent)

    def _moved(self, files: Sequence[Path]) -> None:
        done: list[Path] = []
        for file in files:
            name = self.path.parent / file.name
            try:
                (move_over if self.may_replace else move_new)(file, name)
            except OSError as error:
                if not self.may_replace:
                    self._take_back(done)
                if isinstance(error, FileExistsError):
                    raise self._appeared(files, name) from error
                raise
            done.append(file)

    def _take_back(self, files: Sequence[Path]) -> None:
        """Half of what belongs together is nothing."""
        for file in files:
            with suppress(OSError):
                os.replace(self.path.parent / file.name, file)

    def _appeared(self, files: Sequence[Path], name: Path) -> VideoWriteError:
        """What is said when somebody else took the name meanwhile; nothing is lost."""
        made = files[0] if len(files) == 1 else self.folder / f"{self.path.stem}-files"
        if len(files) > 1:
            made.mkdir()
            for file in files:
                os.replace(file, made / file.name)
        kept = _moved_to_free_name(made, self.path.parent)
        sync_folder(self.path.parent)
        return VideoWriteError(
            f"`{name}` appeared while this ran, and was left as it is",
            hint=f"what was made is in `{kept}`",
        )

    def release(self, *, for_good: bool = False) -> None:
        """Let go of the name, with what is in the folder unless that was kept. Safe to call twice.

        Args:
            for_good: what was kept goes, too.
        """
        if for_good and self.is_held and os.getpid() == self._owner:  # a fork holds nothing
            with suppress(OSError):
                self.keep_no_more()
        self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def claim(path: Path, *, may_replace: bool = False, adopts: bool = False) -> Claim:
    """The name `path`, held for this run until it is committed or released.

    Args:
        may_replace: whether a file that has the name is replaced.
        adopts: what an earlier run kept of the same name stays in `folder`, and `is_adopted` says
            so; else it is removed.

    Raises:
        UsageError: if another run writes it.
        VideoWriteError: if nothing can be written there.
    """
    with told(path):
        check_writable(path)
    folder = hidden_folder(path)
    sweep(path.parent, leaving=folder)
    held = None
    try:
        with told(path):
            held = Claim(path, folder, _held(folder, path), may_replace=may_replace)
            held.is_adopted = adopts and _is_kept(folder)
            if not held.is_adopted:
                _clear(folder, path)
            (folder / PLACING).unlink(missing_ok=True)
            return held
    except BaseException as error:  # an interruption, too, leaves nothing
        if held is not None:
            held.release()
        elif not _is_kept(folder):
            with suppress(OSError, VideoWriteError):
                (_swept if isinstance(error, Exception) else _given_up)(folder)
        raise


_held_now = weakref.WeakSet[Claim]()


def _let_go(folder: Path, lock: int, owner: int) -> None:
    """End a claim; of what it kept nothing is taken away."""
    if os.getpid() != owner:  # a fork holds nothing
        return
    try:
        if not _is_kept(folder):
            _remove_whatever_comes(folder)
    finally:
        os.close(lock)


@contextmanager
def new_file(path: Path, *, may_replace: bool = False) -> Iterator[Path]:
    """Where to write what appears as `path` if this ends well, whole and on the disk.

    Raises:
        UsageError: if another run writes it, or it exists and may not be replaced.
        VideoWriteError: if it cannot be written; OSErrors while this lasts become one, too.
    """
    refuse(path, may_replace=may_replace)
    with claim(path, may_replace=may_replace) as held, told(path):
        yield held.unfinished
        held.commit()


def write_whole(path: Path, data: bytes | str, *, may_replace: bool = False) -> None:
    """Make a file that appears whole, or not at all; text is UTF-8.

    Raises:
        UsageError, VideoWriteError: as `new_file`.
    """
    with new_file(path, may_replace=may_replace) as unfinished, unfinished.open("xb") as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """What the system refuses while this lasts is a sentence about `path`: VideoWriteError."""
    try:
        yield
    except OSError as error:
        raise write_failure(error, path) from error


def write_failure(error: OSError, path: Path) -> VideoWriteError:
    """Why `path` could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return VideoWriteError(
            f"no space is left for `{path}`", hint="free some space or write to another disk"
        )
    if isinstance(error, FileExistsError):
        return VideoWriteError(f"`{path}` exists already", hint="choose another name")
    return VideoWriteError(
        f"cannot write `{path}`: {error.strerror or error}",
        hint=hint_of_the_system(error.errno) or USUAL_HINT,
    )


def hint_of_the_system(code: int | None) -> str | None:
    """What to do about an error number of a file system that is written to; None for other errors."""
    if code in _GONE:
        return "the disk may be unplugged, broken or write-protected; with it back, give the same command"
    return USUAL_HINT if code in _OF_THE_SYSTEM else None


def hidden_folder(path: Path) -> Path:
    """Where what is to be `path` is made."""
    name = os.fsencode(path.name)
    room = _LONGEST_NAME_BYTES - len(ENDING) - 1
    if len(name) > room:
        mark = "~" + hashlib.sha256(name).hexdigest()[:16]
        name = name[: room - len(mark)].decode("utf-8", "ignore").encode() + mark.encode()
    return path.with_name(f".{os.fsdecode(name)}{ENDING}")


def sweep(folder: Path, *, leaving: Path | None = None) -> None:
    """Remove, and name, what runs left in `folder` that were killed; what they kept stays."""
    with suppress(OSError):
        found = [
            Path(entry.path)
            for entry in os.scandir(folder)
            if entry.name.startswith(".") and entry.name.endswith(ENDING)
        ]
        for orphan in found:
            if orphan != leaving and not _is_kept(orphan):
                with suppress(OSError, VideoWriteError):
                    _swept(orphan)


def _is_kept(folder: Path) -> bool:
    """Whether it is there to be adopted: not if what was made of it has got its name already, and the
    run was killed before it could take the folder away."""
    try:
        if not (folder / KEPT).exists():
            return False
        name = os.fsdecode((folder / PLACING).read_bytes())
        return (folder / Path(name).name).exists()
    except (
        OSError
    ):  # mostly that nothing is getting its name; a disk that is gone keeps what it has
        return True


def _given_up(folder: Path) -> None:
    """Take away the folder of a claim that was interrupted: its lock may be ours already, with nobody
    left who knows."""
    words = _owner(folder)
    is_claimed = any(held.is_held and held.folder == folder for held in tuple(_held_now))
    if words[:1] == [str(os.getpid())] and words[1:] == [socket.gethostname()] and not is_claimed:
        _remove(folder)
    else:
        _swept(folder)


def _swept(orphan: Path) -> None:
    _refuse_foreign(orphan)
    if not (orphan / LOCK).exists():
        orphan.rmdir()  # nothing is in it, or its owner has just made it
        return
    lock = os.open(orphan / LOCK, os.O_RDWR | PRIVATE)
    try:
        if _is_locked_by_us(lock, orphan):
            size = _bytes_in(orphan)
            _remove(orphan)
            if size:
                logger.warning(
                    "removed `%s` (%.1f MB), left by a run that was ended", orphan, size / 1e6
                )
    finally:
        os.close(lock)


def _held(folder: Path, path: Path) -> int:
    """The descriptor of the lock, which is ours."""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE_SECONDS)
        lock = _try_to_hold(folder)
        if lock is not None:
            return lock
    raise UsageError(
        f"`{path}` is being written by another run{_who(folder)}",
        hint="wait for it, or give another `-o`",
    )


def _try_to_hold(folder: Path) -> int | None:
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if not os.path.lexists(folder):  # its owner has just ended
            return None
        _refuse_foreign(folder)
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | PRIVATE, 0o600)
    except FileNotFoundError:  # its owner has just ended
        return None
    try:
        if _is_locked_by_us(lock, folder):
            with suppress(OSError):  # it only helps people
                os.ftruncate(lock, 0)
                os.pwrite(lock, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
            return lock
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None


def _is_locked_by_us(lock: int, folder: Path) -> bool:
    """Whether the lock is now ours and still that of the folder."""
    if not _locked(lock, folder):
        return False
    try:
        return os.path.samestat(os.fstat(lock), os.lstat(folder / LOCK))
    except FileNotFoundError:
        return False


def _locked(lock: int, folder: Path) -> bool:
    try:
        import fcntl
    except ImportError:  # not on Windows
        return _is_owner_gone(folder)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _NO_LOCKS and _is_owner_gone(folder)
    return True


def _is_owner_gone(folder: Path) -> bool:
    """Where nothing can be locked: whether the process that is named in the file has ended."""
    words = _owner(folder)
    if len(words) < 2:
        return True
    if words[1] != socket.gethostname() or int(words[0]) == os.getpid():
        return False
    try:
        os.kill(int(words[0]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _owner(folder: Path) -> list[str]:
    """Number and machine of the process that writes there, as far as it is told."""
    try:
        words = (folder / LOCK).read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return []
    return words if len(words) == 2 and words[0].isdecimal() else []


def _who(folder: Path) -> str:
    words = _owner(folder)
    if not words:
        return ""
    machine = "" if words[1] == socket.gethostname() else f" on {words[1]}"
    return f" (process {words[0]}{machine})"


def _refuse_foreign(folder: Path) -> None:
    """Somebody else's folder, or a link to one, is no place of ours."""
    is_ours = not folder.is_symlink() and folder.is_dir()
    if is_ours and hasattr(os, "geteuid"):
        # A share may show all that is on it as one user's.
        is_ours = folder.lstat().st_uid in (os.geteuid(), folder.parent.stat().st_uid)
    if not is_ours:
        raise VideoWriteError(
            f"`{folder}` stands where the unfinished file is to be made, and is somebody else's",
            hint="delete it, or choose another name with `-o`",
        )


def _clear(folder: Path, path: Path) -> None:
    """Empty the folder but for its lock, and say so if something was left in it."""
    left = [entry for entry in folder.iterdir() if entry.name != LOCK]
    if not left:
        return
    size = _bytes_in(folder)
    for entry in left:
        _delete(entry)
    logger.warning(
        "removed %.1f MB of an earlier run for `%s`, which did not end", size / 1e6, path
    )


def _remove(folder: Path) -> None:
    """Take the folder away, its lock last, so that nobody thinks it free before."""
    for entry in folder.iterdir():
        if entry.name != LOCK:
            _delete(entry)
    with suppress(OSError):  # somebody else may claim the name between these two
        (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()


def _remove_whatever_comes(folder: Path) -> None:
    """The same, once more if a signal interrupts it; of a disk that is gone the next run sweeps."""
    try:
        _remove(folder)
    except OSError:
        pass
    except BaseException:
        with suppress(OSError):
            _remove(folder)
        raise


def _delete(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        with suppress(OSError):
            entry.unlink()


def _bytes_in(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.name != LOCK)


def _moved_to_free_name(made: Path, folder: Path) -> Path:
    """Where it went: its name with a number that nothing has."""
    for number in count(2):
        place = folder / f"{made.stem}-{number}{made.suffix}"
        with suppress(FileExistsError):
            move_new(made, place)
            return place
    raise AssertionError
