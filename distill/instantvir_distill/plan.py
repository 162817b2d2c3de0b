"""What a run will cost, before it starts: counted on the modules themselves, on the meta device."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from instantvir_distill.config import DistillConfig, Phase, RunConfig, TeacherConfig
from instantvir_distill.optimizer import is_matrix
from instantvir_models.priors.flow import FlowConfig, FlowNetwork
from instantvir_models.priors.noise import PixelNoise
from instantvir_models.students.fused import FusedStudent, Start

FLOAT_BYTES = 4

CG_NOTE = "data consistency, fusion over time and the making of examples are not counted"


@dataclass(frozen=True, kw_only=True)
class NetworkPlan:
    """One network of a run."""

    name: str
    parameters: int
    learned: int
    """Of the parameters."""
    state_bytes: int
    """Weights, gradients, optimiser and average, for each worker that holds all of them."""
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
        out.append(
            f"in all {self.flop / 1e15:.3f} PFLOP, {self.bytes_per_worker / 2**20:,.0f} MiB a worker"
            " beside program and clips"
        )
        return [*out, CG_NOTE]


def planned(config: RunConfig, *, teacher: FlowConfig | None = None) -> Plan:
    """What `config` comes to; nothing is allocated.

    Args:
        teacher: size of the prior that teaches, where there is one.
    """
    if isinstance(config, TeacherConfig):
        network = _on_meta(lambda: FlowNetwork(config.network))
        made = _Counted("teacher", network, _prior_asked(network), learned="")
        return _plan(config, [made.planned(config)])
    assert isinstance(config, DistillConfig)
    student = _on_meta(lambda: FusedStudent(config.student))
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
            critic = _on_meta(lambda: FlowNetwork(teacher))
            networks.append(
                _Counted("critic", critic, _prior_asked(critic), learned="").planned(
                    config, times=1 + config.critic.updates_per_step
                )
            )
    return _plan(config, networks)


def _plan(config: RunConfig, networks: list[NetworkPlan]) -> Plan:
    return Plan(steps=config.steps, workers=config.workers, networks=tuple(networks))


Asked = Callable[[Phase], Tensor]


@dataclass(frozen=True)
class _Counted:
    """A network, and what a loss asks of it for one sample of a phase."""

    name: str
    network: nn.Module
    asked: Asked
    learned: str | None
    """What the names of its learned weights begin with; None where it stands still."""

    def planned(self, config: RunConfig, *, times: int = 1) -> NetworkPlan:
        for name, weight in self.network.named_parameters():
            weight.requires_grad_(self.learned is not None and name.startswith(self.learned))
        counts = [(phase, self._count(phase)) for phase in config.phases]
        flop = sum(phase.steps * phase.samples * one.flop for phase, one in counts) / config.steps
        saved = max(one.saved_bytes * -(-p.samples // config.workers) for p, one in counts)
        parameters = list(self.network.named_parameters())
        return NetworkPlan(
            name=self.name,
            parameters=sum(weight.numel() for _, weight in parameters),
            learned=sum(weight.numel() for _, weight in parameters if weight.requires_grad),
            state_bytes=FLOAT_BYTES * sum(_copies(n, w) * w.numel() for n, w in parameters),
            flop_per_step=times * flop,
            saved_bytes=saved,
        )

    def _count(self, phase: Phase) -> "_Count":
        saved: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            saved[id(tensor)] = tensor.numel() * tensor.element_size()
            kept.append(tensor)  # so that no other tensor gets its id
            return tensor

        kept: list[Tensor] = []
        counter = FlopCounterMode(display=False)
        with counter, saved_tensors_hooks(keep, lambda tensor: tensor):
            out = self.asked(phase)
            if out.requires_grad:
                out.sum().backward()
        return _Count(counter.get_total_flops(), sum(saved.values()))


@dataclass(frozen=True)
class _Count:
    flop: int
    saved_bytes: int


def _copies(name: str, weight: Tensor) -> int:
    """How many numbers a worker holds for each weight."""
    if not weight.requires_grad:
        return 1
    moments = 1 if is_matrix(name, weight) else 2
    return 1 + 1 + moments + 1  # weight, gradient, optimiser, average


def _on_meta(made: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return made()


def _prior_asked(network: nn.Module) -> Asked:
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
