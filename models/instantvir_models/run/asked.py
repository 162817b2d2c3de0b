"""What a person asked for when an output was made, noted on the file itself: so a batch that skips it can
say that it was made otherwise.

The note is an extended attribute, where the system and its file system have them; it goes where the file
is moved to, and is no part of what the file holds. Elsewhere nobody knows.
"""

import hashlib
import json
import os
import re
import sys
from contextlib import suppress
from pathlib import Path

from instantvir_models.checkpoints.prompt import cleaned, is_file_of_rows
from instantvir_models.media.fields import FieldChoice
from instantvir_models.operators.measurement import Degradation
from instantvir_models.run.journal import Fingerprint
from instantvir_models.run.plan import RestorePlan

ATTRIBUTE = "user.instantvir.asked"

FOLDERS = re.compile(r"path=\"?[^,+\"]*/")
"""Of files that a specification names; their own names stay."""


def asked_for(plan: RestorePlan, model: str, *, prompt: str | None = None) -> Fingerprint:
    """What was said of how outputs are to be made, by what people call it; of what was left to the program,
    nothing, of files their names alone, and of the words of a prompt a digest, for the note may travel.

    Args:
        model: the name of the model or the solver.
        prompt: words, or a file of rows.
    """
    wanted, encoder, operator = plan.wanted, plan.encoder, plan.wanted.operator
    spec = operator.spec if isinstance(operator, Degradation) else operator
    said = {
        "the task": " and ".join(map(str, wanted.tasks)) or None,
        "the operator": spec and FOLDERS.sub("path=", spec),
        "the blur": wanted.blur_sigma,
        "the noise": wanted.noise_levels,
        "the scale": wanted.scale,
        "the mask": wanted.mask and wanted.mask.name,
        "dust": "to be found" if wanted.dust else None,
        "the detail that is kept": wanted.keep_detail,
        "the sharpness": wanted.sharpness or None,
        "the model": Path(model).name if Path(model).exists() else model,
        "the prompt": None if prompt is None else _told_apart(prompt),
        "the start": plan.start_seconds,
        "the duration": plan.duration_seconds,
        "the fields": None if plan.fields == FieldChoice() else plan.fields,
        "the tiles": plan.limits.tile_pixels,
        "the block": plan.limits.frames_per_block,
        "the memory of the card": plan.limits.gigabytes,
        "the codec": encoder.codec,
        "the crf": encoder.crf,
        "the preset": encoder.preset,
        "the pixel format": encoder.pix_fmt,
        "the container": plan.output_format,
    }
    return Fingerprint({name: str(value) for name, value in said.items() if value is not None})


def _told_apart(prompt: str) -> str:
    """A prompt, told from others without its words."""
    if is_file_of_rows(prompt):
        return Path(prompt).name
    digest = hashlib.sha256(cleaned(prompt).encode()).hexdigest()
    return f"words of digest {digest[:12]}"


def note_on(path: Path, asked: Fingerprint) -> None:
    """Leave a note on a file that was just made, where there is a place for it."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setxattr(path, ATTRIBUTE, json.dumps(asked.facts).encode())


def made_otherwise(path: Path, asked: Fingerprint) -> list[str] | None:
    """What was asked for otherwise when the file was made, in words; None where nobody knows."""
    before = _noted(path)
    return None if before is None else asked.differences(before)


def _noted(path: Path) -> dict[str, str] | None:
    if sys.platform != "linux":
        return None
    try:
        said = json.loads(os.getxattr(path, ATTRIBUTE))  # at most 64 KiB, says Linux
    except (OSError, ValueError, RecursionError):
        return None
    is_ours = isinstance(said, dict) and all(isinstance(value, str) for value in said.values())
    return said if is_ours else None
