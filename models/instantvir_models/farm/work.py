"""Jobs given to workers that may die: who works on what is decided here, without knowing what a worker is."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from instantvir_models.errors import InstantVIRError
from instantvir_models.run.batch import BatchRow, Outcome
from instantvir_models.run.jobs import Job

MOST_DEATHS = 2
"""Workers that a job may cost; then it is set aside."""


class SetAsideError(InstantVIRError):
    """A video that killed its worker `MOST_DEATHS` times."""


@dataclass(frozen=True)
class Ended:
    """What came of a job, and on whom."""

    row: BatchRow
    worker: str
    seconds: float = 0.0


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

    def wait(self) -> list[Ended | Death]:
        """What has happened, once something has; empty if only a worker became free."""


def worked_off(jobs: Iterable[Job], pool: Pool) -> Iterator[Ended]:
    """One ending for each job, in the order in which they end.

    A job whose worker died is given to another, after all others; one that has cost `MOST_DEATHS` workers
    is set aside.
    """
    waiting, deaths = deque(jobs), Counter[Job]()
    num_open = len(waiting)
    while num_open:
        while waiting and pool.free():
            pool.start(waiting.popleft())
        for event in pool.wait():
            if isinstance(event, Ended):
                num_open -= 1
                yield event
                continue
            deaths[event.job] += 1
            if deaths[event.job] < MOST_DEATHS:
                waiting.append(event.job)
            else:
                num_open -= 1
                yield _set_aside(event)


def _set_aside(death: Death) -> Ended:
    error = SetAsideError(
        f"set aside: it killed its worker {MOST_DEATHS} times, last: {death.reason}",
        hint="restore it alone, on one machine, to see why",
    )
    row = BatchRow(
        input=death.job.source, output=death.job.destination, outcome=Outcome.FAILED,
        error=error, sentence=str(error),
    )  # fmt: skip
    return Ended(row, death.worker)
