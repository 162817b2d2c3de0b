"""What of a restoration is done, on the disk: so that the same command goes on after any end.

Beside the output, in the hidden folder that claims its name, lie the pieces that are encoded
(`media.segments`), each with a note that says so, and what the session knew at the end of the last one. Of a
piece that takes long its frames lie there, too, as they are (`run.loose`), with what the session knew behind
the last of them. A note appears when all it speaks of is on the disk; so at every instant there is a state to
go on from, and what lies there besides is of no account.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from instantvir_models import __version__
from instantvir_models.checkpoints.tensors import write_tensors
from instantvir_models.cpu import cores
from instantvir_models.errors import UsageError
from instantvir_models.media.segments import Segment, ffmpeg_versions
from instantvir_models.outputs.claim import Claim, told
from instantvir_models.outputs.moving import sync_file, sync_folder
from instantvir_models.run.kept import KeptMemory
from instantvir_models.run.loose import LooseFrames

logger = logging.getLogger(__name__)

FORMAT = 1
"""Of the notes; others are not read."""

LONGEST_SEGMENT, SHORTEST_SEGMENT = 250, 48
"""Frames of a segment: no more than encoders put between keyframes anyway."""

USUAL_PIXELS = 832 * 480
"""Frames of up to so many pixels have the longest segments; larger ones take longer."""

SAMPLED_BYTES = 1 << 20
"""Of the head and of the tail of an input, which tell it from another with its name and size."""

NOTE, LOOSE_NOTE = "journal.json", "loose.json"


def frames_per_segment(height: int, width: int) -> int:
    """How many frames of that size are kept together, and computed twice at most."""
    frames = LONGEST_SEGMENT * USUAL_PIXELS // max(1, height * width)
    return max(SHORTEST_SEGMENT, min(LONGEST_SEGMENT, frames))


@dataclass(frozen=True)
class Fingerprint:
    """All that the output depends on, by what people call it."""

    facts: dict[str, str]

    def differences(self, before: dict[str, str]) -> list[str]:
        """What is otherwise than it was, in words."""
        names = [*self.facts, *(name for name in before if name not in self.facts)]
        return [
            f"{name} was {_short(before.get(name))}, now {_short(self.facts.get(name))}"
            for name in names
            if before.get(name) != self.facts.get(name)
        ]


def of_program() -> dict[str, str]:
    """What a result depends on besides the command: versions and threads."""
    return {
        "instantvir": __version__,
        "torch": torch.__version__,
        "FFmpeg": ffmpeg_versions(),
        "OpenCV": cv2.__version__,
        "NumPy": np.__version__,
        "the number of threads": f"{torch.get_num_threads()} of {cores()}",
    }


def of_files(files: Sequence[Path]) -> str:
    """Tells files from others, by their sizes, times, heads and tails."""
    digest = hashlib.sha256()
    for path in files:
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
        for sample in _head_and_tail(path, status.st_size):
            digest.update(sample)
    size = sum(path.stat().st_size for path in files)
    return f"{size} bytes ({digest.hexdigest()[:16]})"


def _head_and_tail(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield file.read(SAMPLED_BYTES)
        file.seek(max(0, size - SAMPLED_BYTES))
        yield file.read(SAMPLED_BYTES)


@dataclass(frozen=True)
class Progressed:
    """How far an earlier run came."""

    segments: tuple[Segment, ...]
    memory: KeptMemory
    frames_out: int
    seconds: float
    """That it worked."""
    loose: LooseFrames | None = None
    """Frames behind the pieces, the last of which is the one before `frames_out`; None where there are
    none."""

    @property
    def frames_in_pieces(self) -> int:
        """Frames that are encoded."""
        return self.frames_out - (self.loose.num_frames if self.loose else 0)


@dataclass(eq=False)
class Journal:
    """The pieces of one output that are done, and who may go on with them.

    Args:
        held: the name of the output; its folder is where all this lies.
        fingerprint: of this run.
        before: what an earlier run left, to go on from.
    """

    held: Claim
    fingerprint: Fingerprint
    before: Progressed | None = None
    frames_kept: int = field(init=False, default=0)
    """Restored frames that are on the disk for good."""
    frames_in_pieces: int = field(init=False, default=0)
    """Those of them that are encoded."""

    def __post_init__(self) -> None:
        self._count = len(self.before.segments) if self.before else 0
        self.frames_kept = self.before.frames_out if self.before else 0
        self.frames_in_pieces = self.before.frames_in_pieces if self.before else 0

    def add(self, segment: Segment, memory: KeptMemory, *, frames_out: int, seconds: float) -> None:
        """Note that a piece is done, and what the session knows behind it.

        Raises:
            VideoWriteError: if the disk does not take it; the state before is still there.
        """
        folder, index = self.held.folder, self._count
        with told(self.held.path):
            said = {"segment": segment.as_json(), "frames_out": frames_out, "seconds": seconds}
            self._write(_note(folder, index), said, memory, _tensors(folder, index))
            if index:
                _tensors(folder, index - 1).unlink(missing_ok=True)
        self._count, self.frames_kept, self.frames_in_pieces = index + 1, frames_out, frames_out

    def new_loose(self) -> LooseFrames:
        """Where frames of the next piece go; none yet."""
        return LooseFrames(self.held.folder, self._count)

    def note(
        self, loose: LooseFrames, memory: KeptMemory, *, frames_out: int, seconds: float
    ) -> None:
        """Note that the frames of the piece at hand are on the disk, and what the session knows behind them.

        Raises:
            VideoWriteError: if the disk does not take it; the state before is still there.
        """
        folder = self.held.folder
        with told(self.held.path):
            loose.store()
            tensors = folder / f"{loose.index:05d}-{frames_out}.safetensors"
            said = {
                "loose": loose.as_json(),
                "tensors": tensors.name,
                "frames_out": frames_out,
                "seconds": seconds,
            }
            before = _read_note(folder / LOOSE_NOTE)
            self._write(folder / LOOSE_NOTE, said, memory, tensors)
            if before is not None and _loose_tensors(folder, before) != tensors:
                _loose_tensors(folder, before).unlink(missing_ok=True)
        self.frames_kept = frames_out

    def forget(self, loose: LooseFrames) -> None:
        """Take the frames of the piece at hand away; what is encoded stays."""
        folder = self.held.folder
        with told(self.held.path):
            before = _read_note(folder / LOOSE_NOTE)
            if self._count == 0 and before is not None:
                self.held.keep_no_more()
            (folder / LOOSE_NOTE).unlink(missing_ok=True)
            if before is not None:
                _loose_tensors(folder, before).unlink(missing_ok=True)
            loose.discard()
        self.frames_kept = self.frames_in_pieces

    def _write(self, note: Path, said: dict[str, Any], memory: KeptMemory, tensors: Path) -> None:
        """A note, in front of it what the session knew."""
        write_tensors(tensors, memory.tensors)
        sync_file(tensors)
        self._begin()
        _write_note(note, said | {"memory": memory.tree})
        self._keep()

    def _begin(self) -> None:
        """Say what the run depends on, in front of the first note."""
        if self.frames_kept:
            return
        said = {"format": FORMAT, "fingerprint": self.fingerprint.facts}
        _write_note(self.held.folder / NOTE, said)

    def _keep(self) -> None:
        if not self.held.has_kept:
            self.held.keep()

    @property
    def sentence(self) -> str | None:
        """What is kept, in words; None before there is something."""
        if not self.frames_kept:
            return None
        return (
            f"the first {self.frames_kept} frames of `{self.held.path}` are kept in "
            f"`{self.held.folder}`: the same command goes on there"
        )


def opened_journal(held: Claim, fingerprint: Fingerprint, *, must_go_on: bool) -> Journal:
    """The journal of a name that was claimed with `adopts`; what cannot be gone on with is removed
    where it may be.

    Args:
        must_go_on: whether the user asks to go on with what is there.

    Raises:
        UsageError: if what is there is of another command, unless it may be replaced.
    """
    if not held.is_adopted:
        return Journal(held, fingerprint)
    said = _read_note(held.folder / NOTE)
    known = said is not None and said.get("format") == FORMAT
    differences = fingerprint.differences(said["fingerprint"]) if said and known else []
    before = _progressed(held.folder) if known and not differences else None
    if before is not None:
        _remove_but(held, before)
        return Journal(held, fingerprint, before)
    if differences and (must_go_on or not held.may_replace):
        raise UsageError(
            f"`{held.path}` was begun otherwise: {'; '.join(differences)}",
            hint=f"give the same command to go on, `--overwrite` without `--resume` to begin anew, "
            f"or delete `{held.folder}`",
        )
    why = "; ".join(differences) or "it cannot be gone on with"
    logger.warning("what an earlier run left of `%s` is removed: %s", held.path, why)
    _remove_but(held, None)
    return Journal(held, fingerprint)


def _progressed(folder: Path) -> Progressed | None:
    """What is done without a gap; None where that is nothing."""
    pieces = _encoded(folder)
    return _with_loose(folder, pieces) or pieces


def _with_loose(folder: Path, pieces: Progressed | None) -> Progressed | None:
    """What is done with the frames behind the pieces; None where there are none, or they are not whole."""
    segments = pieces.segments if pieces else ()
    said = _read_note(folder / LOOSE_NOTE)
    try:
        if said is None or said["loose"]["index"] != len(segments):
            return None
        loose = LooseFrames.from_json(said["loose"], folder)
        if sum(1 for _ in loose.read()) != loose.num_frames:
            return None
        memory = KeptMemory(said["memory"], load_file(_loose_tensors(folder, said)))
        done = Progressed(segments, memory, said["frames_out"], said["seconds"], loose)
        is_behind = done.frames_in_pieces == (pieces.frames_out if pieces else 0)
        return done if is_behind else None
    except (OSError, ValueError, KeyError, TypeError, StopIteration, SafetensorError) as error:
        logger.debug("the frames kept in %s cannot be read: %s", folder, error)
        return None


def _encoded(folder: Path) -> Progressed | None:
    """What is encoded without a gap; None where that is nothing."""
    notes: list[dict[str, Any]] = []
    segments: list[Segment] = []
    try:
        while (said := _read_note(_note(folder, len(notes)))) is not None:
            segment = Segment.from_json(said["segment"], folder)
            if not segment.is_whole:
                return None
            notes.append(said)
            segments.append(segment)
        if not notes:
            return None
        memory = KeptMemory(notes[-1]["memory"], load_file(_tensors(folder, len(notes) - 1)))
        last = notes[-1]
        return Progressed(tuple(segments), memory, last["frames_out"], last["seconds"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        logger.debug("the journal in %s cannot be read: %s", folder, error)
        return None


def _remove_but(held: Claim, before: Progressed | None) -> None:
    """Take away what is of no account; without a state to go on from, all of it."""
    wanted: set[Path] = set()
    if before is not None:
        wanted = {held.folder / NOTE}
        if before.segments:
            wanted.add(_tensors(held.folder, len(before.segments) - 1))
        if before.loose is not None:
            said = _read_note(held.folder / LOOSE_NOTE) or {}
            wanted |= {held.folder / LOOSE_NOTE, _loose_tensors(held.folder, said)}
            wanted |= {*before.loose.files}
        for index, segment in enumerate(before.segments):
            wanted |= {segment.path, segment.notes_path, _note(held.folder, index)}
    with told(held.path):
        for path in held.made():
            if path not in wanted:
                path.unlink()
        if before is None:
            held.keep_no_more()


def _note(folder: Path, index: int) -> Path:
    return folder / f"{index:05d}.json"


def _loose_tensors(folder: Path, said: dict[str, Any]) -> Path:
    """Where a note of loose frames says that the session's memory is: never outside of `folder`."""
    return folder / Path(said["tensors"]).name


def _tensors(folder: Path, index: int) -> Path:
    return folder / f"{index:05d}.safetensors"


def _write_note(path: Path, said: dict[str, Any]) -> None:
    """The note appears whole, and stays."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(said), encoding="utf-8")
    sync_file(unfinished)
    os.replace(unfinished, path)
    sync_folder(path.parent)


def _read_note(path: Path) -> dict[str, Any] | None:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) else None


def _short(text: str | None) -> str:
    return "not told" if text is None else text if len(text) < 200 else f"{text[:200]}..."
