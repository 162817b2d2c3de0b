"""What of a restoration is done, on the disk: so that the same command goes on after any end.

Beside the output, in the hidden folder that claims its name, lie the pieces that are encoded
(`media.segments`), each with a note that says so, and what the session knew at the end of the last one. A
note appears when all it speaks of is on the disk; so at every instant there is a state to go on from, and
what lies there besides is of no account.
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

logger = logging.getLogger(__name__)

FORMAT = 1
"""Of the notes; others are not read."""

LONGEST_SEGMENT, SHORTEST_SEGMENT = 250, 48
"""Frames of a segment: no more than encoders put between keyframes anyway."""

USUAL_PIXELS = 832 * 480
"""Frames of up to so many pixels have the longest segments; larger ones take longer."""

SAMPLED_BYTES = 1 << 20
"""Of the head and of the tail of an input, which tell it from another with its name and size."""

NOTE = "journal.json"


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

    def __post_init__(self) -> None:
        self._count = len(self.before.segments) if self.before else 0
        self.frames_kept = self.before.frames_out if self.before else 0

    def add(self, segment: Segment, memory: KeptMemory, *, frames_out: int, seconds: float) -> None:
        """Note that a piece is done, and what the session knows behind it.

        Raises:
            VideoWriteError: if the disk does not take it; the state before is still there.
        """
        folder, index = self.held.folder, self._count
        with told(self.held.path):
            tensors = _tensors(folder, index)
            write_tensors(tensors, memory.tensors)
            sync_file(tensors)
            if index == 0:
                self._begin()
            said = {
                "segment": segment.as_json(),
                "memory": memory.tree,
                "frames_out": frames_out,
                "seconds": seconds,
            }
            _write_note(_note(folder, index), said)
            if index == 0:
                self.held.keep()
            else:
                _tensors(folder, index - 1).unlink(missing_ok=True)
        self._count, self.frames_kept = index + 1, frames_out

    def _begin(self) -> None:
        said = {"format": FORMAT, "fingerprint": self.fingerprint.facts}
        _write_note(self.held.folder / NOTE, said)

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
        last = len(before.segments) - 1
        wanted = {held.folder / NOTE, _tensors(held.folder, last)}
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
