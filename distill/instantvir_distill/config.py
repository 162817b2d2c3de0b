"""A training run, complete: every number that decides what comes out."""

from dataclasses import dataclass, field

from instantvir_models.students.tiny import TinyConfig
from instantvir_models.tasks import TASKS


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training at one crop size."""

    steps: int
    crop: int
    """Side of the square training crop in pixels."""
    frames: int
    """Frames of a training sequence."""
    clips_per_worker: int
    """Sequences per worker and step."""
    rates: tuple[float, float] = (1.0, 1.0)
    """Factor on the learning rates at the start and at the end; linear in between."""
    mix: tuple[str, ...] = tuple(TASKS)
    """Tasks of consecutive sequences, over workers and steps, again and again."""


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Everything a run depends on."""

    student: TinyConfig = field(default_factory=TinyConfig)
    phases: tuple[Phase, ...]
    initial_weights: str | None = None
    """Where training starts: a student as `--model` names it, which then also sets the size of the
    network; None starts from random weights."""
    workers: int = 2
    """Processes of one thread each; their gradients are averaged."""
    seed: int = 0
    muon_lr: float = 0.005
    adam_lr: float = 2e-3
    warmup_steps: int = 50
    ema_decay: float = 0.998
    max_gradient_norm: float = 1.0
    temporal_weight: float = 0.15
    """Weight of the loss on frame differences."""
    lossy_fraction: float = 0.25
    """Part of the measurements that goes through H.264."""
    validation_sources: tuple[str, ...] = (
        "sam2_cups",
        "carnd_highway",
        "mdn_bug",
        "media3_topshots",
    )
    """Clips whose name starts so are never trained on."""

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    def phase_at(self, step: int) -> tuple[Phase, float]:
        """The phase that `step` belongs to, and how much of it has passed, from 0 to 1."""
        for phase in self.phases:
            if step < phase.steps:
                return phase, step / phase.steps
            step -= phase.steps
        return self.phases[-1], 1.0
