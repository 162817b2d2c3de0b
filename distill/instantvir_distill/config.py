"""A training run, complete: every number that decides what comes out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from instantvir_models.students.fused import FusedConfig
from instantvir_models.tasks import DEBLUR, DENOISE, INPAINT, SR


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training at one crop size."""

    steps: int
    crop: int
    """Side of the square training crop in pixels."""
    frames: int
    """Frames of a training sequence."""
    samples: int = 12
    """Sequences of a step, over all workers."""
    frames_learned: int = 3
    """Neighbouring frames of a sequence that the network restores; the others are there to be fused."""


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Everything a run depends on."""

    student: FusedConfig = field(default_factory=FusedConfig)
    phases: tuple[Phase, ...]
    initial_weights: str | None = None
    """Where training starts: a student as `--model` names it, which then also sets the size of the
    network; None starts from random weights."""
    learned: str = ""
    """What the names of the weights that are trained begin with; all others stay."""
    workers: int = 2
    """Processes of one thread each; their gradients are averaged."""
    seed: int = 0
    mix: tuple[str, ...] = (DENOISE.name,) * 6 + (INPAINT.name, SR.name, DEBLUR.name) * 2
    """Tasks of the samples of a step, dealt out anew each time."""
    powers: Mapping[str, float] = field(default_factory=lambda: {DENOISE.name: 0.25})
    """Of the relative squared error, by task; 0.5 elsewhere."""
    muon_lr: float = 0.004
    adam_lr: float = 1.5e-3
    warmup_steps: int = 40
    constant_share: float = 0.3
    """Part of the steps at the full rate; a cosine to `last_rate` follows."""
    last_rate: float = 0.01
    ema_decay: float = 0.998
    max_gradient_norm: float = 1.0
    spike: float = 8.0
    """A step whose gradient is longer than this many medians is left out."""
    calibration_weight: float = 0.02
    """Weight of the loss on the expected error."""
    lossy_fraction: float = 0.2
    """Part of the measurements that goes through a lossy codec."""
    validation_sources: tuple[str, ...] = (
        "sam2_",
        "mdn_bug",
        "carnd_highway",
        "media3_topshots",
    )
    """Clips whose name starts so are never trained on."""

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    def phase_at(self, step: int) -> Phase:
        """The phase that `step` belongs to."""
        for phase in self.phases:
            if step < phase.steps:
                return phase
            step -= phase.steps
        return self.phases[-1]

    def rate_at(self, step: int) -> float:
        """Factor on the learning rates: linear warm-up, constant, cosine."""
        warm = (step + 1) / self.warmup_steps
        passed = step / self.steps - self.constant_share
        decayed = max(0.0, passed / (1 - self.constant_share))
        cosine = 0.5 + 0.5 * math.cos(math.pi * min(1.0, decayed))
        return min(warm, self.last_rate + (1 - self.last_rate) * cosine)
