"""What a run will cost, before it starts: counted on the modules themselves, on the meta device."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from instantvir_distill.config import (
    CriticConfig,
    DistillConfig,
    Phase,
    RunConfig,
    TeacherConfig,
    WanSize,
)
from instantvir_distill.critic import FeatureHeads
from instantvir_distill.optimizer import is_matrix
from instantvir_distill.parallel import Layout
from instantvir_models.autoencoders.base import SPATIAL_FACTOR, TEMPORAL_FACTOR
from instantvir_models.autoencoders.lean import LeanConfig, LeanVAE
from instantvir_models.autoencoders.wan import WanVAE, WanVaeConfig
from instantvir_models.priors.base import ErrorTable
from instantvir_models.priors.flow import FlowConfig, FlowNetwork, FlowPrior
from instantvir_models.priors.noise import PixelNoise
from instantvir_models.priors.wan import WanPrior, denoised
from instantvir_models.students.base import Conditioning
from instantvir_models.students.fused import FusedStudent, Start
from instantvir_models.students.text import TextRows
from instantvir_models.students.wan.settings import WanSettings
from instantvir_models.students.wan.student import WanStudent
from instantvir_models.students.wan.transformer import WanConfig, WanTransformer

FLOAT_BYTES = 4

CARD_FLOPS = {"fastest": 312e12, "float32": 19.5e12}
"""An A100's by `compute`, in bfloat16 and in float32, as its maker says."""

CARD_SHARE = 0.4
"""Of the peak that training is taken to reach; an assumption."""

NOT_COUNTED = "data consistency, fusion over time and the making of examples are not counted"


@dataclass(frozen=True, kw_only=True)
class NetworkPlan:
    """One network of a run."""

    name: str
    parameters: int
    learned: int
    """Of the parameters."""
    state_bytes: int
    """Weights, gradients, optimiser and average that one worker holds, and weights beside them that
    stand still, such as an autoencoder's."""
    flop_per_step: float
    """Forward and backward (or forward alone, where it stands still), over all workers."""
    saved_bytes: int
    """What the forward pass of one worker keeps for the backward pass, at the largest phase."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run."""

    steps: int
    workers: int
    networks: tuple[NetworkPlan, ...]
    card_flops: float | None = None
    """Peak of the card that it runs on; None where it runs on processors."""

    @property
    def bytes_per_worker(self) -> int:
        """Weights, optimisers and activations; the program and the clips come on top."""
        return sum(network.state_bytes + network.saved_bytes for network in self.networks)

    @property
    def flop(self) -> float:
        """Of the whole run."""
        return self.steps * sum(network.flop_per_step for network in self.networks)

    def lines(self) -> list[str]:
        """For a person."""
        out = [f"{self.steps} steps, {self.workers} worker{'s' * (self.workers > 1)}"]
        for one in self.networks:
            learned = "all" if one.learned == one.parameters else f"{one.learned:,}"
            learned = learned if one.learned else "none"
            out.append(
                f"{one.name}: {one.parameters:,} parameters ({learned} learned), "
                f"{one.flop_per_step / 1e12:.3f} TFLOP a step, "
                f"{(one.state_bytes + one.saved_bytes) / 2**20:,.0f} MiB a worker"
            )
        if self.card_flops is not None:
            days = self.flop / self.workers / (CARD_SHARE * self.card_flops) / 86400
            out.append(
                f"{days:.1f} days on {self.workers} A100 that reach {CARD_SHARE:.0%} of their peak of "
                f"{self.card_flops / 1e12:g} TFLOP/s"
            )
        out.append(
            f"in all {self.flop / 1e15:.3f} PFLOP, {self.bytes_per_worker / 2**20:,.0f} MiB a worker"
            " beside program and clips"
        )
        return [*out, NOT_COUNTED]


@dataclass(frozen=True, kw_only=True)
class WanTeacherSize:
    """A published transformer that teaches; the defaults are Wan2.1-T2V-1.3B."""

    transformer: WanConfig = field(default_factory=WanConfig)
    autoencoder: LeanConfig | WanVaeConfig = field(default_factory=WanVaeConfig)


Asked = Callable[[Phase], Tensor]


def planned(config: RunConfig, *, teacher: FlowConfig | WanTeacherSize | None = None) -> Plan:
    """What `config` comes to; nothing is allocated.

    Args:
        teacher: size of the prior that teaches, where there is one.
    """
    if isinstance(config, TeacherConfig):
        network = _on_meta(lambda: FlowNetwork(config.network))
        made = _Counted("teacher", network, _prior_asked(network), learned="")
        return _plan(config, [made.planned(config)])
    assert isinstance(config, DistillConfig)
    if isinstance(config.student, WanSize):
        return _plan(config, _full_size(config, config.student, teacher))
    assert not isinstance(teacher, WanTeacherSize)
    size = config.student
    student = _on_meta(lambda: FusedStudent(size))
    networks = [
        _Counted("student", student, _student_asked(student), learned=config.learned).planned(
            config
        )
    ]
    if teacher is not None:
        prior = _on_meta(lambda: FlowNetwork(teacher)).requires_grad_(False)
        networks.append(
            _Counted("teacher", prior, _prior_asked(prior), learned=None).planned(config)
        )
        if config.critic is not None:
            networks.append(_planned_critic(config, config.critic, prior))
    return _plan(config, networks)


def _planned_critic(config: DistillConfig, critic: CriticConfig, prior: FlowNetwork) -> NetworkPlan:
    if config.method.critic_sees != "features":
        network = _on_meta(lambda: FlowNetwork(prior.config))
        counted = _Counted("critic", network, _prior_asked(network), learned="", is_averaged=False)
        return counted.planned(config, times=1 + critic.updates_per_step)
    teacher = FlowPrior(prior, ErrorTable((1.0,), (1.0,)))
    heads = _on_meta(lambda: FeatureHeads(teacher))
    counted = _Counted("heads", heads, _prior_asked(heads.told), learned="", is_averaged=False)
    return counted.planned(config, times=1 + 2 * critic.updates_per_step)


def _plan(config: RunConfig, networks: list[NetworkPlan]) -> Plan:
    return Plan(
        steps=config.steps,
        workers=config.workers,
        networks=tuple(networks),
        card_flops=CARD_FLOPS[config.compute] if config.device == "cuda" else None,
    )


def _full_size(
    config: DistillConfig, size: WanSize, teacher: FlowConfig | WanTeacherSize | None
) -> list[NetworkPlan]:
    """Student, teacher and critic; what autoencoders compute counts as that of whose they are."""
    autoencoder = _autoencoder(size.autoencoder_config, recompute=config.recompute)
    student = WanStudent(
        _on_meta(lambda: WanTransformer(size.transformer)),
        autoencoder,
        WanSettings(latents_per_block=size.latents_per_block),
        _no_words(size.transformer),
    )
    student.transformer.recomputes_layers = config.recompute
    networks = [
        _Counted(
            "student", student.transformer, _sequence_asked(student), learned="",
            beside=autoencoder,
        ).planned(config)
    ]  # fmt: skip
    if not isinstance(teacher, WanTeacherSize):
        return networks
    autoencoder = _autoencoder(teacher.autoencoder, recompute=config.recompute)
    prior = WanPrior(
        _on_meta(lambda: WanTransformer(teacher.transformer)),
        autoencoder,
        _no_words(teacher.transformer),
        _no_words(teacher.transformer),
        guidance=config.teacher_guidance,
    )
    networks.append(
        _Counted(
            "teacher", prior.transformer, _teaching_asked(prior), learned=None,
            beside=autoencoder,
        ).planned(config)
    )  # fmt: skip
    if config.critic is not None:
        critic = _on_meta(lambda: WanTransformer(teacher.transformer))
        critic.recomputes_layers = config.recompute
        networks.append(
            _Counted(
                "critic", critic, _critic_asked(student, prior, critic), learned="",
                look=_look(critic), is_averaged=False,
            ).planned(config, times=config.critic.updates_per_step)
        )  # fmt: skip
    return networks


def _no_words(config: WanConfig) -> TextRows:
    return TextRows(torch.empty(1, 0, config.text_dim, device="meta"), config.text_len)


def _autoencoder(config: LeanConfig | WanVaeConfig, *, recompute: bool) -> LeanVAE | WanVAE:
    def made_of_nothing() -> LeanVAE | WanVAE:
        return LeanVAE(config) if isinstance(config, LeanConfig) else WanVAE(config)

    made = _on_meta(made_of_nothing)
    made.recomputes_layers = recompute
    return made.requires_grad_(False)


def _clip(phase: Phase) -> Tensor:
    return torch.empty(1, phase.frames, 3, phase.crop, phase.crop, device="meta")


def _sequence_asked(student: WanStudent) -> Asked:
    def asked(phase: Phase) -> Tensor:
        y = _clip(phase)
        shown = Conditioning(y, y, y[:, :, :1], torch.empty(1, 0, device="meta"))
        return student.restore_sequence(shown).x_hat

    return asked


def _teaching_asked(prior: WanPrior) -> Asked:
    """Encoding of what the student made, with a gradient; then a look without one."""

    def asked(phase: Phase) -> Tensor:
        z = prior.encode(_clip(phase).requires_grad_())
        with torch.no_grad():
            looks = [_velocity(prior.transformer, z) for _ in range(1 + (prior.guidance != 1))]
        return z + sum(looks)

    return asked


def _critic_asked(student: WanStudent, prior: WanPrior, critic: WanTransformer) -> Asked:
    """The student makes what the critic learns from, at each of its updates."""
    made = _sequence_asked(student)

    def asked(phase: Phase) -> Tensor:
        with torch.no_grad():
            z = prior.encode(made(phase))
        return _velocity(critic, z)

    return asked


def _look(critic: WanTransformer) -> Asked:
    """The score of what the student made; the latents of that are the teacher's to count."""

    @torch.no_grad()
    def asked(phase: Phase) -> Tensor:
        length, side = 1 + (phase.frames - 1) // TEMPORAL_FACTOR, phase.crop // SPATIAL_FACTOR
        channels = critic.config.latent_channels
        return _velocity(critic, torch.empty(1, length, channels, side, side, device="meta"))

    return asked


def _velocity(transformer: WanTransformer, z: Tensor) -> Tensor:
    return denoised(transformer, z, 1.0, _no_words(transformer.config))


@dataclass(frozen=True)
class _Counted:
    """A network, and what a loss asks of it for one sample of a phase."""

    name: str
    network: nn.Module
    asked: Asked
    learned: str | None
    """What the names of its learned weights begin with; None where it stands still."""
    look: Asked | None = None
    """What is asked of it once a step besides, without learning."""
    is_averaged: bool = True
    beside: nn.Module | None = None
    """Stands still, and every worker has all of it."""

    def planned(self, config: RunConfig, *, times: float = 1) -> NetworkPlan:
        for name, weight in self.network.named_parameters():
            learned = self.learned is not None and name.startswith(tuple(self.learned.split(",")))
            weight.requires_grad_(learned)
        counts = [(phase, self._count(self.asked, phase)) for phase in config.phases]
        flop = sum(
            phase.steps * phase.samples * (times * one.flop + self._look_flop(phase))
            for phase, one in counts
        )
        parts = config.workers * config.accumulate
        saved = max(one.saved_bytes * -(-p.samples // parts) for p, one in counts)
        parameters = list(self.network.named_parameters())
        return NetworkPlan(
            name=self.name,
            parameters=sum(weight.numel() for _, weight in parameters),
            learned=sum(weight.numel() for _, weight in parameters if weight.requires_grad),
            state_bytes=FLOAT_BYTES * self._numbers_held(config),
            flop_per_step=flop / config.steps,
            saved_bytes=saved,
        )

    def _numbers_held(self, config: RunConfig) -> int:
        """By one worker; only what learns is shared out."""
        copies = sum(
            (_copies(name, weight, config.layout) - (weight.requires_grad and not self.is_averaged))
            * weight.numel()
            for name, weight in self.network.named_parameters()
        )
        is_sharded = config.layout == "sharded" and self.learned is not None
        beside = () if self.beside is None else self.beside.parameters()
        return copies // (config.workers if is_sharded else 1) + sum(w.numel() for w in beside)

    def _look_flop(self, phase: Phase) -> int:
        return 0 if self.look is None else self._count(self.look, phase).flop

    def _count(self, asked: Asked, phase: Phase) -> "_Count":
        saved: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            saved[id(tensor)] = _bytes(tensor)
            kept.append(tensor)  # so that no other tensor gets its id
            return tensor

        kept: list[Tensor] = []
        counter = FlopCounterMode(display=False)
        with counter:
            with (
                saved_tensors_hooks(keep, lambda tensor: tensor),
                _kept_of_layers(self.network, self.beside) as of_layers,
            ):
                out = asked(phase)
            if out.requires_grad:
                out.sum().backward()
        return _Count(counter.get_total_flops(), sum(saved.values()) + sum(of_layers))


@contextmanager
def _kept_of_layers(*networks: nn.Module | None) -> Iterator[list[int]]:
    """Bytes of what layers are given that are computed again: hooks on tensors do not see it."""
    sizes: list[int] = []

    def count(layer: nn.Module, given: tuple[object, ...]) -> None:
        sizes.append(sum(_bytes(one) for one in given[:2]))

    layers = [layer for network in networks for layer in _computed_again(network)]
    handles = [layer.register_forward_pre_hook(count) for layer in layers]
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()


def _computed_again(network: nn.Module | None) -> list[nn.Module]:
    if isinstance(network, WanTransformer) and network.recomputes_layers:
        return list(network.blocks)
    if isinstance(network, WanVAE | LeanVAE) and network.recomputes_layers:
        return network.computed_again
    return []


def _bytes(given: object) -> int:
    return given.numel() * given.element_size() if isinstance(given, Tensor) else 0


@dataclass(frozen=True)
class _Count:
    flop: int
    saved_bytes: int


def _copies(name: str, weight: Tensor, layout: Layout) -> int:
    """How many numbers workers hold for each weight."""
    if not weight.requires_grad:
        return 1
    moments = 1 if layout == "replicated" and is_matrix(name, weight) else 2
    return 1 + 1 + moments + 1  # weight, gradient, optimiser, average


NetworkT = TypeVar("NetworkT", bound=nn.Module)


def _on_meta(made: Callable[[], NetworkT]) -> NetworkT:
    with torch.device("meta"):
        return made()


def _prior_asked(network: Callable[..., Tensor]) -> Asked:
    def asked(phase: Phase) -> Tensor:
        z = torch.empty(1, phase.frames, 3, phase.crop, phase.crop, device="meta")
        return network(z, PixelNoise(torch.empty(1, 1, 1, 1, 1, device="meta")))

    return asked


def _student_asked(student: nn.Module) -> Asked:
    assert isinstance(student, FusedStudent)

    def asked(phase: Phase) -> Tensor:
        count = min(phase.frames_learned, phase.frames)
        sizes = {
            "x_init": 3,
            "x_bar": 3,
            "variance_init": 1,
            "variance": 1,
            "y_view": 3,
            "known": 1,
        }
        shown = {
            name: torch.empty(count, channels, phase.crop, phase.crop, device="meta")
            for name, channels in sizes.items()
        }
        traits = torch.empty(count, len(student.config.traits), device="meta")
        return student.refine(Start(**shown, traits=traits)).x_hat

    return asked
