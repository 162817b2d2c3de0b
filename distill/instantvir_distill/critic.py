"""The critic: a denoiser of the student's own outputs, whose score stands against the teacher's."""

import torch
from torch import Tensor, nn

from instantvir_models.operators.measurement import Measurement
from instantvir_models.priors.flow import FlowConfig, FlowNetwork
from instantvir_models.priors.noise import white
from instantvir_models.students.base import bounded_estimate

SEEN_CHANNELS = 4
"""Initial estimate, and which pixels were measured."""


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


def _shown(measurement: Measurement) -> Tensor:
    """[1, T, SEEN_CHANNELS, H, W]."""
    x_init = bounded_estimate(measurement)
    known = measurement.operator.known_pixels(measurement.y)
    known = torch.ones_like(x_init[:, :, :1]) if known is None else known.to(x_init)
    return torch.cat([x_init, known.expand(*x_init.shape[:2], 1, *x_init.shape[-2:])], 2)
