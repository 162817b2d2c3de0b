"""A training run, complete: every number that decides what comes out."""

import difflib
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from typing import Literal

import torch

from instantvir_distill.data import SAMPLERS
from instantvir_distill.levels import NoiseLaw
from instantvir_distill.methods.adversarial import Adversarial
from instantvir_distill.methods.amortise import Amortise
from instantvir_distill.methods.by_task import ByTask
from instantvir_distill.methods.posterior_teacher import PosteriorTeacher
from instantvir_distill.methods.regression import Regression
from instantvir_distill.methods.released import Released
from instantvir_distill.methods.self_supervised import SelfSupervised
from instantvir_distill.methods.summed import Summed
from instantvir_distill.methods.variational import Variational
from instantvir_models.autoencoders.lean import LeanConfig
from instantvir_models.autoencoders.wan import WanVaeConfig
from instantvir_models.cpu import fastest_dtype
from instantvir_models.errors import UsageError
from instantvir_models.operators.spec import Specification
from instantvir_models.priors.flow import FlowConfig
from instantvir_models.students.fused import TRAITS, FusedConfig
from instantvir_models.students.wan.transformer import WanConfig
from instantvir_models.tasks import DEBLUR, DENOISE, INPAINT, SR

AnyMethod = (
    Regression
    | SelfSupervised
    | Amortise
    | PosteriorTeacher
    | ByTask
    | Variational
    | Adversarial
    | Released
    | Summed
)

DENOISE_POWER = {DENOISE.name: 0.25}
"""Of the relative squared error: noise is taken away by decibels."""


MOST_STEPS = 10**8 - 1
"""Eight digits in the name of a checkpoint."""

AT_LEAST_0, AT_LEAST_1 = (0, math.inf), (1, math.inf)
SHARE = 0, 1
COUNT = 1, MOST_STEPS


def _check_numbers(config: object, ranges: Mapping[str, tuple[float, float]], where: str) -> None:
    """UsageError if a number of `config` is not between its least and its most."""
    for name, (least, most) in ranges.items():
        value = getattr(config, name)
        if not least <= value <= most:
            wanted = f"at least {least:g}" if most == math.inf else f"from {least:g} to {most}"
            raise UsageError(f"`{where}{name}` is {wanted}, got {value:g}")


def _check_method(method: object, where: str = "method") -> None:
    """UsageError if a number of it, or of the methods in it, is negative or no number."""
    if isinstance(method, float | int) and not 0 <= method < math.inf:
        raise UsageError(f"`{where}` is at least 0, got {method:g}")
    if is_dataclass(method) and not isinstance(method, type):
        parts: Iterable[tuple[object, object]] = vars(method).items()
    elif isinstance(method, Mapping):
        parts = method.items()
    else:
        parts = enumerate(method) if isinstance(method, tuple) else ()
    for name, part in parts:
        _check_method(part, f"{where}.{name}")


def _check_tasks(names: Sequence[str]) -> None:
    """UsageError if one of them is no task that examples are made of."""
    for name in names:
        if name not in SAMPLERS:
            close = difflib.get_close_matches(name, SAMPLERS, 1)
            hint = f"did you mean `{close[0]}`?" if close else f"there are {', '.join(SAMPLERS)}"
            raise UsageError(f"there is no task called `{name}`", hint=hint)


def _tasks_in(method: object) -> Iterator[str]:
    """Names of tasks that the settings of `method` speak of, and those of the methods in it."""
    if isinstance(method, Mapping):
        yield from map(str, method)
        method = tuple(method.values())
    if isinstance(method, tuple):
        parts: Iterable[object] = method
    else:
        parts = vars(method).values() if is_dataclass(method) else ()
    for part in parts:
        yield from _tasks_in(part)


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

    def __post_init__(self) -> None:
        counts = "steps", "crop", "frames", "samples", "frames_learned"
        _check_numbers(self, dict.fromkeys(counts, COUNT), "phases.")


@dataclass(frozen=True, kw_only=True)
class CriticConfig:
    """What learns the score of the student's outputs, and starts as the teacher; or heads that tell
    them from natural video."""

    updates_per_step: int = 1
    """Its steps for each one of the student's; 5 in published recipes."""
    muon_lr: float = 0.002
    adam_lr: float = 1e-3

    def __post_init__(self) -> None:
        rates = dict.fromkeys(("muon_lr", "adam_lr"), AT_LEAST_0)
        _check_numbers(self, {"updates_per_step": COUNT, **rates}, "critic.")


@dataclass(frozen=True, kw_only=True)
class WanSize:
    """A full-size student as a plan counts it; weights that it starts from decide what it is."""

    autoencoder: Literal["lean", "wan"] = "lean"
    transformer: WanConfig = field(default_factory=WanConfig)
    latents_per_block: int = 3

    @property
    def autoencoder_config(self) -> LeanConfig | WanVaeConfig:
        """That of the published weights."""
        return LeanConfig() if self.autoencoder == "lean" else WanVaeConfig()


@dataclass(frozen=True, kw_only=True)
class StockConfig:
    """Examples that a card keeps and learns from again and again, since it learns faster than
    processors make them."""

    sequences: int = 60_000
    """That it holds, about a megabyte each at 3 learned frames of 96x96."""
    least: int = 2_000
    """That are there before the first step."""
    makers: int = 0
    """Processes that make them; 0 takes all processors but one, shared among workers."""

    def __post_init__(self) -> None:
        _check_numbers(self, {"sequences": COUNT, "least": COUNT, "makers": (0, 4096)}, "stock.")


RUN_RANGES = {
    "workers": AT_LEAST_1, "accumulate": AT_LEAST_1, "spike": AT_LEAST_1,
    "seed": (0, 2**63 - 1), "warmup_steps": AT_LEAST_0, "most_restarts": (0, 1000),
    "muon_lr": AT_LEAST_0, "adam_lr": AT_LEAST_0, "max_gradient_norm": (1e-9, math.inf),
    "constant_share": (0, 0.99), "last_rate": SHARE, "ema_decay": SHARE,
}  # fmt: skip
"""Least and most of the numbers of every run."""

DISTILL_RANGES = {
    "lossy_fraction": SHARE, "inexactness": SHARE, "teacher_guidance": AT_LEAST_0,
    "epoch_steps": (0, MOST_STEPS),
}  # fmt: skip

CHANNELS, LAYERS = (1, 4096), (0, 1000)
SIZE_RANGES = {
    "fine_channels": CHANNELS, "coarse_channels": CHANNELS, "bottom_channels": CHANNELS,
    "fine_layers": LAYERS, "coarse_layers": LAYERS, "bottom_layers": LAYERS,
}  # fmt: skip
"""Of the networks that are trained here from random weights."""

FUSED_RANGES = {
    **SIZE_RANGES, "frames_per_block": (1, 1000), "enlarger_layers": LAYERS,
    "enlarger_channels": CHANNELS,
}  # fmt: skip

TEACHER_RANGES = {"wide_share": SHARE, "map_share": SHARE, "weight_floor": (1e-9, math.inf)}


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every run has, whatever is trained."""

    phases: tuple[Phase, ...]
    workers: int = 2
    """Processes of one thread each; their gradients are averaged."""
    seed: int = 0
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
    compute: Literal["fastest", "float32"] = "fastest"
    """What networks multiply in: bfloat16 where the CPU or card does, weights stay float32. Full-size
    students and their critics do where `layout` is `sharded`, also on one card."""
    layout: Literal["replicated", "sharded"] = "replicated"
    """Whether each worker holds all weights, or a part of them (FSDP2; AdamW only)."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where networks are; with `cuda` each worker has a card of its own."""
    accumulate: int = 1
    """Parts that the samples of a worker are learned from in turn, which takes less memory."""
    saves: Literal["in_turn", "beside"] = "in_turn"
    """Whether training waits for its checkpoints, or goes on while a copy is written (takes memory for
    one; for those of many gigabytes)."""
    most_restarts: int = 2
    """How often workers that died are started again, from the last checkpoint."""
    validation_sources: tuple[str, ...] = (
        "sam2_",
        "mdn_bug",
        "carnd_highway",
        "media3_topshots",
    )
    """Clips whose name starts so are never trained on, where they are clean."""
    measured_by: str | None = None
    """What happened to all clips, as a specification; None where they are clean."""

    def __post_init__(self) -> None:
        if self.measured_by is not None:
            Specification.read(self.measured_by)
        if not self.phases:
            raise UsageError("a recipe has at least one phase")
        _check_numbers(self, RUN_RANGES, "")
        for phase in self.phases:
            if phase.crop % 8:
                raise UsageError(f"crops are multiples of 8 pixels, got `crop` {phase.crop}")
            if self.accumulate > 1 and phase.samples % (self.workers * self.accumulate):
                raise UsageError(
                    f"{phase.samples} samples of a step are not {self.accumulate} equal parts for "
                    f"each of {self.workers} workers"
                )
            if self.layout == "sharded" and phase.samples % self.workers:
                raise UsageError(
                    f"{phase.samples} samples of a step are not shared out evenly among {self.workers} "
                    "workers, which hold parts of the weights and so ask the networks together"
                )
            if phase.samples < self.workers:
                raise UsageError(
                    f"{phase.samples} samples of a step do not suffice for {self.workers} workers"
                )

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    @property
    def own_device(self) -> torch.device:
        """Where the networks of this worker are."""
        if self.device == "cpu":
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))

    @property
    def products(self) -> torch.dtype:
        """What networks of this worker multiply in.

        Never float16, in which gradients vanish unless losses are scaled.
        """
        fastest = fastest_dtype(self.own_device.type)
        is_wanted = self.compute == "fastest" and fastest == torch.bfloat16
        return fastest if is_wanted else torch.float32

    @property
    def keeps_targets(self) -> bool:
        """Whether a teacher is asked once about examples that come again."""
        return False

    def phase_at(self, step: int) -> Phase:
        """The phase that `step` belongs to."""
        for phase in self.phases:
            if step < phase.steps:
                return phase
            step -= phase.steps
        return self.phases[-1]

    def rate_at(self, step: int) -> float:
        """Factor on the learning rates: linear warm-up, constant, cosine."""
        warm = (step + 1) / max(1, self.warmup_steps)
        passed = step / self.steps - self.constant_share
        decayed = max(0.0, passed / (1 - self.constant_share))
        cosine = 0.5 + 0.5 * math.cos(math.pi * min(1.0, decayed))
        return min(warm, self.last_rate + (1 - self.last_rate) * cosine)


@dataclass(frozen=True, kw_only=True)
class DistillConfig(RunConfig):
    """A student, what teaches it, and how."""

    student: FusedConfig | WanSize = field(default_factory=FusedConfig)
    initial_weights: str | None = None
    """Where training starts: a student as `--model` names it, which then also sets the size of the
    network; None starts from random weights."""
    learned: str = ""
    """What the names of the weights that are trained begin with, several with commas; all others stay."""
    method: AnyMethod = field(default_factory=lambda: Regression(powers=DENOISE_POWER))
    stock: StockConfig | None = None
    """Where the examples of an embedded student are kept and drawn from; None makes new ones at
    each step."""
    epoch_steps: int = 0
    """Steps after which the same examples come again, in another order; 0 makes new ones at each step.
    What a teacher made of them is kept, for methods that ask it the same each time."""
    recompute: bool = False
    """Whether the layers of a full-size student are computed again in the backward pass, which keeps
    little of them in memory."""
    teacher: str | None = None
    """The prior that teaches, for methods that ask one: `tiny-teacher` in the package, a file, or the
    folder of a Wan checkpoint."""
    teacher_guidance: float = 1.0
    """Classifier-free guidance of a teacher that reads text: v_without + g (v_text - v_without)."""
    critic: CriticConfig | None = None
    """For methods that learn one."""
    mix: tuple[str, ...] = (DENOISE.name,) * 6 + (INPAINT.name, SR.name, DEBLUR.name) * 2
    """Tasks of the samples of a step, dealt out anew each time."""
    lossy_fraction: float = 0.2
    """Part of the measurements that goes through a lossy codec."""
    inexactness: float = 1.0
    """On the shares of examples that are told a little wrongly or have coarse noise: 0 where a loss
    rests on what is told."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_numbers(self, DISTILL_RANGES, "")
        _check_method(self.method)
        if isinstance(self.student, FusedConfig):
            _check_numbers(self.student, FUSED_RANGES, "student.")
            if not set(self.student.traits) <= set(TRAITS) or not self.student.traits:
                got = ", ".join(self.student.traits) or "none"
                raise UsageError(f"`student.traits` are some of {', '.join(TRAITS)}, got {got}")
        if not self.mix:
            raise UsageError("`mix` names no task")
        _check_tasks((*self.mix, *_tasks_in(self.method)))
        method = self.method
        is_full_size = isinstance(self.student, WanSize)
        if not is_full_size and self.recompute:
            raise UsageError("`recompute` is for full-size students; this one trains without it")
        self._check_stock(is_full_size=is_full_size)
        if self.measured_by is not None and (method.reads_clean or method.needs_natural):
            raise _needs_clean(f"`{method.name}`")
        if method.needs_prior and self.teacher is None:
            raise UsageError(
                f"`{method.name}` learns from a teacher, and none was named",
                hint="`--set teacher=tiny-teacher` is the one in the package",
            )
        if not method.needs_prior and self.teacher is not None:
            raise UsageError(f"`{method.name}` asks no teacher, so `teacher` would have no effect")
        if method.critic_sees == "none" and self.critic is not None:
            raise UsageError(f"`{method.name}` learns no critic, so `critic` would have no effect")
        if method.critic_sees != "none" and self.critic is None:
            raise UsageError(f"`{method.name}` learns a critic: say how in `critic`")
        if method.needs_float32 and self.compute != "float32":
            raise UsageError(
                f"`{method.name}` takes finite differences, which bfloat16 loses",
                hint="`--set compute=float32`",
            )
        if method.needs_float32 and self.layout == "sharded" and len(set(self.mix)) > 1:
            raise UsageError(
                f"`{method.name}` asks twice about noise and once elsewhere, and workers that hold parts "
                "of the weights ask together",
                hint="`--set mix=denoise`, or `--set layout=replicated`",
            )
        if method.needs_anchor and self.initial_weights is None:
            raise UsageError("an anchor is the student at the start: name it in `initial_weights`")

    @property
    def keeps_targets(self) -> bool:
        return self.epoch_steps > 0 and self.method.keeps_targets

    def _check_stock(self, *, is_full_size: bool) -> None:
        makes_anew = not isinstance(self.method, Regression)
        if self.device == "cuda" and not is_full_size and makes_anew:
            raise UsageError(
                f"on a card an embedded student learns from a stock of examples, and `{self.method.name}` "
                "makes them anew at each step",
                hint="`--set device=cpu`",
            )
        if self.stock is None:
            if self.device == "cuda" and not is_full_size:
                raise UsageError(
                    "on a card an embedded student learns from a stock of examples",
                    hint="`--set stock=default`, or `--recipe tiny-card`",
                )
            return
        if is_full_size:
            raise UsageError("`stock` is for embedded students; a full-size one trains without it")
        if makes_anew:
            raise UsageError(
                f"`{self.method.name}` makes its examples anew at each step; take `stock` away"
            )
        if self.epoch_steps:
            raise UsageError(
                "a stock has examples of its own, so `epoch_steps` would have no effect"
            )
        if len(self.phases) != 1:
            raise UsageError("examples of a stock are of one size: give one phase")


@dataclass(frozen=True, kw_only=True)
class TeacherConfig(RunConfig):
    """A tiny video prior, from clean clips."""

    network: FlowConfig = field(default_factory=FlowConfig)
    initial_weights: str | None = None
    """File of a prior to start from, which then also sets the size."""
    levels: NoiseLaw = field(
        default_factory=lambda: NoiseLaw(law="log_normal", low=0.061, high=0.55)
    )
    wide_levels: NoiseLaw = field(default_factory=lambda: NoiseLaw(low=0.005, high=10.0))
    wide_share: float = 0.12
    """Part of the samples whose noise is from `wide_levels`."""
    map_share: float = 0.3
    """Part of the samples whose noise differs: less on random pixels, or on the means of boxes."""
    weight_floor: float = 0.02
    """Noise below this level counts no more than at it: small noise has gradients with heavy tails."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_numbers(self, TEACHER_RANGES, "")
        _check_numbers(self.network, SIZE_RANGES, "network.")
        if self.measured_by is not None:
            raise _needs_clean("a teacher")
        if self.device != "cpu":
            raise UsageError("a tiny teacher is trained on the CPU", hint="`--set device=cpu`")


def _needs_clean(what: str) -> UsageError:
    return UsageError(
        f"{what} learns from clean videos, and there are only measured ones",
        hint="`--recipe adapt` learns from measurements alone",
    )
