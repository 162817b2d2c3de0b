"""The paper's objective: fidelity to y, and the prior through a difference of scores.

    KL(q(x|y) || p(x|y)) = E_q[-log p(y|x)] + KL(q(x|y) || p(x)) + const

The second term is a difference of scores (4), of the student's outputs and of natural video. A
critic that does not see y learns the score of outputs over all y and so rewards copying y: on noisy
tasks its optimum is provably short of the posterior mean. For a student without a noise input the
critic that sees y has nothing to learn, its optimum is the output itself (`self`: amortised
RED-diff). Best from a warm start and anchored to it; from zero the critic learns the noise that is
left and cancels the force that should remove it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from instantvir_distill.levels import NoiseLaw, score_weight
from instantvir_distill.losses import (
    fisher,
    score_difference,
    unit_difference,
    with_gradient,
)
from instantvir_distill.methods.base import (
    CriticSees,
    Example,
    Loss,
    Method,
    Networks,
    Reconstruction,
    mean_of,
    noised,
)
from instantvir_distill.methods.faithful import Faithful
from instantvir_distill.methods.scores import critic_loss, scaled
from instantvir_models.operators.measurement import Measurement
from instantvir_models.priors.noise import white

Score = Literal["self", "blind", "conditioned"]


@dataclass(frozen=True, kw_only=True)
class Variational(Faithful, Method):
    """Likelihood, score difference, and an anchor; every weight is a setting."""

    name: ClassVar[str] = "variational"

    critic: Score = "blind"
    """Whose score stands against the prior's: the output itself, or a critic that sees y or not."""
    divergence: Literal["kl", "fisher"] = "kl"
    """Gradient of the divergence between noisy marginals, (4), or of the mean squared difference of
    scores as the paper writes it, (12): that goes through teacher and critic, three times the cost."""
    prior_weight: float = 1.0
    levels: NoiseLaw = field(default_factory=NoiseLaw)
    weight: Literal["kl", "vsd", "uniform", "dmd"] = "kl"
    """Of noise levels; `dmd` divides by the distance from the teacher's estimate instead."""
    is_normalised: bool = False
    """Whether each example's score difference is brought to a root mean square of 1."""
    task_scale: Mapping[str, float] = field(default_factory=dict)
    """Factor on the prior's gradient by task, 1 elsewhere: tasks without noise have no likelihood."""

    @property
    def needs_prior(self) -> bool:
        return True

    @property
    def critic_sees(self) -> CriticSees:
        return "none" if self.critic == "self" else self.critic

    def loss(
        self, examples: Sequence[Example], networks: Networks, generator: torch.Generator
    ) -> Loss:
        restored = networks.restore(examples)
        each = [
            self.faithful(made, example.inside) + self._prior(made, example, networks, generator)
            for example, made in zip(examples, restored, strict=True)
        ]
        return mean_of(self.anchored(each, restored, examples, networks))

    def critic_loss(
        self, examples: Sequence[Example], networks: Networks, generator: torch.Generator
    ) -> Loss:
        return critic_loss(examples, networks, self.levels, generator)

    def __post_init__(self) -> None:
        if self.divergence == "fisher" and self.weight != "kl":
            raise ValueError(
                f"`weight` is of the divergence `kl`, so `{self.weight}` has no effect"
            )

    def _prior(
        self,
        made: Reconstruction,
        example: Example,
        networks: Networks,
        generator: torch.Generator,
    ) -> Tensor:
        z = networks.prior.encode(made.x_hat)
        with torch.no_grad():
            gradient = self._difference(z, example.inside, networks, generator)
            gradient = scaled(gradient, is_normalised=self.is_normalised)
            scale = self.prior_weight * self.task_scale.get(example.task, 1.0)
        return with_gradient(z, scale * gradient)

    def _difference(
        self, z: Tensor, measurement: Measurement, networks: Networks, generator: torch.Generator
    ) -> Tensor:
        if self.divergence == "fisher":
            return self._fisher_gradient(z, measurement, networks, generator)
        z_r, noise_std = noised(z, self.levels, generator)
        f, p = self._means(z, z_r, noise_std, measurement, networks)
        if self.weight == "dmd":
            return unit_difference(f, p, z)
        return score_difference(f, p, noise_std, score_weight(self.weight, noise_std))

    def _fisher_gradient(
        self, z: Tensor, measurement: Measurement, networks: Networks, generator: torch.Generator
    ) -> Tensor:
        """Of each video with respect to z; the weights of teacher and critic gather no gradient."""
        with torch.enable_grad():
            here = z.detach().requires_grad_()
            z_r, noise_std = noised(here, self.levels, generator)
            f, p = self._means(here, z_r, noise_std, measurement, networks)
            (gradient,) = torch.autograd.grad(fisher(f, p, here, noise_std), here)
        return gradient * z.numel()

    def _means(
        self,
        z: Tensor,
        z_r: Tensor,
        noise_std: Tensor,
        measurement: Measurement,
        networks: Networks,
    ) -> tuple[Tensor, Tensor]:
        """E[z | z_r] of the student's outputs and of natural video."""
        p = networks.prior.denoise(z_r, white(noise_std, dtype=z.dtype))
        f = z if self.critic == "self" else networks.critic(z_r, noise_std, measurement)
        return f, p


def red_diff() -> Variational:
    """RED-diff (Mardani et al., 2023), amortised: no critic, low noise, likelihood up to the noise."""
    return Variational(critic="self", levels=NoiseLaw(low=0.03, high=0.3))
