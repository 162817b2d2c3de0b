"""A student, a method and examples: what a `Trainer` of students is given."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from instantvir_distill.config import CriticConfig, DistillConfig
from instantvir_distill.critic import first_critic
from instantvir_distill.learner import Learner, Rates
from instantvir_distill.methods.base import Example, Keep, Networks, made_anew
from instantvir_distill.parallel import rank, world_size
from instantvir_distill.pupils import Pupil, first_pupil
from instantvir_distill.sources import CleanVideos, Source
from instantvir_distill.targets import KeptTargets, fingerprint
from instantvir_distill.teachers import load_teacher, place_of
from instantvir_models import __version__

STUDENT, CRITIC = "student", "critic"


class Distillation:
    """Owns the student, its critic if there is one, the teacher and the examples of each step.

    Args:
        targets: folder where what the teacher makes of examples that come again is kept; None asks it
            anew.
    """

    def __init__(self, config: DistillConfig, source: Source, targets: Path | None = None) -> None:
        torch.manual_seed(config.seed)
        self.config, self.source, self.method = config, source, config.method
        self.pupil = first_pupil(config, config.products)
        self.pupil.to(config.own_device)
        prior = load_teacher(config)
        critic = first_critic(self.method.critic_sees, prior, recompute=config.recompute)
        self.networks = Networks(
            self.pupil.restore,
            _prior=prior,
            _critic=critic,
            _anchor=self.pupil.frozen() if self.method.needs_anchor else None,
            _natural=source.natural if isinstance(source, CleanVideos) else None,
            kept=_kept(config, targets),
        )
        self.learners = {
            STUDENT: student_learner(self.pupil, config),
        }
        if critic is not None and config.critic is not None:
            rates = _critic_rates(config, config.critic)
            self.learners[CRITIC] = Learner(
                critic, rates, layout=config.layout, products=config.products
            )
        self._examples: Sequence[Example] = ()

    @property
    def student(self) -> nn.Module:
        """What is learned of the student."""
        return self.pupil.network

    def prepare(self, step: int) -> None:
        self._examples = self.examples(step)

    def examples(self, step: int, update: int = 0) -> Sequence[Example]:
        """The examples of this worker at a step, new ones for each further update of the critic."""
        phase = self.config.phase_at(step)
        place = in_epoch(step, self.config.epoch_steps, self.config.seed)
        self.source.seed(self.config.seed, rank(), place, *([update] if update else []))
        tasks = dealt(self.config.mix, phase.samples, place, self.config.seed)
        drawn: Callable[..., Sequence[Example]] = self.source.examples
        if self.method.reads_clean and isinstance(self.source, CleanVideos):
            drawn = self.source.clean_examples
        examples = drawn(
            tasks,
            crops=[self.method.reach(task) * phase.crop for task in tasks],
            frames=phase.frames,
            learned=phase.frames_learned,
        )
        return [example.to(self.config.own_device) for example in examples]

    def ask(self, name: str, step: int, update: int, part: int) -> tuple[Tensor, ...]:
        examples = self._examples if update == 0 else self.examples(step, update)
        count = len(examples) // self.config.accumulate
        examples = examples[part * count : (part + 1) * count]
        generator = self._generator(name, step, update, part)
        loss_of = self.method.loss if name == STUDENT else self.method.critic_loss
        loss = loss_of(examples, self.networks, generator)
        return loss.total, *loss.by_example

    def _generator(self, name: str, step: int, update: int, part: int) -> torch.Generator:
        place = (self.config.seed, rank(), step, update, len(name), *([part] if part else []))
        seed = int(np.random.default_rng(place).integers(2**62))
        return torch.Generator().manual_seed(seed)

    def shown(self, name: str, asked: tuple[Tensor, ...]) -> dict[str, float]:
        if name == CRITIC:
            return {CRITIC: float(asked[0].detach())}
        by_task: dict[str, list[float]] = {}
        for example, value in zip(self._examples, asked[1:], strict=True):
            by_task.setdefault(example.task, []).append(float(value.detach()))
        return {task: sum(values) / len(values) for task, values in by_task.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing: what is random belongs to the step."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing."""

    def write(self, folder: Path) -> None:
        """The averaged student."""
        average = self.learners[STUDENT].whole_average()
        if rank() != 0:
            return
        self.pupil.write(average, folder)


def in_epoch(step: int, epoch_steps: int, seed: int) -> int:
    """Which step of the first epoch has the examples of `step`; each later epoch has its own order."""
    if not epoch_steps or step < epoch_steps:
        return step
    epoch, place = divmod(step, epoch_steps)
    return int(np.random.default_rng((seed, epoch, epoch_steps)).permutation(epoch_steps)[place])


def _kept(config: DistillConfig, targets: Path | None) -> Keep:
    if targets is None or config.teacher is None or not config.keeps_targets:
        return made_anew
    seen = fingerprint(place_of(config.teacher))
    who = f"{__version__} {seen} {config.teacher_guidance} {config.products}"
    return KeptTargets(targets, who)


def dealt(mix: Sequence[str], samples: int, step: int, seed: int) -> list[str]:
    """This worker's share of the tasks of a step, dealt out anew at each one."""
    order = np.random.default_rng((seed, step)).permutation(
        [mix[i % len(mix)] for i in range(step * samples, (step + 1) * samples)]
    )
    return [str(task) for task in order[rank() :: world_size()]]


def student_learner(pupil: Pupil, config: DistillConfig) -> Learner:
    """What trains the network of `pupil`."""
    return Learner(
        pupil.network,
        _rates(config),
        learned=config.learned,
        layout=config.layout,
        entries=pupil.entries,
        products=config.products,
    )


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
