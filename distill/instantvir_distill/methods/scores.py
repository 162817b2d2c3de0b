"""What the methods with scores have in common."""

from collections.abc import Sequence

import torch
from torch import Tensor

from instantvir_distill.levels import NoiseLaw
from instantvir_distill.losses import denoising_error
from instantvir_distill.methods.base import Example, Loss, Networks, mean_of, noised

SIGNAL_STD = 0.5
"""Of what critics denoise, about; in the weight of their loss."""


def critic_loss(
    examples: Sequence[Example], networks: Networks, levels: NoiseLaw, generator: torch.Generator
) -> Loss:
    """How well the critic denoises what the student makes now; the student stands still."""
    with torch.no_grad():
        restored = [networks.prior.encode(one.x_hat) for one in networks.restore(examples)]
    each = []
    for example, z in zip(examples, restored, strict=True):
        z_r, noise_std = noised(z, levels, generator)
        f = networks.critic(z_r, noise_std, example.inside)
        each.append(denoising_error(f, z, noise_std, signal_std=SIGNAL_STD))
    return mean_of(each)


def scaled(gradient: Tensor, *, is_normalised: bool) -> Tensor:
    """`gradient` [1, T, C, H, W], with a root mean square of 1 if wanted: tasks then weigh alike."""
    if not is_normalised:
        return gradient
    return gradient / gradient.square().mean().sqrt().clamp_min(1e-12)
