"""Training runs that take a second: small students, small clips, a few steps."""

import numpy as np
import torch

from instantvir_distill.clips import Clip
from instantvir_distill.config import DistillConfig, Phase
from instantvir_distill.launch import Material, objective_of
from instantvir_distill.trainer import Trainer
from instantvir_models.priors.base import ErrorTable
from instantvir_models.priors.flow import FlowConfig, FlowNetwork, FlowPrior
from instantvir_models.students.fused import FusedConfig
from instantvir_models.tasks import TASKS

SMALL = DistillConfig(
    student=FusedConfig(fine_channels=16, coarse_channels=16, bottom_channels=32),
    phases=(
        Phase(steps=3, crop=24, frames=3, samples=4),
        Phase(steps=3, crop=32, frames=4, samples=4, frames_learned=2),
    ),
    mix=tuple(TASKS),
    workers=1,
    warmup_steps=2,
    lossy_fraction=0.0,  # the bundled x264 is not bit-reproducible on tiny frames
)  # fmt: skip

SMALL_PRIOR = FlowConfig(
    fine_channels=8, coarse_channels=16, bottom_channels=16, coarse_layers=1, bottom_layers=1
)


def clip(name, seed=0, size=(64, 80)):
    """A textured picture that moves, [12, *size, 3]."""
    rng = np.random.default_rng(seed)
    height, width = size
    coarse = torch.from_numpy(
        rng.random((1, 3, height * 10 // 64, width * 14 // 80), dtype=np.float32)
    )
    wide = torch.nn.functional.interpolate(coarse, size=(height, width + 12), mode="bicubic")
    pixels = (wide[0].clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
    return Clip(name, np.stack([pixels[:, t : t + width] for t in range(12)]))


def trainer(config, clips, folder):
    """A trainer of what `config` trains, in this process."""
    folder.mkdir(parents=True, exist_ok=True)
    return Trainer(config, objective_of(config, Material(clips=folder), clips), folder)


def small_prior():
    """A prior with weights that nobody trained."""
    torch.manual_seed(0)
    network = FlowNetwork(SMALL_PRIOR).eval().requires_grad_(False)
    return FlowPrior(network, ErrorTable((0.02, 0.2, 2.0), (0.015, 0.06, 0.3)))
