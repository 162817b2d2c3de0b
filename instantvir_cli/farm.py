"""`instantvir restore --shard` and `--cluster`: a batch that goes on past a bad video, and after a stop."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from instantvir_cli import console
from instantvir_cli.exit_status import ExitStatus
from instantvir_cli.options import FarmOptions, ModelOptions
from instantvir_models.errors import UsageError
from instantvir_models.farm.batch import Batch, anywhere, outcomes
from instantvir_models.farm.shards import WHOLE, parse_shard
from instantvir_models.farm.work import Outcome, Status
from instantvir_models.farm.worker import Setting
from instantvir_models.run import restoration as library
from instantvir_models.run.jobs import Job


def restore_batch(
    jobs: list[Job],
    plan: library.RestorePlan,
    model: ModelOptions,
    farm: FarmOptions,
    *,
    may_overwrite: bool,
    as_json: bool,
) -> None:
    """Restore this share of the jobs; the exit status says whether all went well.

    Raises:
        UsageError: if results do not go into a folder.
    """
    folder = jobs[0].folder
    if folder is None:
        raise UsageError(
            "`--shard` and `--cluster` keep what is done in the folder of the results",
            hint="give `-o FOLDER/`, with the slash",
        )
    batch = Batch(
        jobs=jobs,
        folder=folder,
        setting=Setting(
            plan=anywhere(plan),
            model=_anywhere(model.model),
            solver=model.solver,
            device=model.device,
            prompt=model.prompt,
            threads=model.threads,
        ),
        shard=parse_shard(farm.shard, os.environ) if farm.shard else WHOLE,
        may_overwrite=may_overwrite,
    )
    ended = []
    with (
        _progress() as bars,
        outcomes(batch, cluster=farm.cluster, on_look=bars.show, say=console.warn) as (
            num_left,
            coming,
        ),
    ):
        num_mine = len(batch.shard.of(batch.jobs))
        console.say(f"{num_left} of {num_mine} videos to restore, {num_mine - num_left} are done")
        bars.begin(num_left)
        for outcome in coming:
            bars.advance()
            _say(outcome)
            ended.append(outcome)
    if as_json:
        typer.echo(json.dumps([_row(outcome) for outcome in ended], indent=2))
    _say_all(ended)


def _anywhere(model: str) -> str:
    """The name of a model as any machine can read it."""
    return str(Path(model).absolute()) if Path(model).exists() else model


def _say(outcome: Outcome) -> None:
    if outcome.status is Status.DONE:
        console.say(
            f"{outcome.job.source} -> {outcome.job.destination}, {outcome.seconds:.1f} s "
            f"on {outcome.worker}"
        )
        return
    console.warn(f"{outcome.job.source}: {outcome.problem}")


def _say_all(ended: list[Outcome]) -> None:
    """A line for each video that has no result, and the exit status."""
    lost = [outcome for outcome in ended if outcome.status is not Status.DONE]
    console.say(f"{len(ended) - len(lost)} videos restored, {len(lost)} not")
    for outcome in lost:
        hint = f" ({outcome.hint})" if outcome.hint else ""
        console.warn(f"{outcome.status}: {outcome.problem}{hint}")
    if lost:
        raise typer.Exit(ExitStatus.PARTIAL)


def _row(outcome: Outcome) -> dict[str, object]:
    return {
        "input": outcome.job.source,
        "output": outcome.job.destination if outcome.status is Status.DONE else None,
        "status": outcome.status.value,
        "problem": outcome.problem,
        "worker": outcome.worker,
        "seconds": outcome.seconds,
        "report": outcome.report,
    }


class _Bars:
    """One line for all videos, and one for what each worker is at."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._all = bars.add_task("all videos", total=None)
        self._by_worker: dict[str, int] = {}

    def begin(self, num_jobs: int) -> None:
        """Say how many there are."""
        self._bars.update(self._all, total=num_jobs)

    def advance(self) -> None:
        """One has ended."""
        self._bars.advance(self._all)

    def show(self, at_work: dict[str, tuple[str, library.Progress | None]]) -> None:
        """What each worker is at."""
        for gone in self._by_worker.keys() - at_work.keys():
            self._bars.remove_task(self._by_worker.pop(gone))  # type: ignore[arg-type]
        for worker, (source, progress) in at_work.items():
            if worker not in self._by_worker:
                self._by_worker[worker] = self._bars.add_task(worker, total=None)
            self._bars.update(
                self._by_worker[worker],  # type: ignore[arg-type]
                description=console.printable(f"{worker}  {Path(source).name}"),
                completed=progress.frames if progress else 0,
                total=progress.total_frames if progress else None,
            )


@contextmanager
def _progress() -> Iterator[_Bars]:
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console.console,
        disable=console.console.quiet or not sys.stderr.isatty(),
        transient=True,
    )
    with bars:
        yield _Bars(bars)
