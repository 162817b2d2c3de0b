"""A student that learns from a stock: what a `Trainer` is given on a card."""

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from instantvir_distill.config import DistillConfig
from instantvir_distill.data import ENLARGEMENT_BELOW_4, ENLARGEMENT_BY_4
from instantvir_distill.distillation import STUDENT, student_learner
from instantvir_distill.methods.regression import Regression
from instantvir_distill.parallel import rank, world_size
from instantvir_distill.pupils import FusedPupil, first_pupil
from instantvir_distill.sources import CleanVideos
from instantvir_distill.stock import (
    SEQUENCES_AT_ONCE,
    Makers,
    Prepared,
    Stock,
    loss_of,
    prepared,
)
from instantvir_models.errors import UsageError
from instantvir_models.students.fused import FusedConfig, FusedStudent
from instantvir_models.tasks import SR

PLACE = "place"
"""Its name in a checkpoint."""

LONGEST_WAIT_SECONDS = 600.0
"""For the first examples."""


@dataclass(frozen=True)
class Making:
    """What a process that makes examples is told; called with a number of its own, it makes them, one
    handful after the other from a place on."""

    config: DistillConfig
    student: FusedConfig
    open_source: Callable[[], CleanVideos]
    """Opens the clean videos, in the process that asks."""

    def __call__(self, seed: int, place: int) -> Iterator[Prepared]:
        source = self.open_source()
        student = FusedStudent(self.student)
        (phase,) = self.config.phases
        for number in itertools.count(place):
            source.seed(self.config.seed, seed, number)
            tasks = [
                str(task)
                for task in np.random.default_rng((self.config.seed, seed, number)).choice(
                    self.config.mix, SEQUENCES_AT_ONCE
                )
            ]
            examples = source.clean_examples(
                tasks,
                crops=[phase.crop] * len(tasks),
                frames=phase.frames,
                learned=phase.frames_learned,
            )
            method = self.config.method
            assert isinstance(method, Regression)
            yield prepared(
                examples,
                student,
                powers=[method.power(task) for task in tasks],
                tasks=[self.tasks.index(task) for task in tasks],
            )

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that examples are of."""
        return tuple(dict.fromkeys(self.config.mix))


def _is_of_one_branch(mix: Sequence[str]) -> bool:
    """Whether all tasks go the same way in a student that has a branch for enlargement by four."""
    return SR.name not in mix and (ENLARGEMENT_BY_4 not in mix or len(set(mix)) == 1)


class Stocked:
    """Owns the student, the stock and the processes that fill it."""

    def __init__(self, config: DistillConfig, open_source: Callable[[], CleanVideos]) -> None:
        assert config.stock is not None
        torch.manual_seed(config.seed)
        self.config = config
        pupil = first_pupil(config, torch.float32)
        assert isinstance(pupil, FusedPupil)
        if pupil.student.config.enlarger_layers and not _is_of_one_branch(config.mix):
            raise UsageError(
                "examples of a stock go through the network or through its branch for x4, and `mix` has "
                "both",
                hint=f"`{ENLARGEMENT_BELOW_4}` leaves x4 out; the recipe `enlarge-card` trains it alone",
            )
        self.pupil = pupil
        pupil.to(config.own_device)
        pupil.student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.learners = {STUDENT: student_learner(pupil, config)}
        self.stock = Stock(config.stock.sequences, config.own_device)
        self.making = Making(config, pupil.student.config, open_source)
        self._makers: Makers | None = None
        self._place = 0
        self._batch: Prepared | None = None

    def _count(self) -> int:
        assert self.config.stock is not None
        all_but_one = max(1, (os.cpu_count() or 1) - 1) // world_size()
        return self.config.stock.makers or max(1, all_but_one)

    @property
    def makers(self) -> Makers:
        """They start when they are first asked for something, at the place that a run goes on from."""
        if self._makers is None:
            self._makers = Makers(
                self.making, count=self._count(), seed=1000 * rank(), place=self._place
            )
        return self._makers

    def state_dict(self) -> dict[str, Tensor]:
        """The place up to which examples were taken, so that a run that goes on takes others."""
        place = torch.tensor(self._place if self._makers is None else self._makers.place)
        if torch.distributed.is_initialized():  # a checkpoint has one for all workers
            torch.distributed.all_reduce(place, torch.distributed.ReduceOp.MAX)
        return {PLACE: place}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from there."""
        self._place = int(state[PLACE])

    @property
    def student(self) -> nn.Module:
        """What is learned of the student."""
        return self.pupil.network

    def prepare(self, step: int) -> None:
        self.restock()
        (phase,) = self.config.phases
        rng = np.random.default_rng((self.config.seed, rank(), step))
        self._batch = self.stock.drawn(phase.samples // world_size(), rng)

    def restock(self) -> None:
        """Take what was made meanwhile; wait while there is too little.

        Raises:
            UsageError: if nothing was made in ten minutes.
        """
        assert self.config.stock is not None
        while len(self.stock) < min(self.config.stock.least, self.config.stock.sequences):
            new = self.makers.next(seconds=LONGEST_WAIT_SECONDS)
            if new is None:
                raise UsageError("no example was made in ten minutes")
            self.stock.add(new)
        while (new := self.makers.next(seconds=0)) is not None:
            self.stock.add(new)

    def ask(self, name: str, step: int, update: int, part: int) -> tuple[Tensor, ...]:
        assert self._batch is not None
        method = self.config.method
        assert isinstance(method, Regression)
        count = len(self._batch) // self.config.accumulate
        batch = self._batch.changed(lambda t: t[part * count : (part + 1) * count])
        loss = loss_of(self.pupil.student, batch, calibration_weight=method.calibration_weight)
        return loss.total, loss.by_example

    def shown(self, name: str, asked: tuple[Tensor, ...]) -> dict[str, float]:
        assert self._batch is not None
        values = torch.cat(list(asked[1:])).detach().cpu().numpy()
        which = self._batch.task.cpu().numpy()[: len(values)]
        return {
            task: float(values[which == i].mean())
            for i, task in enumerate(self.making.tasks)
            if (which == i).any()
        }

    def write(self, folder: Path) -> None:
        """The averaged student."""
        average = self.learners[STUDENT].whole_average()
        if rank() == 0:
            self.pupil.write(average, folder)

    def close(self) -> None:
        """End the processes that make examples."""
        if self._makers is not None:
            self._makers.close()
