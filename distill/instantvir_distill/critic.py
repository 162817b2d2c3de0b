"""Critics: a denoiser of the student's own outputs, whose score stands against the teacher's, or heads
on the teacher's features that tell outputs from natural video."""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from instantvir_distill.methods.base import CriticSees
from instantvir_models.errors import UsageError
from instantvir_models.operators.measurement import Measurement
from instantvir_models.priors.base import Prior
from instantvir_models.priors.flow import FlowConfig, FlowNetwork, FlowPrior
from instantvir_models.priors.noise import NoiseLevel, white
from instantvir_models.priors.wan import WanPrior, denoised
from instantvir_models.students.base import bounded_estimate
from instantvir_models.students.layers import normed
from instantvir_models.students.text import TextRows
from instantvir_models.students.wan.transformer import WanTransformer

SEEN_CHANNELS = 4
"""Initial estimate, and which pixels were measured."""

_SEEN_BY_NONE = {"conditioned": "the measurement", "features": "the teacher's features"}

HEAD_WIDTH = 64
"""Channels of the heads on a teacher's features."""


class BlindCritic(nn.Module):
    """Sees noisy outputs alone: learns the score of outputs over all measurements."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.network = FlowNetwork(config)

    def forward(self, z_r: Tensor, noise_std: Tensor, measurement: Measurement) -> Tensor:
        return self.network(z_r, white(noise_std))


class ConditionedCritic(nn.Module):
    """Sees the measurement too: learns the score of outputs for that measurement."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        if config.seen_channels != SEEN_CHANNELS:
            raise ValueError(f"a critic that sees y has {SEEN_CHANNELS} channels for it")
        self.network = FlowNetwork(config)

    def forward(self, z_r: Tensor, noise_std: Tensor, measurement: Measurement) -> Tensor:
        return self.network(z_r, white(noise_std), _shown(measurement))


class FeatureHeads(nn.Module):
    """Says how natural each place of a noisy video is, from what a frozen teacher makes of it."""

    def __init__(self, teacher: FlowPrior) -> None:
        super().__init__()
        size = teacher.network.config
        widths = size.fine_channels, size.coarse_channels, size.bottom_channels
        self.heads = nn.ModuleList(_head(width) for width in widths)
        # a method, so the teacher's weights are not among its own
        self._features = teacher.features

    def forward(self, z_r: Tensor, noise_std: Tensor, measurement: Measurement) -> Tensor:
        return self.told(z_r, white(noise_std))

    def told(self, z_r: Tensor, noise: NoiseLevel) -> Tensor:
        """[n], those of all places at 1/2, 1/4 and 1/8 size: the larger, the more natural."""
        seen = self._features(z_r, noise)
        return torch.cat(
            [head(normed(x)).flatten() for head, x in zip(self.heads, seen, strict=True)]
        )


def _head(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, HEAD_WIDTH, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(HEAD_WIDTH, HEAD_WIDTH, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(HEAD_WIDTH, 1, 1),
    )


class WanCritic(nn.Module):
    """A blind critic in latents: a Wan transformer that learns the score of outputs."""

    def __init__(self, transformer: WanTransformer, text: TextRows) -> None:
        super().__init__()
        self.transformer, self.text = transformer, text

    @property
    def blocks(self) -> nn.ModuleList:
        """Its layers, which are sharded one by one."""
        return self.transformer.blocks

    def forward(self, z_r: Tensor, noise_std: Tensor, measurement: Measurement) -> Tensor:
        return denoised(self.transformer, z_r, float(noise_std), self.text).to(z_r)


def first_critic(
    sees: CriticSees, prior: Prior | None, *, recompute: bool = False
) -> BlindCritic | ConditionedCritic | FeatureHeads | WanCritic | None:
    """A critic that starts as the teacher, or heads on its features; None where none is learned. What learns is
    float32, from a full-size teacher's weights in the type that it multiplies in.

    Raises:
        UsageError: if there is no critic of that kind for this teacher.
    """
    if sees == "none":
        return None
    if isinstance(prior, WanPrior):
        if sees != "blind":
            raise UsageError(
                f"a critic of latents that sees {_SEEN_BY_NONE[sees]} is not built",
                hint="`--set method=variational --set method.critic=blind`, or `self` for none",
            )
        transformer = copy.deepcopy(prior.transformer).float().train().requires_grad_(True)
        transformer.recomputes_layers = recompute
        return WanCritic(transformer, prior.text)
    if not isinstance(prior, FlowPrior):
        raise UsageError("a critic starts as its teacher, which has to be a network")
    if sees == "features":
        return FeatureHeads(prior)
    size, weights = prior.network.config, prior.network.state_dict()
    critic = (
        BlindCritic(size)
        if sees == "blind"
        else ConditionedCritic(replace(size, seen_channels=SEEN_CHANNELS))
    )
    critic.network.load_state_dict(weights, strict=False)
    return critic


def _shown(measurement: Measurement) -> Tensor:
    """[1, T, SEEN_CHANNELS, H, W]."""
    x_init = bounded_estimate(measurement)
    known = measurement.operator.known_pixels(measurement.y)
    known = torch.ones_like(x_init[:, :, :1]) if known is None else known.to(x_init)
    return torch.cat([x_init, known.expand(*x_init.shape[:2], 1, *x_init.shape[-2:])], 2)
