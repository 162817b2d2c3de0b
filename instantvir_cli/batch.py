"""Many inputs of `instantvir restore`: a row for each, written when it is known, and one status."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer

from instantvir_cli import console
from instantvir_cli.exit_status import STATUS_OF, ExitStatus
from instantvir_cli.progress import Shown, shown_progress
from instantvir_cli.restore import RestoreRequest, restore_one
from instantvir_cli.shortage import shortage_behind
from instantvir_cli.standard_streams import put
from instantvir_cli.threads import use_threads
from instantvir_models.errors import InstantVIRError, UsageError
from instantvir_models.run import restoration as library
from instantvir_models.run.batch import BatchRow, Outcome, attempted
from instantvir_models.run.jobs import Job
from instantvir_models.run.opening import OpenedSolver

FROM_BEST_TO_WORST = (
    ExitStatus.SUCCESS,
    ExitStatus.PARTIAL,
    ExitStatus.BAD_INPUT,
    ExitStatus.USAGE,
    ExitStatus.NO_CHECKPOINT,
    ExitStatus.BAD_OUTPUT,
    ExitStatus.FAILURE,
)


def restore_batch(jobs: Sequence[Job], plan: library.RestorePlan, request: RestoreRequest) -> None:
    """Restore each input, whatever becomes of the others; the exit status is the worst of all."""
    if request.is_dry_run and (request.jobs > 1 or request.farm.cluster is not None):
        raise UsageError("`--dry-run` takes no `--jobs` and no `--cluster`")
    statuses: list[ExitStatus] = []
    outcomes: Counter[Outcome] = Counter()
    with shown_progress(len(jobs)) as shown, _table(request.as_json) as table:
        for row in _rows(jobs, plan, request, shown):
            _say(row)
            table.add(row)
            statuses.append(status_of(row))
            outcomes[row.outcome] += 1
            shown.file_done()
    console.say(summary(outcomes))
    worst = max(statuses, key=FROM_BEST_TO_WORST.index)
    if worst is not ExitStatus.SUCCESS:
        raise typer.Exit(worst)


def status_of(row: BatchRow) -> ExitStatus:
    """What the exit status would be, were it the only input."""
    if row.outcome is Outcome.FAILED:
        return ExitStatus.FAILURE if row.error is None else STATUS_OF.get(
            type(row.error), ExitStatus.FAILURE
        )  # fmt: skip
    return ExitStatus.PARTIAL if row.is_partial else ExitStatus.SUCCESS


def summary(outcomes: Counter[Outcome]) -> str:
    """How many inputs came to what, in words."""
    words = {
        Outcome.RESTORED: "restored",
        Outcome.SKIPPED: "skipped, there already",
        Outcome.FAILED: "failed",
    }
    parts = [f"{outcomes[outcome]} {words[outcome]}" for outcome in words if outcomes[outcome]]
    inputs = "input" if outcomes.total() == 1 else "inputs"
    return f"{outcomes.total()} {inputs}: {', '.join(parts)}"


def _rows(
    jobs: Sequence[Job], plan: library.RestorePlan, request: RestoreRequest, shown: Shown
) -> Iterable[BatchRow]:
    if request.farm.cluster is not None:
        from instantvir_cli.farm import rows_of_cluster

        return rows_of_cluster(jobs, plan, request, shown)
    if request.jobs > 1:
        from instantvir_cli.workers import rows_side_by_side

        return rows_side_by_side(jobs, request, shown)
    return _rows_in_turn(jobs, plan, request, shown)


def _rows_in_turn(
    jobs: Sequence[Job], plan: library.RestorePlan, request: RestoreRequest, shown: Shown
) -> Iterator[BatchRow]:
    use_threads(request.model.threads)
    solver = request.model.open()
    console.tell(solver.notices)
    for job in jobs:
        with shown.file(job.source) as on_progress:
            yield attempt(job, plan, solver, request, on_progress)


def attempt(
    job: Job,
    plan: library.RestorePlan,
    solver: OpenedSolver,
    request: RestoreRequest,
    on_progress: library.OnProgress,
) -> BatchRow:
    """What came of one input."""

    def restore(job: Job) -> library.RestoreReport:
        try:
            return restore_one(job, plan, solver, request, on_progress)
        except (MemoryError, ImportError, OSError, RuntimeError) as error:
            shortage = shortage_behind(error)
            if shortage is None:
                raise
            raise InstantVIRError(shortage[0], hint=shortage[1]) from error

    return attempted(
        job,
        restore,
        with_comparison=plan.comparison_style is not None,
    )


def _say(row: BatchRow) -> None:
    if row.outcome is Outcome.FAILED:
        sentence = row.sentence or "it failed"
        named = sentence if f"`{row.input}`" in sentence else f"`{row.input}`: {sentence}"
        console.fail(named, row.error.hint if row.error else None)
    elif row.sentence is not None:
        console.say(row.sentence)


class _Table:
    """An array of rows on standard output, each on a line of its own and there at once."""

    def __init__(self) -> None:
        self._separator = ""
        put("[")

    def add(self, row: BatchRow) -> None:
        """Write one row."""
        fields: dict[str, Any] = {"status": status_of(row).value, **row.as_json()}
        put(f"{self._separator}{json.dumps(fields)}")
        self._separator = ","

    def end(self) -> None:
        """Nothing follows."""
        put("]")


class _NoTable:
    def add(self, row: BatchRow) -> None:
        """Nobody asked."""


@contextmanager
def _table(is_wanted: bool) -> Iterator[_Table | _NoTable]:
    """Where rows go; the array is whole however this ends, unless the process is killed."""
    if not is_wanted:
        yield _NoTable()
        return
    table = _Table()
    try:
        yield table
    finally:
        table.end()
