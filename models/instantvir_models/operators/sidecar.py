"""The note that travels with a measurement: which operator made it.

`clip.mkv` has its note in `clip.mkv.operator.json`; a mask lies beside it. The note says which file it
is of by its sha256, so that it is never believed of another one that took the name.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from instantvir_models.errors import UsageError
from instantvir_models.operators.base import Operator
from instantvir_models.operators.mask import Mask
from instantvir_models.operators.measurement import Degradation
from instantvir_models.operators.spec import Part, Specification, encoded_mask, parse_degradation
from instantvir_models.outputs.claim import write_whole
from instantvir_models.outputs.names import IMAGE_NUMBER, pictures_of

FORMAT = "instantvir-operator-1"
LARGEST_NOTE_BYTES = 2**16

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class NotedFile:
    """Which measurement a note is of."""

    sha256: str
    """Of its file, or of all its pictures in their order."""
    frames: int

    @classmethod
    def of(cls, files: Iterable[Path], frames: int) -> "NotedFile":
        """The one that lies in these files."""
        return cls(_digest(tuple((file, *_state(file)) for file in files)), frames)


def sidecar_path(video: Path) -> Path:
    """Where the note of `video` lies."""
    return video.with_name(video.name + ".operator.json")


def sidecar_files(
    video: Path, degradation: Degradation, *, seed: int, noted: NotedFile | None = None
) -> dict[str, bytes]:
    """Content by name of what is to lie beside `video`: masks, if there are any, and the note, last."""
    said = Specification.read(degradation.spec)
    masks: dict[str, bytes] = {}
    parts = []
    for index, (words, part) in enumerate(zip(said.parts, degradation.operator.parts, strict=True)):
        if isinstance(part, Mask):
            suffix, masks_data = encoded_mask(part.mask)
            name = _mask_name(video, index) + suffix
            masks[name] = masks_data
            parts.append(replace(words, values={"path": name}))
        else:
            parts.append(_noted(words, part, video))
    note: dict[str, object] = {
        "format": FORMAT,
        "operator": replace(said, parts=tuple(parts)).spec,
        "made_with": degradation.spec,
        "seed": seed,
    }
    if noted is not None:
        note |= {"sha256": noted.sha256, "frames": noted.frames}
    return masks | {sidecar_path(video).name: (json.dumps(note, indent=2) + "\n").encode()}


def names_beside(video: Path, number_of_parts: int) -> list[Path]:
    """Every file that a note of `video` could bring along."""
    masks = [
        video.with_name(_mask_name(video, index) + suffix)
        for index in range(number_of_parts)
        for suffix in (".png", ".npz")
    ]
    return [*masks, sidecar_path(video)]


def write_sidecar(
    video: Path, degradation: Degradation, *, seed: int, noted: NotedFile | None = None
) -> Path:
    """The path of the note, written beside `video` with the masks, if there are any.

    Raises:
        VideoWriteError: if one of them cannot be written.
    """
    for name, data in sidecar_files(video, degradation, seed=seed, noted=noted).items():
        write_whole(video.with_name(name), data, may_replace=True)
    return sidecar_path(video)


def _mask_name(video: Path, index: int) -> str:
    """Numbered from the second part of an operator on."""
    return f"{video.name}.mask{index + 1 if index else ''}"


def _noted(words: Part, part: Operator, video: Path) -> Part:
    """What the note says of one part: files stand as they are found from the folder of `video`."""
    if "path" in words.values:
        found = os.path.relpath(words.values["path"], video.parent)
        return replace(words, values={**words.values, "path": found})
    return words


def forget_sidecar(video: Path) -> None:
    """Take the note of a video away that another one has now replaced; only one of ours."""
    path = sidecar_path(video)
    try:
        is_ours = json.loads(path.read_text())["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return
    if is_ours:
        path.unlink(missing_ok=True)


def read_sidecar(video: Path, *, follow_references: bool = False) -> Degradation | None:
    """The degradation noted beside `video`, or None without a note.

    Args:
        follow_references: whether it may name files outside the folder of the video.

    Raises:
        UsageError: if the note is not one of ours, is of another file, reaches further, or its mask is
            missing.
    """
    note = _read(video)
    if note is None:
        return None
    if not follow_references:
        _refuse_to_reach(str(note["operator"]), sidecar_path(video))
    _refuse_note_of_another(video, note)
    return parse_degradation(str(note["operator"]), base=video.parent)


def noted_frames(video: Path) -> int | None:
    """How many frames `video` has according to its note; None where that does not say."""
    frames = (_read(video) or {}).get("frames")
    return frames if isinstance(frames, int) else None


def _read(video: Path) -> dict[str, object] | None:
    path = sidecar_path(video)
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > LARGEST_NOTE_BYTES:
            raise ValueError(f"it is larger than {LARGEST_NOTE_BYTES} bytes")
        note = json.loads(path.read_text())
        if note["format"] != FORMAT:
            raise ValueError(f"format is {note['format']!r}, expected {FORMAT!r}")
        note["operator"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"`{path}` is not an operator note of ours ({error})",
            hint="remove it, or say `--operator` yourself",
        ) from error
    return dict(note)


def _refuse_note_of_another(video: Path, note: dict[str, object]) -> None:
    """Notes of before 0.4 do not say which file they are of, and are believed."""
    files = pictures_of(video) if IMAGE_NUMBER.search(video.name) else [video]
    if "sha256" not in note or not all(file.is_file() for file in files):
        return
    if _digest(tuple((file, *_state(file)) for file in files)) != note["sha256"]:
        raise UsageError(
            f"`{sidecar_path(video)}` is the note of another file: `{video}` has changed since it "
            "was measured, or is damaged",
            hint="measure it again, remove the note, or say `--operator` yourself",
        )


def _state(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=4)
def _digest(files: tuple[tuple[Path, int, int], ...]) -> str:
    """The sha256 of files with these sizes and times, one after the other."""
    digest = hashlib.sha256()
    for path, _, _ in files:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def _refuse_to_reach(spec: str, note: Path) -> None:
    """UsageError if a note, which comes with a video of others, names what lies elsewhere."""
    folder = note.parent.resolve()
    for part in Specification.read(spec).parts:
        named = part.values.get("path")
        if named is not None and not _lies_in(folder, named):
            raise UsageError(
                f"the note `{note}` names `{named}`, which is not in the folder of the video",
                hint="put it there, say `--operator` yourself, or give `--follow-references` if you "
                "trust the note",
            )


def _lies_in(folder: Path, named: str) -> bool:
    try:
        (folder / named).exists()  # raises where no file can be called so
        return (folder / named).resolve().is_relative_to(folder)
    except (OSError, ValueError, RuntimeError):  # a null byte, a circle of links
        return False
