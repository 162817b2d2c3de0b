"""The published training code as it is, for comparison; where it departs from its paper, so does this.

- a clean frame in the loss, with weight 1 in most published configurations
- the measurement is compared in the teacher's latent space, with the identity in place of the operator
- the score difference is DMD's, with a critic that does not see the measurement, at noise levels of
  a schedule shifted by 8

What is not followed: its critic is trained on outputs of another kind of generator (from noised
clean latents), and bfloat16 optimiser states.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from instantvir_distill.levels import NoiseLaw
from instantvir_distill.losses import unit_difference, with_gradient
from instantvir_distill.methods.base import (
    CleanExample,
    CriticSees,
    Example,
    Loss,
    Method,
    Networks,
    mean_of,
    noised,
)
from instantvir_distill.methods.scores import critic_loss
from instantvir_models.operators.compose import Identity
from instantvir_models.operators.measurement import Degradation, Measurement
from instantvir_models.operators.prior import initial_estimate
from instantvir_models.priors.noise import white


@dataclass(frozen=True, kw_only=True)
class Released(Method):
    """Clean latents, measured latents and DMD, summed."""

    name: ClassVar[str] = "released"

    measurement_weight: float = 1.0
    clean_weight: float = 1.0
    levels: NoiseLaw = field(
        default_factory=lambda: NoiseLaw(law="shifted_flow", low=0.02, high=0.98)
    )

    @property
    def reads_clean(self) -> bool:
        return True

    @property
    def needs_prior(self) -> bool:
        return True

    @property
    def keeps_targets(self) -> bool:
        return True

    @property
    def critic_sees(self) -> CriticSees:
        return "blind"

    def loss(
        self, examples: Sequence[Example], networks: Networks, generator: torch.Generator
    ) -> Loss:
        prior, each = networks.prior, []
        for example, made in zip(examples, networks.restore(examples), strict=True):
            assert isinstance(example, CleanExample)
            measurement = example.inside
            z = prior.encode(made.x_hat)
            with torch.no_grad():
                z_r, noise_std = noised(z, self.levels, generator)
                p = prior.denoise(z_r, white(noise_std, dtype=z.dtype))
                f = networks.critic(z_r, noise_std, measurement)
                clean = _latents(example.x, networks)
                measured = _latents(initial_estimate(measurement), networks)
            each.append(
                with_gradient(z, unit_difference(f, p, z))
                + self.measurement_weight * (z - measured).square().mean()
                + self.clean_weight * (z - clean).square().mean()
            )
        return mean_of(each)

    def critic_loss(
        self, examples: Sequence[Example], networks: Networks, generator: torch.Generator
    ) -> Loss:
        return critic_loss(examples, networks, self.levels, generator)


def _latents(x: Tensor, networks: Networks) -> Tensor:
    """Those of frames [1, T, 3, H, W] that may have been encoded before."""
    as_it_is = Measurement(x, Degradation(operator=Identity(), noise_std=0.0))
    return networks.kept("latents", as_it_is, partial(networks.prior.encode, x))
