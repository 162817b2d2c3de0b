"""The suite of real files: solvers are told what `restore` finds where nobody tells it anything."""

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from instantvir_models.media import Frame, to_unit
from instantvir_models.operators.measurement import Measurement
from instantvir_models.run.jobs import Job
from instantvir_models.run.opening import open_solver
from instantvir_models.run.plan import RestorePlan
from instantvir_models.run.restoration import prepared
from instantvir_models.suite.clips import CleanClip
from instantvir_models.suite.kinds import KINDS, Kind
from instantvir_models.suite.results import SuiteTask
from instantvir_models.suite.runner import Case
from instantvir_models.tasks import TaskOptions, parse_tasks

UNCHANGED = "nothing"
"""What is said of a file that is better left as it is."""


def shows_the_clip(kind: Kind) -> bool:
    """Whether the clean video of a kind is the clip itself, a frame for each picture."""
    return kind.made is None and kind.frames_per_picture == 1


REAL_KINDS = {kind.name: kind for kind in KINDS if shows_the_clip(kind)}

REAL_TASKS = tuple(
    SuiteTask(
        name=kind.name,
        about="nothing is told of it" if kind.scale == 1 else "nothing is told but the factor",
        spec=kind.encoder.name,
    )
    for kind in REAL_KINDS.values()
)


@lru_cache(maxsize=len(REAL_KINDS))
def real_case_of(task: SuiteTask, clip: CleanClip, seed: int) -> Case:
    """A clip as a kind of damage makes a file of it, and what is found in that file."""
    kind = REAL_KINDS[task.name]
    file = kind.file(clip.frames, seed)
    with TemporaryDirectory(prefix="instantvir-") as folder:
        path = Path(folder) / "old.mkv"
        path.write_bytes(file)
        job = Job(str(path), str(path.with_name("new.mkv")))
        with prepared(job, RestorePlan(wanted=_wanted(kind)), open_solver("map")) as found:
            frames, resolved = list(found.frames), found.resolved
    y = np.stack([frame.pixels for frame in frames]).astype(np.uint8, copy=False)
    degradation = resolved.degradation
    return Case(
        task, clip, y, Measurement(to_unit(y), degradation),
        known=_known(frames), keep_detail=resolved.keep_detail, follow=resolved.follow,
        is_unchanged=resolved.is_nothing_to_do, file=file,
        told=UNCHANGED if resolved.is_nothing_to_do else degradation.spec,
    )  # fmt: skip


def _wanted(kind: Kind) -> TaskOptions:
    """Nothing, but that it is to be enlarged."""
    return (
        TaskOptions()
        if kind.scale == 1
        else TaskOptions(tasks=parse_tasks(("sr",)), scale=kind.scale)
    )


def _known(frames: list[Frame]) -> NDArray[np.bool_] | None:
    masks = [frame.known for frame in frames if frame.known is not None]
    return np.stack(masks) if masks and len(masks) == len(frames) else None
