"""The jobs of a batch on a cluster, from their names to their rows."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from instantvir_models.farm.cluster import RayPool, connected, workers_of
from instantvir_models.farm.manifest import Manifest
from instantvir_models.farm.work import Death, Ended, worked_off
from instantvir_models.farm.worker import Identity, RestoreOne, Setting, restore_one
from instantvir_models.run.asked import asked_for
from instantvir_models.run.batch import BatchRow, attempted
from instantvir_models.run.jobs import Job
from instantvir_models.run.plan import RestorePlan
from instantvir_models.run.restore_report import Progress

OnLook = Callable[[dict[str, tuple[str, Progress | None]]], None]
"""Told from time to time what each worker is at, and how far."""


def rows_on_cluster(
    jobs: Sequence[Job],
    folder: Path,
    setting: Setting,
    address: str,
    *,
    restore: RestoreOne = restore_one,
    on_look: OnLook = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> Generator[BatchRow, None, None]:
    """The rows of all jobs as they come, those first whose results are there.

    Args:
        folder: of the results, which every machine must see.
        address: of a Ray cluster, see `connected`.
        restore: what is done with each job.
        on_look: told what workers are at.
        say: told in a sentence what a person should know.

    Raises:
        ClusterError: if the cluster does not answer, or its machines are not alike.
        UsageError: without Ray.
    """
    jobs = [_absolute(job) for job in jobs]
    done = [job for job in jobs if job.is_done and not job.may_replace]
    left = [job for job in jobs if job not in done]
    asked = asked_for(setting.plan, setting.solver or setting.model, prompt=setting.prompt)
    yield from (attempted(job, _never, asked=asked) for job in done)
    if not left:
        return
    setting = replace(setting, plan=_anywhere(setting.plan), model=_model_anywhere(setting.model))
    folder = folder.absolute()
    with connected(address) as ray:
        head = Identity.of(setting.open())
        size, resources = workers_of(ray.nodes(), setting.threads)
        setting = replace(setting, threads=setting.threads or int(resources["num_cpus"]))
        pool = RayPool(
            ray, setting, size=min(size, len(left)), resources=resources, head=head, folder=folder,
            restore=restore, say=say,
        )  # fmt: skip
        manifest = Manifest(folder)
        try:
            for ended in worked_off(left, _Watched(pool, on_look)):
                manifest.keep(ended)
                yield ended.row
        finally:
            pool.close()


@dataclass(frozen=True)
class _Watched:
    """A pool that tells what its workers are at, whenever it has waited."""

    pool: RayPool
    on_look: OnLook

    def free(self) -> int:
        return self.pool.free()

    def start(self, job: Job) -> None:
        self.pool.start(job)

    def wait(self) -> list[Ended | Death]:
        events = self.pool.wait()
        self.on_look(self.pool.progress())
        return events


def _never(job: Job) -> NoReturn:
    raise AssertionError(f"{job} is done")


def _absolute(job: Job) -> Job:
    """The job as any machine can read it that sees the same folders."""
    return replace(
        job,
        source=str(Path(job.source).absolute()),
        destination=str(Path(job.destination).absolute()),
        folder=job.folder and job.folder.absolute(),
    )


def _anywhere(plan: RestorePlan) -> RestorePlan:
    """Likewise the plan."""
    mask, reference, page = plan.wanted.mask, plan.reference, plan.page
    return replace(
        plan,
        wanted=replace(plan.wanted, mask=mask and mask.absolute()),
        reference=reference and reference.absolute(),
        page=page and page.absolute(),
    )


def _model_anywhere(model: str) -> str:
    """Likewise a model that is a folder or a file."""
    return str(Path(model).absolute()) if Path(model).exists() else model
