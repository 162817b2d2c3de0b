"""One term whose teacher has seen y: no weight between fidelity and prior, noise is never copied.

The gradient is w (f - p) / r^2 with p = E[z | z_r, y] of the teacher and f the same of the
student's own outputs. Both sides are of one family, so the optimum is the posterior for every
weighting and every range of noise levels. A student without a noise input is a point for each y:
then f is its output, no critic is needed, and the optimum is the posterior mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch

from instantvir_distill.levels import NoiseLaw, score_weight
from instantvir_distill.losses import score_difference, with_gradient
from instantvir_distill.methods.base import (
    CriticSees,
    Example,
    Loss,
    Method,
    Networks,
    mean_of,
    noised,
)
from instantvir_distill.methods.scores import critic_loss, scaled
from instantvir_models.priors.posterior import denoise_given


@dataclass(frozen=True, kw_only=True)
class PosteriorTeacher(Method):
    """Score differences against a teacher that is given the measurement."""

    name: ClassVar[str] = "posterior_teacher"

    levels: NoiseLaw = field(default_factory=NoiseLaw)
    weight: Literal["kl", "vsd", "uniform"] = "kl"
    critic: Literal["none", "conditioned"] = "none"
    """`conditioned` for students with a noise input."""
    is_normalised: bool = True
    """Whether each example's gradient is brought to a root mean square of 1."""
    maps: bool = True
    """Whether a teacher that accepts noise levels for each coefficient is asked with them where holes or
    box means are known, which is exact; else its estimate is made consistent with y in closed form."""

    @property
    def needs_prior(self) -> bool:
        return True

    @property
    def critic_sees(self) -> CriticSees:
        return self.critic

    def loss(
        self, examples: Sequence[Example], networks: Networks, generator: torch.Generator
    ) -> Loss:
        prior, each = networks.prior, []
        for example, made in zip(examples, networks.restore(examples), strict=True):
            z = prior.encode(made.x_hat)
            with torch.no_grad():
                measurement = example.inside
                z_r, noise_std = noised(z, self.levels, generator)
                p = denoise_given(prior, z_r, noise_std, measurement, maps=self.maps)
                f = z if self.critic == "none" else networks.critic(z_r, noise_std, measurement)
                weight = score_weight(self.weight, noise_std)
                gradient = score_difference(f, p, noise_std, weight)
            each.append(with_gradient(z, scaled(gradient, is_normalised=self.is_normalised)))
        return mean_of(each)

    def critic_loss(
        self, examples: Sequence[Example], networks: Networks, generator: torch.Generator
    ) -> Loss:
        return critic_loss(examples, networks, self.levels, generator)
