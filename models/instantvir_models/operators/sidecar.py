"""The note that travels with a measurement: which operator made it.

`clip.mkv` has its note in `clip.mkv.operator.json`; a mask lies beside it.
"""

import json
import os
from dataclasses import replace
from pathlib import Path

from instantvir_models.errors import UsageError
from instantvir_models.operators.base import Operator
from instantvir_models.operators.mask import Mask
from instantvir_models.operators.measurement import Degradation
from instantvir_models.operators.spec import Part, Specification, parse_degradation, save_mask

FORMAT = "instantvir-operator-1"
LARGEST_NOTE_BYTES = 2**16


def sidecar_path(video: Path) -> Path:
    """Where the note of `video` lies."""
    return video.with_name(video.name + ".operator.json")


def write_sidecar(video: Path, degradation: Degradation, *, seed: int) -> Path:
    """The path of the note, written beside `video` with the masks, if there are any."""
    said = Specification.read(degradation.spec)
    pairs = zip(said.parts, degradation.operator.parts, strict=True)
    parts = [_noted(words, part, video, index) for index, (words, part) in enumerate(pairs)]
    spec = replace(said, parts=tuple(parts)).spec
    path = sidecar_path(video)
    note = {"format": FORMAT, "operator": spec, "made_with": degradation.spec, "seed": seed}
    path.write_text(json.dumps(note, indent=2) + "\n")
    return path


def _noted(words: Part, part: Operator, video: Path, index: int) -> Part:
    """What the note says of one part: files stand as they are found from the folder of `video`."""
    if isinstance(part, Mask):
        return replace(words, values={"path": _saved_mask(part, video, index).name})
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


def _saved_mask(mask: Mask, video: Path, index: int) -> Path:
    """Where the mask went: beside the video, numbered from the second part of an operator on."""
    number = f".mask{index + 1}" if index else ""
    return save_mask(mask.mask, video.with_name(f"{video.name}{number}"))


def read_sidecar(video: Path, *, follow_references: bool = False) -> Degradation | None:
    """The degradation noted beside `video`, or None without a note.

    Args:
        follow_references: whether it may name files outside the folder of the video.

    Raises:
        UsageError: if the note is not one of ours, reaches further, or its mask is missing.
    """
    path = sidecar_path(video)
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > LARGEST_NOTE_BYTES:
            raise ValueError(f"it is larger than {LARGEST_NOTE_BYTES} bytes")
        note = json.loads(path.read_text())
        if note["format"] != FORMAT:
            raise ValueError(f"format is {note['format']!r}, expected {FORMAT!r}")
        spec = str(note["operator"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"`{path}` is not an operator note of ours ({error})",
            hint="remove it, or say `--operator` yourself",
        ) from error
    if not follow_references:
        _refuse_to_reach(spec, path)
    return parse_degradation(spec, base=video.parent)


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
