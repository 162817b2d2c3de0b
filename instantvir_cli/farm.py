"""`instantvir restore --cluster`: rows of videos that are restored on many machines."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing

from instantvir_cli import console
from instantvir_cli.progress import Shown
from instantvir_cli.restore import RestoreRequest
from instantvir_models.errors import UsageError
from instantvir_models.farm.batch import rows_on_cluster
from instantvir_models.farm.worker import Setting
from instantvir_models.run import restoration as library
from instantvir_models.run.batch import BatchRow
from instantvir_models.run.jobs import Job


def rows_of_cluster(
    jobs: Sequence[Job], plan: library.RestorePlan, request: RestoreRequest, shown: Shown
) -> Iterator[BatchRow]:
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
        jobs, folder, setting_of(plan, request), request.farm.cluster, on_look=lines.show,
        say=console.warn,
    )  # fmt: skip
    with closing(lines), closing(rows):  # type: ignore[type-var]
        yield from rows


def setting_of(plan: library.RestorePlan, request: RestoreRequest) -> Setting:
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
        self._open: dict[tuple[str, str], tuple[ExitStack, library.OnProgress]] = {}

    def show(self, at_work: dict[str, tuple[str, library.Progress | None]]) -> None:
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
