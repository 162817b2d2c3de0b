"""A run on disk: checkpoints that are complete or not there, and who writes them.

RUN/checkpoints/step-00001200/   what `torch.distributed.checkpoint` wrote, the last good one
RUN/config.json                  the configuration, complete
RUN/material.json                the names of the clips that are learned from
RUN/log.jsonl                    a line every few steps
RUN/targets/                     what a teacher made of examples that come again
RUN/student.safetensors          the averaged weights, or another name for what is made
"""

import json
import os
import pickle
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, TextIO

import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load as read_state
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.checkpoint.state_dict_saver import save as write_state

from instantvir_distill.clips import named
from instantvir_distill.config import RunConfig
from instantvir_distill.methods.base import Method
from instantvir_distill.parallel import barrier, rank
from instantvir_distill.trust import NumbersOnly, check_index
from instantvir_models.errors import CheckpointError, UsageError, VideoWriteError
from instantvir_models.outputs.claim import told, write_whole
from instantvir_models.outputs.moving import sync_file, sync_folder

LATER = ("place",)
"""What checkpoints hold that those of 0.5.0 did not."""

FREE_TO_CHANGE = ("workers", "accumulate", "saves", "most_restarts")
"""Settings of which a run may have others when it goes on: who computes it, not what is learned. What
is random belongs to workers, so with another number of them the examples are others."""

MOST_DIFFERENCES = 5
"""Settings named in a message."""


def last_checkpoint(folder: Path) -> Path | None:
    """The folder of the newest complete checkpoint of the run in `folder`."""
    complete = sorted((folder / "checkpoints").glob("step-????????"))
    return complete[-1] if complete else None


def last_step(folder: Path) -> int:
    """That of the newest complete checkpoint, 0 where there is none."""
    newest = last_checkpoint(folder)
    return 0 if newest is None else int(newest.name.removeprefix("step-"))


def save_checkpoint(state: dict[str, Any], folder: Path, *, step: int) -> None:
    """Write `state` as the newest checkpoint; the one before goes when it is complete.

    Every worker calls this. A step that is there already, complete, is not written again.

    Raises:
        VideoWriteError: if it cannot be written; the one before is then still there.
    """
    if (folder / "checkpoints" / f"step-{step:08d}").exists():
        return
    partial = _begun(folder, step)
    with _shortage_told(partial), _quiet():
        write_state(state, checkpoint_id=partial)
    if rank() == 0:
        _complete(partial)
    barrier()


class SavesBeside:
    """Writes checkpoints while training goes on; the one before goes when the new one is complete.

    Every worker has one, and starts and ends its writing together with the others.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # said in the thread that writes, where `_quiet` does not reach
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        # of its own: training averages gradients in another thread meanwhile
        self._group = dist.new_group(backend="gloo") if dist.is_initialized() else None
        self._pending: tuple[Future[Any], Path] | None = None

    def start(self, state: dict[str, Any], *, step: int) -> None:
        """Copy `state` and begin to write it, after the one before is complete.

        Raises:
            VideoWriteError: if that one could not be written.
        """
        self.finish()
        partial = _begun(self.folder, step)
        with _shortage_told(partial), _quiet():
            writing = async_save(state, checkpoint_id=partial, process_group=self._group)
        assert isinstance(writing, Future)
        self._pending = writing, partial

    def look(self) -> None:
        """Make what is being written the newest checkpoint, if it is complete."""
        if self._pending is not None and self._pending[0].done():
            self.finish()

    def finish(self) -> None:
        """The same, after waiting for it.

        Raises:
            VideoWriteError: if it could not be written; the one before is then still there.
        """
        if self._pending is None:
            return
        (writing, partial), self._pending = self._pending, None
        with _shortage_told(partial):
            writing.result()
        if rank() == 0:  # where the others have written, too, or it would not be done
            _complete(partial)


def _begun(folder: Path, step: int) -> Path:
    """An empty folder for a checkpoint that is not complete; every worker calls this."""
    partial = folder / "checkpoints" / f"step-{step:08d}.part"
    if rank() == 0:
        for unfinished in partial.parent.glob("*.part"):  # of a run that was killed meanwhile
            shutil.rmtree(unfinished, ignore_errors=True)
        with told(partial):
            partial.mkdir(parents=True)
    barrier()
    return partial


@contextmanager
def _shortage_told(partial: Path) -> Iterator[None]:
    """What goes wrong while `partial` is written, as a sentence; nothing of it stays."""
    try:
        yield
    except (OSError, CheckpointException) as error:
        shutil.rmtree(partial, ignore_errors=True)
        good = last_checkpoint(partial.parent.parent)
        step = int(partial.stem.removeprefix("step-"))
        raise VideoWriteError(
            f"the checkpoint of step {step} cannot be written: {error}",
            hint=f"the last good one is {good or 'none'}",
        ) from error


def _complete(partial: Path) -> None:
    """Put `partial` on the disk and in its place; older checkpoints go."""
    place = partial.with_suffix("")
    for path in partial.rglob("*"):
        sync_file(path)
    os.replace(partial, place)
    sync_folder(place.parent)
    for older in place.parent.iterdir():
        if older != place:
            shutil.rmtree(older, ignore_errors=True)


def load_checkpoint(state: dict[str, Any], folder: Path) -> None:
    """Read the newest checkpoint, which is there, into the tensors of `state`.

    Raises:
        CheckpointError: if it is damaged, or holds what a checkpoint of a run does not.
    """
    newest = last_checkpoint(folder)
    assert newest is not None
    try:
        check_index(newest)
        with _quiet():
            read_state(_there(state, newest), checkpoint_id=newest, planner=NumbersOnly())
    except (OSError, pickle.UnpicklingError, CheckpointException) as error:
        raise CheckpointError(
            f"the checkpoint `{newest}` cannot be read: {_first_reason(error)}",
            hint="remove it, and the run begins again",
        ) from error


def _there(state: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    """`state` without what checkpoints did not always hold, where this one does not; it stays."""
    index = FileSystemReader(checkpoint).read_metadata().state_dict_metadata
    return {name: value for name, value in state.items() if name not in LATER or name in index}


def _first_reason(error: BaseException) -> str:
    """Of a checkpoint that several workers read, what the first of them said."""
    each = list(error.failures.values()) if isinstance(error, CheckpointException) else []
    reason = str(each[0][0]) if each else str(error)
    return reason.strip().splitlines()[0] if reason.strip() else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the remark that a single process saves alone."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"torch\.distributed\.checkpoint.*")
        yield


def described(config: RunConfig) -> dict[str, Any]:
    """`config` as JSON takes it, with the names of its methods."""
    values: dict[str, Any] = _plain(config)
    return values


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        name: dict[str, Any] = {"name": value.name} if isinstance(value, Method) else {}
        return name | {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value


def claim(config: RunConfig, folder: Path) -> None:
    """Write the configuration of a new run, or see that it is that of the run in `folder`.

    Raises:
        UsageError: as `check_place`.
    """
    check_place(config, folder)
    text = json.dumps(described(config), indent=2)
    write_whole(folder / "config.json", text, may_replace=True)


def check_place(config: RunConfig, folder: Path) -> None:
    """See that the run in `folder` is this one, or that there is none.

    Raises:
        UsageError: if that run was started with other settings, but for `FREE_TO_CHANGE`, says which;
            or something else is there.
    """
    written = folder / "config.json"
    now = described(config)
    if last_checkpoint(folder) is not None and written.exists():
        before = _completed(_settings_in(written), config)
        differences = list(_differences(_fixed(before), _fixed(now)))
        if differences:
            shown = "; ".join(differences[:MOST_DIFFERENCES])
            more = len(differences) - MOST_DIFFERENCES
            raise UsageError(
                f"the run in `{folder}` has other settings: {shown}"
                + (f", and {more} more" if more > 0 else ""),
                hint="take another folder for another run"
                + "".join(
                    f"; `--init {made}` goes on from what this one made"
                    for made in (folder / "student.safetensors", folder / "teacher.safetensors")
                    if made.exists()
                ),
            )
    elif last_checkpoint(folder) is None:
        _refuse_what_no_run_made(folder)


def _completed(before: Any, now: Any) -> Any:
    """Settings of a run, those that its version did not have at their usual values: what stands in their
    place in `now` says which there are."""
    if isinstance(before, list) and isinstance(now, tuple) and len(before) == len(now):
        return [_completed(*each) for each in zip(before, now, strict=True)]
    if isinstance(before, dict) and isinstance(now, Mapping):
        return {name: _completed(value, now.get(name)) for name, value in before.items()}
    is_same_kind = (
        before.get("name") == getattr(now, "name", None) if isinstance(before, dict) else False
    )
    if not is_same_kind or not is_dataclass(now):
        return before
    known = {
        each.name: _completed(before[each.name], getattr(now, each.name))
        if each.name in before
        else _usual(each)
        for each in fields(now)
        if each.name in before or _usual(each) is not MISSING
    }
    return before | known


def _usual(field: Field[Any]) -> Any:
    """What a setting is where nobody says it; MISSING where it has to be said."""
    made = field.default_factory() if field.default_factory is not MISSING else field.default
    return MISSING if made is MISSING else _plain(made)


def _settings_in(written: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(written.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            f"`{written}` cannot be read, so nothing tells the settings of the run: {error}",
            hint="take another folder for the run",
        ) from error


def material_changed(clips: Sequence[str], *, has_photos: bool, folder: Path) -> str | None:
    """What the run in `folder` learns from otherwise than before, in words; keeps what it is now.

    Raises:
        VideoWriteError: if that cannot be kept.
    """
    kept = folder / "material.json"
    before = _material_in(kept) if last_checkpoint(folder) is not None else None
    write_whole(kept, json.dumps({"clips": sorted(clips), "photos": has_photos}), may_replace=True)
    if before is None:
        return None
    clips_before, had_photos = before
    changes = [
        f"{len(names)} clip{'s' * (len(names) > 1)} {what} ({named(names)})"
        for names, what in (
            (_without(clips_before, clips), "fewer"),
            (_without(clips, clips_before), "more"),
        )
        if names
    ]
    if had_photos != has_photos:
        changes.append("photos" if has_photos else "no photos")
    return ", ".join(changes) or None


def _material_in(kept: Path) -> tuple[list[str], bool] | None:
    """Names of clips, and whether there were photos; None of a run of an older version."""
    try:
        found = json.loads(kept.read_text())
        return [str(name) for name in found["clips"]], bool(found["photos"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _without(names: Sequence[str], others: Sequence[str]) -> list[str]:
    return sorted((Counter(names) - Counter(others)).elements())


def _fixed(settings: Any) -> Any:
    """Those that a run keeps."""
    if not isinstance(settings, dict):
        return settings
    return {name: value for name, value in settings.items() if name not in FREE_TO_CHANGE}


def _refuse_what_no_run_made(folder: Path) -> None:
    """UsageError if the folder holds weights or a configuration of something else."""
    try:
        is_run = "seed" in json.loads((folder / "config.json").read_text())
    except FileNotFoundError:
        is_run = False
    except (OSError, ValueError, TypeError):
        raise _not_of_a_run(folder / "config.json") from None
    names = ("config.json", "student.safetensors", "teacher.safetensors")
    for path in [] if is_run else [folder / name for name in names]:
        if os.path.lexists(path):
            raise _not_of_a_run(path)


def _not_of_a_run(path: Path) -> UsageError:
    return UsageError(
        f"`{path}` exists already, and no run made it", hint="take another folder for the run"
    )


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        before, now = (dict(enumerate(each)) for each in (before, now))
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {**before, **now}:
            inner = f"{name}.{key}" if name else key
            yield from _differences(before.get(key), now.get(key), inner)
    elif before != now:
        yield f"`{name}` was {json.dumps(before)} and is {json.dumps(now)}"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds `folder` for one run, until the end of this process whatever happens to it.

    Raises:
        UsageError: if another run holds it, or it is a file.
        VideoWriteError: if it cannot be made or written in.
    """
    with _opened(folder / "lock") as lock:
        if not _locked(lock.fileno()):
            raise UsageError(
                f"another run is at work in `{folder}`", hint="wait for it, or take another folder"
            )
        yield


def _opened(lock: Path) -> TextIO:
    folder = lock.parent
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"`{folder}` is a file", hint="a run needs a folder of its own")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return lock.open("a")
    except OSError as error:
        raise VideoWriteError(f"`{folder}` cannot be written: {error.strerror}") from error


def _locked(descriptor: int) -> bool:
    """Whether the file is now locked by this process; the system unlocks it when that ends."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
