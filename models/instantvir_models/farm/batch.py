"""A batch on one worker or on a cluster, from jobs to outcomes, going on where a run before it stopped."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from instantvir_models.farm.cluster import RayPool, connected, workers_of
from instantvir_models.farm.manifest import Manifest
from instantvir_models.farm.shards import WHOLE, Shard
from instantvir_models.farm.work import Death, Outcome, Pool, worked_off
from instantvir_models.farm.worker import (
    Identity,
    OwnPool,
    RestoreOne,
    Setting,
    Worker,
    restore_one,
)
from instantvir_models.run.jobs import Job, refuse_to_overwrite
from instantvir_models.run.restoration import Progress, RestorePlan

OnLook = Callable[[dict[str, tuple[str, Progress | None]]], None]
"""Told from time to time what each worker is at, and how far."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Jobs of one folder of results.

    Args:
        jobs: of all shares.
        folder: of the results.
    """

    jobs: Sequence[Job]
    folder: Path
    setting: Setting
    shard: Shard = WHOLE
    may_overwrite: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "jobs", [_absolute(job) for job in self.jobs])

    def manifest(self, head: Identity) -> Manifest:
        """What is done in the folder, under this version, weights and wishes."""
        words = repr((head, self.setting.plan, self.setting.model, self.setting.solver))
        return Manifest(self.folder, hashlib.sha256(words.encode()).hexdigest()[:16], self.shard)

    def left(self, manifest: Manifest) -> list[Job]:
        """The jobs of this share that are not done.

        Raises:
            UsageError: if a result exists that no run of this folder has made.
        """
        jobs = manifest.left_of(self.shard.of(self.jobs))
        for job in jobs:
            refuse_to_overwrite(
                job,
                with_comparison=self.setting.plan.comparison_style is not None,
                may_overwrite=self.may_overwrite or manifest.has_begun(job),
            )
        return jobs


@contextmanager
def outcomes(
    batch: Batch,
    *,
    cluster: str | None = None,
    restore: RestoreOne = restore_one,
    on_look: OnLook = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[tuple[int, Iterator[Outcome]]]:
    """(how many jobs are left, their outcomes as they come); each is in the manifest when it comes.

    Args:
        cluster: address of a Ray cluster; None works in this process.
        restore: what is done with each job.
        on_look: told what workers are at.
        say: told in a sentence what a person should know.

    Raises:
        ClusterError: if the cluster does not answer, or its machines are not alike.
        UsageError: without Ray, or if a result exists already.
    """
    setting = batch.setting
    if cluster is None:
        worker = Worker(setting, restore)
        manifest = batch.manifest(worker.identity)
        left = batch.left(manifest)
        yield len(left), _kept(left, Watched(OwnPool(worker), on_look), manifest)
        return
    head = Identity.of(setting.open())
    manifest = batch.manifest(head)
    left = batch.left(manifest)
    if not left:
        yield 0, iter(())
        return
    with connected(cluster) as ray:
        size, resources = workers_of(ray.nodes(), setting.threads)
        setting = replace(setting, threads=setting.threads or int(resources["num_cpus"]))
        pool = RayPool(
            ray, setting, size=min(size, len(left)), resources=resources, head=head,
            folder=batch.folder.absolute(), restore=restore, say=say,
        )  # fmt: skip
        try:
            yield len(left), _kept(left, Watched(pool, on_look), manifest)
        finally:
            pool.close()


class Watched:
    """A pool that tells what its workers are at, whenever it has waited."""

    def __init__(self, pool: OwnPool | RayPool, on_look: OnLook) -> None:
        self._pool, self._on_look = pool, on_look
        self.free, self.start = pool.free, pool.start

    def wait(self) -> list[Outcome | Death]:
        """As that of the pool."""
        events: list[Outcome | Death] = list(self._pool.wait())
        self._on_look(self._pool.progress())
        return events


def _kept(left: Sequence[Job], pool: Pool, manifest: Manifest) -> Iterator[Outcome]:
    if left:
        manifest.begin(left)
    for outcome in worked_off(left, pool):
        manifest.keep(outcome)
        yield outcome


def _absolute(job: Job) -> Job:
    """The job as any machine can read it that sees the same folders."""
    return replace(
        job,
        source=str(Path(job.source).absolute()),
        destination=str(Path(job.destination).absolute()),
        folder=job.folder and job.folder.absolute(),
    )


def anywhere(plan: RestorePlan) -> RestorePlan:
    """The plan with absolute paths, as any machine can read it that sees the same folders."""
    mask, reference = plan.wanted.mask, plan.reference
    return replace(
        plan,
        wanted=replace(plan.wanted, mask=mask and mask.absolute()),
        reference=reference and reference.absolute(),
    )
