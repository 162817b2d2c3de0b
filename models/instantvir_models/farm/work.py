"""Jobs given to workers that may die: who works on what is decided here, without knowing what a worker is."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from instantvir_models.run.jobs import Job

MOST_DEATHS = 2
"""Workers that a job may cost; then it is set aside."""


class Status(StrEnum):
    """What became of a job."""

    DONE = "done"
    FAILED = "failed"
    """A sentence says why; trying again would not help."""
    SET_ASIDE = "set aside"
    """It killed its worker `MOST_DEATHS` times."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one job."""

    job: Job
    status: Status
    worker: str
    """Who had it last."""
    seconds: float = 0.0
    report: dict[str, Any] | None = None
    """As `--json` prints it; None if there is none."""
    problem: str | None = None
    """One sentence, where it is not done."""
    hint: str | None = None


@dataclass(frozen=True)
class Death:
    """A worker died while it had a job."""

    job: Job
    worker: str
    reason: str


class Pool(Protocol):
    """Workers, each with at most one job at a time; one that dies is replaced."""

    def free(self) -> int:
        """How many workers wait for a job."""

    def start(self, job: Job) -> None:
        """Give a job to one of these."""

    def wait(self) -> list[Outcome | Death]:
        """What has happened, once something has; empty if only a worker became free."""


def worked_off(jobs: Iterable[Job], pool: Pool) -> Iterator[Outcome]:
    """One outcome for each job, in the order in which they end.

    A job whose worker died is given to another, after all others; one that has cost `MOST_DEATHS` workers
    is set aside.
    """
    waiting, deaths = deque(jobs), Counter[Job]()
    num_open = len(waiting)
    while num_open:
        while waiting and pool.free():
            pool.start(waiting.popleft())
        for event in pool.wait():
            if isinstance(event, Outcome):
                num_open -= 1
                yield event
                continue
            deaths[event.job] += 1
            if deaths[event.job] < MOST_DEATHS:
                waiting.append(event.job)
            else:
                num_open -= 1
                yield _set_aside(event)


def _set_aside(death: Death) -> Outcome:
    return Outcome(
        job=death.job,
        status=Status.SET_ASIDE,
        worker=death.worker,
        problem=f"`{death.job.source}` killed its worker {MOST_DEATHS} times, last: {death.reason}",
        hint="restore it alone, on one machine, to see why",
    )
