"""`instantvir restore --cluster` and `--split`: videos, or pieces of one, restored on many machines."""

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

from instantvir_cli import console
from instantvir_cli.progress import Shown, shown_progress
from instantvir_cli.restore import RestoreRequest
from instantvir_cli.standard_streams import data_of_this_thread_alone, put
from instantvir_cli.threads import use_threads
from instantvir_models.errors import InstantVIRError, UsageError
from instantvir_models.farm.batch import rows_on_cluster
from instantvir_models.farm.split import SplitVideo, join, restore_piece, split
from instantvir_models.farm.worker import RestoreOne, Setting
from instantvir_models.farm.worker import restore_one as restore_on_worker
from instantvir_models.run.batch import BatchRow, Outcome, attempted
from instantvir_models.run.jobs import Job, refuse_to_overwrite
from instantvir_models.run.opening import OpenedSolver
from instantvir_models.run.plan import RestorePlan
from instantvir_models.run.restore_report import OnProgress, Progress


def rows_of_cluster(
    jobs: Sequence[Job],
    plan: RestorePlan,
    request: RestoreRequest,
    shown: Shown,
    *,
    restore: RestoreOne = restore_on_worker,
) -> Generator[BatchRow, None, None]:
    """The rows of all jobs as they come, with a line for what each worker is at.

    Raises:
        UsageError: if results do not go into one folder, or the options do not go together.
    """
    assert request.farm.cluster is not None
    if request.jobs > 1:
        raise UsageError(
            "`--jobs` is for one machine", hint="a cluster says how many workers it has"
        )
    folder = request.folder
    if folder is None:
        raise UsageError(
            "`--cluster` needs a folder for the results, which every machine sees",
            hint="give `-o FOLDER/`, with the slash",
        )
    lines = _Lines(shown)
    rows = rows_on_cluster(
        jobs, folder, setting_of(plan, request), request.farm.cluster, restore=restore,
        on_look=lines.show, say=console.warn,
    )  # fmt: skip
    with data_of_this_thread_alone(), closing(lines), closing(rows):
        yield from rows


def restore_split(
    jobs: Sequence[Job], plan: RestorePlan, request: RestoreRequest, *, minutes: float
) -> None:
    """Restore one long video in pieces, and join them.

    Raises:
        UsageError: for several videos, or one that cannot be split.
        InstantVIRError: that of a piece that could not be restored; the others stay, to go on from.
    """
    if len(jobs) != 1 or request.farm.shard is not None or request.is_dry_run:
        raise UsageError("`--split` is for one long video, all of it", hint="give one input")
    refuse_to_overwrite(jobs[0], with_comparison=False)
    use_threads(request.model.threads)
    solver = request.model.open()
    console.tell(solver.notices)
    video = split(jobs[0], plan, solver, minutes=minutes)
    at_cuts = sum(piece.piece.first in video.cuts for piece in video.pieces)
    console.say(
        f"{len(video.pieces)} pieces, {at_cuts} of them begin with a scene; "
        f"operator {video.degradation.spec}"
    )
    with shown_progress(len(video.pieces)) as shown:
        for row in _rows_of_pieces(video, plan, solver, request, shown):
            if row.outcome is Outcome.FAILED:
                raise row.error or InstantVIRError(f"a piece failed: {row.sentence}")
            shown.file_done()
    frames = join(video)
    console.say(f"{frames} frames joined: {video.job.destination}")
    if request.as_json:
        said = {
            "input": video.job.source, "output": video.job.destination, "frames": frames,
            "pieces": [[piece.piece.first, piece.piece.stop] for piece in video.pieces],
            "cuts": list(video.cuts), "operator": video.degradation.spec,
        }  # fmt: skip
        put(json.dumps(said, indent=2))


def _rows_of_pieces(
    video: SplitVideo,
    plan: RestorePlan,
    solver: OpenedSolver,
    request: RestoreRequest,
    shown: Shown,
) -> Iterator[BatchRow]:
    if request.farm.cluster is not None:
        yield from rows_of_cluster(video.pieces, plan, request, shown, restore=restore_piece)
        return
    for piece in video.pieces:
        with shown.file(piece.piece.name) as on_progress:
            yield attempted(piece, partial(_restore_piece, plan, solver, on_progress))


def _restore_piece(
    plan: RestorePlan, solver: OpenedSolver, on_progress: OnProgress, piece: Job
) -> Any:
    return restore_piece(piece, plan, solver, on_progress)


def setting_of(plan: RestorePlan, request: RestoreRequest) -> Setting:
    """What every worker is told."""
    model = request.model
    return Setting(
        plan=plan, model=model.model, solver=model.solver, device=model.device, prompt=model.prompt,
        threads=model.threads,
    )  # fmt: skip


class _Lines:
    """A line for each video that a worker is at."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._open: dict[tuple[str, str], tuple[ExitStack, OnProgress]] = {}

    def show(self, at_work: dict[str, tuple[str, Progress | None]]) -> None:
        """What each worker is at."""
        now = {(worker, source): progress for worker, (source, progress) in at_work.items()}
        for gone in self._open.keys() - now.keys():
            self._open.pop(gone)[0].close()
        for key, progress in now.items():
            if key not in self._open:
                stack = ExitStack()
                advance = stack.enter_context(self._shown.file(f"{key[0]}  {key[1]}"))
                self._open[key] = stack, advance
            if progress is not None:
                self._open[key][1](progress)

    def close(self) -> None:
        """No worker is at anything."""
        self.show({})
