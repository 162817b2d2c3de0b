"""A student, a method and examples: what a `Trainer` of students is given."""

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from instantvir_distill.config import CriticConfig, DistillConfig
from instantvir_distill.critic import SEEN_CHANNELS, BlindCritic, ConditionedCritic
from instantvir_distill.learner import Learner, Rates
from instantvir_distill.methods.base import CriticSees, Example, Networks
from instantvir_distill.parallel import rank, world_size
from instantvir_distill.restorers import FusedRestorer
from instantvir_distill.sources import CleanVideos, Source
from instantvir_models.checkpoints.load import load_student, save_student
from instantvir_models.checkpoints.prior import load_prior
from instantvir_models.cpu import fastest_dtype
from instantvir_models.errors import UsageError
from instantvir_models.priors.base import Prior
from instantvir_models.priors.flow import FlowPrior
from instantvir_models.students.fused import FusedConfig, FusedStudent

STUDENT, CRITIC = "student", "critic"

WEIGHTS = "student.safetensors"


class Distillation:
    """Owns the student, its critic if there is one, the teacher and the examples of each step."""

    def __init__(self, config: DistillConfig, source: Source) -> None:
        torch.manual_seed(config.seed)
        self.config, self.source, self.method = config, source, config.method
        self.student = first_student(config)
        prior = None if config.teacher is None else load_prior(Path(config.teacher))
        dtype = fastest_dtype() if config.compute == "fastest" else torch.float32
        critic = _first_critic(self.method.critic_sees, prior)
        self.networks = Networks(
            FusedRestorer(self.student, dtype=dtype),
            _prior=prior,
            _critic=critic,
            _anchor=_anchor(self.student, dtype) if self.method.needs_anchor else None,
        )
        self.learners = {
            STUDENT: Learner(
                self.student,
                _rates(config),
                learned=config.learned,
                layout=config.layout,
                entries=("refine",),
            )
        }
        if critic is not None and config.critic is not None:
            self.learners[CRITIC] = Learner(critic, _critic_rates(config, config.critic))
        self._examples: Sequence[Example] = ()

    def prepare(self, step: int) -> None:
        self._examples = self.examples(step)

    def examples(self, step: int, update: int = 0) -> Sequence[Example]:
        """The examples of this worker at a step, new ones for each further update of the critic."""
        phase = self.config.phase_at(step)
        self.source.seed(self.config.seed, rank(), step, *([update] if update else []))
        tasks = dealt(self.config.mix, phase.samples, step, self.config.seed)
        drawn: Callable[..., Sequence[Example]] = self.source.examples
        if self.method.reads_clean and isinstance(self.source, CleanVideos):
            drawn = self.source.clean_examples
        return drawn(
            tasks,
            crops=[self.method.reach(task) * phase.crop for task in tasks],
            frames=phase.frames,
            learned=phase.frames_learned,
        )

    def ask(self, name: str, step: int, update: int) -> tuple[Tensor, ...]:
        examples = self._examples if update == 0 else self.examples(step, update)
        generator = self._generator(name, step, update)
        loss_of = self.method.loss if name == STUDENT else self.method.critic_loss
        loss = loss_of(examples, self.networks, generator)
        return loss.total, *loss.by_example

    def _generator(self, name: str, step: int, update: int) -> torch.Generator:
        place = (self.config.seed, rank(), step, update, len(name))
        seed = int(np.random.default_rng(place).integers(2**62))
        return torch.Generator().manual_seed(seed)

    def shown(self, name: str, asked: tuple[Tensor, ...]) -> dict[str, float]:
        if name == CRITIC:
            return {CRITIC: float(asked[0].detach())}
        by_task: dict[str, list[float]] = {}
        for example, value in zip(self._examples, asked[1:], strict=True):
            by_task.setdefault(example.task, []).append(float(value.detach()))
        return {task: sum(values) / len(values) for task, values in by_task.items()}

    def write(self, folder: Path) -> None:
        """The averaged student, `student.safetensors`."""
        average = self.learners[STUDENT].whole_average()
        if rank() != 0:
            return
        averaged = FusedStudent(self.student.config, seen=self.student.seen)
        averaged.load_state_dict(average)
        partial = folder / "student.part"
        save_student(averaged, partial, dtype=torch.float32)
        os.replace(partial, folder / WEIGHTS)


def dealt(mix: Sequence[str], samples: int, step: int, seed: int) -> list[str]:
    """This worker's share of the tasks of a step, dealt out anew at each one."""
    order = np.random.default_rng((seed, step)).permutation(
        [mix[i % len(mix)] for i in range(step * samples, (step + 1) * samples)]
    )
    return [str(task) for task in order[rank() :: world_size()]]


def first_student(config: DistillConfig) -> FusedStudent:
    """The student at step 0, channels last."""
    if config.initial_weights is None:
        student: FusedStudent = FusedStudent(config.student).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return student
    given = load_student(config.initial_weights).student
    if not isinstance(given, FusedStudent):
        raise UsageError(
            f"`{config.initial_weights}` is no fused student, the kind that recipes train",
            hint="start from a file that `instantvir distill` wrote",
        )
    return _with_branches(given, config.student).train().requires_grad_(True)


def _with_branches(given: FusedStudent, wanted: FusedConfig) -> FusedStudent:
    """`given`, with a new branch for enlargement if one is wanted and it has none."""
    if given.config.enlarger_layers or not wanted.enlarger_layers:
        return given
    size = replace(
        given.config,
        enlarger_layers=wanted.enlarger_layers,
        enlarger_channels=wanted.enlarger_channels,
    )
    grown: FusedStudent = FusedStudent(size).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    grown.load_state_dict(given.state_dict(), strict=False)
    return grown


def _anchor(student: FusedStudent, dtype: torch.dtype) -> FusedRestorer:
    """The student as it is now, frozen."""
    return FusedRestorer(copy.deepcopy(student).eval().requires_grad_(False), dtype=dtype)


def _first_critic(sees: CriticSees, prior: Prior | None) -> BlindCritic | ConditionedCritic | None:
    """A critic that starts as the teacher; None where none is learned."""
    if sees == "none":
        return None
    if not isinstance(prior, FlowPrior):
        raise UsageError("a critic starts as its teacher, which has to be a tiny video prior")
    size, weights = prior.network.config, prior.network.state_dict()
    critic = (
        BlindCritic(size)
        if sees == "blind"
        else ConditionedCritic(replace(size, seen_channels=SEEN_CHANNELS))
    )
    critic.network.load_state_dict(weights, strict=False)
    return critic


def _rates(config: DistillConfig) -> Rates:
    return Rates(
        muon_lr=config.muon_lr,
        adam_lr=config.adam_lr,
        max_gradient_norm=config.max_gradient_norm,
        spike=config.spike,
        ema_decay=config.ema_decay,
    )


def _critic_rates(config: DistillConfig, critic: CriticConfig) -> Rates:
    return Rates(
        muon_lr=critic.muon_lr,
        adam_lr=critic.adam_lr,
        max_gradient_norm=config.max_gradient_norm,
        spike=config.spike,
        updates_per_step=critic.updates_per_step,
    )
