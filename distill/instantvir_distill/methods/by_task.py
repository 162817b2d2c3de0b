"""A method for each task: what stands best for the clean frame depends on what happened to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from instantvir_distill.methods.amortise import Amortise
from instantvir_distill.methods.base import Example, Loss, Method, Networks
from instantvir_distill.methods.posterior_teacher import PosteriorTeacher
from instantvir_distill.methods.regression import Regression
from instantvir_distill.methods.self_supervised import SelfSupervised
from instantvir_models.tasks import DENOISE

ForOneTask = Regression | SelfSupervised | Amortise | PosteriorTeacher


@dataclass(frozen=True, kw_only=True)
class ByTask(Method):
    """The teacher's estimate for noise, and elsewhere what was held back of the measurement.

    Both without a clean frame, and each where it was found to be the better one.
    """

    name: ClassVar[str] = "by_task"

    methods: Mapping[str, ForOneTask] = field(default_factory=lambda: {DENOISE.name: Amortise()})
    others: ForOneTask = field(default_factory=SelfSupervised)
    """For tasks that are not among `methods`."""

    def __post_init__(self) -> None:
        if any(method.critic_sees != "none" for method in self._all):
            raise ValueError("a method of one task among several learns no critic")

    @property
    def _all(self) -> tuple[ForOneTask, ...]:
        return *self.methods.values(), self.others

    def of(self, task: str) -> ForOneTask:
        """The method of a task."""
        return self.methods.get(task, self.others)

    @property
    def reads_clean(self) -> bool:
        return any(method.reads_clean for method in self._all)

    @property
    def needs_prior(self) -> bool:
        return any(method.needs_prior for method in self._all)

    @property
    def keeps_targets(self) -> bool:
        return any(method.keeps_targets for method in self._all)

    @property
    def needs_float32(self) -> bool:
        return any(method.needs_float32 for method in self._all)

    def reach(self, task: str) -> int:
        return self.of(task).reach(task)

    def loss(
        self, examples: Sequence[Example], networks: Networks, generator: torch.Generator
    ) -> Loss:
        by_method: dict[int, list[int]] = {}
        for i, example in enumerate(examples):
            by_method.setdefault(self._all.index(self.of(example.task)), []).append(i)
        totals: list[Tensor] = []
        by_example: dict[int, Tensor] = {}
        for number in sorted(by_method):
            mine = by_method[number]
            loss = self._all[number].loss([examples[i] for i in mine], networks, generator)
            totals.append(loss.total * len(mine) / len(examples))
            by_example |= dict(zip(mine, loss.by_example, strict=True))
        return Loss(torch.stack(totals).sum(), tuple(by_example[i] for i in range(len(examples))))
