"""A prior term by comparison: heads on the frozen teacher's features tell outputs from natural video.

Outputs and clean clips of *other* videos get the same noise, the teacher looks at both, and small
heads on what it makes of them on its way say which is which, place by place (LADD, Sauer et al.,
2024). No clean frame belongs to a measurement, but there have to be clean frames: the method is
unpaired, not free of ground truth. From a warm start, anchored to it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from instantvir_distill.levels import NoiseLaw
from instantvir_distill.losses import hinge, unnaturalness, with_gradient
from instantvir_distill.methods.base import (
    CriticSees,
    Example,
    Loss,
    Method,
    Networks,
    at_level,
    mean_of,
    noised,
)
from instantvir_distill.methods.faithful import Faithful
from instantvir_distill.methods.scores import scaled


@dataclass(frozen=True, kw_only=True)
class Adversarial(Faithful, Method):
    """Likelihood, what the heads hold against an output, and an anchor."""

    name: ClassVar[str] = "adversarial"

    anchor_weight: float = 0.25
    prior_weight: float = 1.0
    levels: NoiseLaw = field(default_factory=lambda: NoiseLaw(low=0.02, high=0.3))
    is_normalised: bool = True
    """Whether each example's gradient is brought to a root mean square of 1."""
    task_scale: Mapping[str, float] = field(default_factory=dict)
    """Factor on the prior's gradient by task, 1 elsewhere."""

    @property
    def needs_natural(self) -> bool:
        return True

    @property
    def needs_prior(self) -> bool:
        return True

    @property
    def critic_sees(self) -> CriticSees:
        return "features"

    def loss(
        self, examples: Sequence[Example], networks: Networks, generator: torch.Generator
    ) -> Loss:
        restored = networks.restore(examples)
        each = []
        for example, made in zip(examples, restored, strict=True):
            z = networks.prior.encode(made.x_hat)
            gradient = self._gradient(z.detach(), example, networks, generator)
            scale = self.prior_weight * self.task_scale.get(example.task, 1.0)
            each.append(self.faithful(made, example.inside) + with_gradient(z, scale * gradient))
        return mean_of(self.anchored(each, restored, examples, networks))

    def _gradient(
        self, z: Tensor, example: Example, networks: Networks, generator: torch.Generator
    ) -> Tensor:
        """Of what the heads hold against z; their own weights gather none."""
        here = z.requires_grad_()
        z_r, noise_std = noised(here, self.levels, generator)
        held = unnaturalness(networks.critic(z_r, noise_std, example.inside))
        (gradient,) = torch.autograd.grad(held, here)
        return scaled(gradient * z.numel(), is_normalised=self.is_normalised)

    def critic_loss(
        self, examples: Sequence[Example], networks: Networks, generator: torch.Generator
    ) -> Loss:
        with torch.no_grad():
            restored = [made.x_hat for made in networks.restore(examples)]
            natural = [networks.natural(x_hat) for x_hat in restored]
        each = []
        for example, of_student, of_nature in zip(examples, restored, natural, strict=True):
            # the same for both, or it would tell them apart
            noise_std = self.levels.drawn(1, generator).to(of_student)
            told = [
                networks.critic(at_level(z, noise_std, generator), noise_std, example.inside)
                for z in map(networks.prior.encode, (of_nature, of_student))
            ]
            each.append(hinge(*told))
        return mean_of(each)
