"""Many inputs of `instantvir restore`: a row for each, written when it is known, and one status."""

import json
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
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
from instantvir_models.run.asked import asked_for
from instantvir_models.run.batch import BatchRow, Outcome, attempted
from instantvir_models.run.jobs import Job
from instantvir_models.run.opening import OpenedSolver
from instantvir_models.run.plan import RestorePlan
from instantvir_models.run.restore_report import OnProgress, RestoreReport

FROM_BEST_TO_WORST = (
    ExitStatus.SUCCESS,
    ExitStatus.PARTIAL,
    ExitStatus.BAD_INPUT,
    ExitStatus.USAGE,
    ExitStatus.NO_CHECKPOINT,
    ExitStatus.BAD_OUTPUT,
    ExitStatus.FAILURE,
)

MOST_UNWRITTEN = 5
"""Outputs in a row that may fail to be written; then it is the disk, and a night of computing is not
thrown away after it."""

MOST_NAMED = 20
"""Inputs that failed, in the last line; `--json` has all."""


def restore_batch(jobs: Sequence[Job], plan: RestorePlan, request: RestoreRequest) -> None:
    """Restore each input, whatever becomes of the others; the exit status is the worst of all."""
    if request.is_dry_run and (request.jobs > 1 or request.farm.cluster is not None):
        raise UsageError("`--dry-run` takes no `--jobs` and no `--cluster`")
    tally = Tally()
    with (
        shown_progress(len(jobs)) as shown,
        _table(request.as_json) as table,
        closing(_rows(jobs, plan, request, shown)) as rows,
    ):
        for row in rows:
            _say(row)
            table.add(row)
            tally.add(row)
            shown.file_done()
            if tally.nothing_can_be_written:
                break
    console.say(tally.summary)
    if tally.failed:
        console.say(f"failed: {_listed(tally.failed)}")
    left = len(jobs) - tally.outcomes.total()
    if tally.nothing_can_be_written and left:
        console.fail(
            f"{MOST_UNWRITTEN} outputs in a row could not be written: {_inputs(left)} not tried",
            "when that is mended, the same command goes on",
        )
    if tally.worst is not ExitStatus.SUCCESS:
        raise typer.Exit(tally.worst)


@dataclass
class Tally:
    """What came of the inputs so far."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    worst: ExitStatus = ExitStatus.SUCCESS
    failed: list[str] = field(default_factory=list)
    """The inputs that did, in the order in which that was known."""
    stale: int = 0
    """Of the outputs that were there, those of other inputs or settings."""
    _unwritten: int = 0

    def add(self, row: BatchRow) -> None:
        """Count a row."""
        status = status_of(row)
        self.outcomes[row.outcome] += 1
        self.stale += row.is_stale
        self.worst = max(self.worst, status, key=FROM_BEST_TO_WORST.index)
        if row.outcome is Outcome.FAILED:
            self.failed.append(row.input)
        if row.outcome is Outcome.RESTORED:
            self._unwritten = 0
        elif status is ExitStatus.BAD_OUTPUT:
            self._unwritten += 1

    @property
    def nothing_can_be_written(self) -> bool:
        """Whether so many outputs in a row failed that it is the disk, or the options."""
        return self._unwritten >= MOST_UNWRITTEN

    @property
    def summary(self) -> str:
        """How many inputs came to what, in words."""
        stale = f" ({self.stale} of other inputs or settings)" if self.stale else ""
        words = {
            Outcome.RESTORED: "restored",
            Outcome.SKIPPED: f"skipped, there already{stale}",
            Outcome.FAILED: "failed",
        }
        counts = [f"{self.outcomes[each]} {words[each]}" for each in words if self.outcomes[each]]
        return f"{_inputs(self.outcomes.total())}: {', '.join(counts)}"


def _inputs(count: int) -> str:
    return "1 input" if count == 1 else f"{count} inputs"


def _listed(names: Sequence[str]) -> str:
    named = ", ".join(f"`{name}`" for name in names[:MOST_NAMED])
    return named if len(names) <= MOST_NAMED else f"{named} and {len(names) - MOST_NAMED} more"


def status_of(row: BatchRow) -> ExitStatus:
    """What the exit status would be, were it the only input."""
    if row.outcome is Outcome.FAILED:
        return ExitStatus.FAILURE if row.error is None else STATUS_OF.get(
            type(row.error), ExitStatus.FAILURE
        )  # fmt: skip
    return ExitStatus.PARTIAL if row.is_partial else ExitStatus.SUCCESS


def _rows(
    jobs: Sequence[Job], plan: RestorePlan, request: RestoreRequest, shown: Shown
) -> Generator[BatchRow, None, None]:
    if request.farm.cluster is not None:
        from instantvir_cli.farm import rows_of_cluster

        return rows_of_cluster(jobs, plan, request, shown)
    if request.jobs > 1:
        from instantvir_cli.workers import rows_side_by_side

        return rows_side_by_side(jobs, request, shown)
    return _rows_in_turn(jobs, plan, request, shown)


def _rows_in_turn(
    jobs: Sequence[Job], plan: RestorePlan, request: RestoreRequest, shown: Shown
) -> Generator[BatchRow, None, None]:
    use_threads(request.model.threads)
    solver = request.model.open()
    console.tell(solver.notices)
    for job in jobs:
        with shown.file(job.source) as on_progress:
            yield attempt(job, plan, solver, request, on_progress)


def attempt(
    job: Job,
    plan: RestorePlan,
    solver: OpenedSolver,
    request: RestoreRequest,
    on_progress: OnProgress,
) -> BatchRow:
    """What came of one input."""

    def restore(job: Job) -> RestoreReport:
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
        asked=asked_for(plan, solver.name, prompt=solver.prompt),
    )


def _say(row: BatchRow) -> None:
    if row.outcome is Outcome.FAILED:
        sentence = row.sentence or "it failed"
        named = sentence if f"`{row.input}`" in sentence else f"`{row.input}`: {sentence}"
        console.fail(named, row.error.hint if row.error else None)
    elif row.sentence is not None:
        (console.warn if row.is_stale else console.say)(row.sentence)


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
