"""One worker: proves that it is like its head, then restores one video after the other."""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instantvir_models import __version__
from instantvir_models.cpu import use_threads
from instantvir_models.farm.work import Ended
from instantvir_models.run.asked import asked_for
from instantvir_models.run.batch import attempted
from instantvir_models.run.jobs import Job
from instantvir_models.run.opening import OpenedSolver, open_chosen
from instantvir_models.run.plan import RestorePlan
from instantvir_models.run.restoration import prepared
from instantvir_models.run.restore_report import Progress, RestoreReport

OnProgress = Callable[[Progress], None]
RestoreOne = Callable[[Job, RestorePlan, OpenedSolver, OnProgress], Any]
"""Gives what came of a job, a dataclass such as `RestoreReport`."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How every worker of a run restores: the words of a person, which each reads for itself."""

    plan: RestorePlan = field(default_factory=RestorePlan)
    model: str
    solver: str | None = None
    device: str = "auto"
    prompt: str | None = None
    threads: int | None = None

    def open(self) -> OpenedSolver:
        """The solver on this machine."""
        return open_chosen(
            model=self.model, solver=self.solver, device=self.device, prompt=self.prompt
        )


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What must be the same on every machine, or results would differ."""

    version: str
    weights_sha256: str | None
    torch: str

    @classmethod
    def of(cls, solver: OpenedSolver) -> "Identity":
        """This machine's."""
        import torch

        return cls(
            version=__version__,
            weights_sha256=solver.sha256,
            torch=torch.__version__.partition("+")[0],
        )


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a worker says of itself before it gets anything to do."""

    worker: str
    identity: Identity
    token: str | None
    """What it read where the head wrote its token; None if nothing is there."""


def difference(head: Identity, token: str, folder: Path, answer: Answer) -> str | None:
    """A sentence that refuses a worker; None for one that may work."""
    theirs = answer.identity
    if theirs.version != head.version:
        return f"{answer.worker} has instantvir {theirs.version}, the head has {head.version}"
    if theirs.weights_sha256 != head.weights_sha256:
        return (
            f"{answer.worker} has other weights: sha256 {_short(theirs.weights_sha256)}, the head's "
            f"{_short(head.weights_sha256)}"
        )
    if theirs.torch != head.torch:
        return f"{answer.worker} has torch {theirs.torch}, the head has {head.torch}"
    if answer.token != token:
        return f"{answer.worker} does not see the head's `{folder}`: the folder is not shared"
    return None


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:12]


def restore_one(
    job: Job, plan: RestorePlan, solver: OpenedSolver, on_progress: OnProgress
) -> RestoreReport:
    """One video restored into its file."""
    with prepared(job, plan, solver) as restoration:
        return restoration.run(on_progress)


class Worker:
    """Restores; one solver serves all its videos.

    Args:
        setting: of the run.
        restore: what is done with each job; tests bring their own.
    """

    def __init__(self, setting: Setting, restore: RestoreOne = restore_one) -> None:
        self.name = f"{platform.node()}:{os.getpid()}"
        self._setting = setting
        self._restore = restore
        use_threads(setting.threads)
        self._solver = setting.open()
        self._progress: Progress | None = None

    @property
    def identity(self) -> Identity:
        """What this machine has."""
        return Identity.of(self._solver)

    def answer(self, token_path: Path) -> Answer:
        """Who this is, and whether it sees the head's folder."""
        token = token_path.read_text(encoding="utf-8") if token_path.exists() else None
        return Answer(worker=self.name, identity=self.identity, token=token)

    def progress(self) -> Progress | None:
        """How far the job at hand is."""
        return self._progress

    def work(self, job: Job) -> Ended:
        """What came of a job; an error is that, too."""
        self._progress, started = None, time.perf_counter()
        row = attempted(
            job,
            lambda job: self._restore(job, self._setting.plan, self._solver, self._advance),
            with_comparison=self._setting.plan.comparison_style is not None,
            asked=asked_for(self._setting.plan, self._solver.name, prompt=self._solver.prompt),
        )
        return Ended(row, self.name, time.perf_counter() - started)

    def _advance(self, progress: Progress) -> None:
        self._progress = progress
