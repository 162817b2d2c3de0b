"""How a tiny video prior is made: clean clips, noise of every kind, one denoiser."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from instantvir_distill.config import TeacherConfig
from instantvir_distill.data import Sampler
from instantvir_distill.learner import Learner, Rates
from instantvir_distill.parallel import rank, world_size
from instantvir_models.checkpoints.prior import load_prior, save_prior
from instantvir_models.cpu import fastest_dtype
from instantvir_models.outputs.claim import new_file
from instantvir_models.priors.base import ErrorTable, Prior
from instantvir_models.priors.flow import SIGNAL_STD, FlowNetwork, FlowPrior
from instantvir_models.priors.noise import NoiseLevel, PixelNoise, PooledNoise, white

TEACHER = "teacher"

WEIGHTS = "teacher.safetensors"

FACTORS = (2, 4)
"""Boxes whose means are less noisy in some of the samples."""

LEAST_KNOWN = 0.002
"""Least noise of pixels, or means, that are known better than the rest."""

MEASURED_LEVELS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Noise levels at which the errors of a prior are measured."""


class Teaching:
    """Owns the prior under training and its samples."""

    def __init__(self, config: TeacherConfig, sampler: Sampler) -> None:
        torch.manual_seed(config.seed)
        self.config, self.sampler = config, sampler
        self.network = _first_network(config)
        self.learners: Mapping[str, Learner] = {
            TEACHER: Learner(
                self.network,
                Rates(
                    muon_lr=config.muon_lr,
                    adam_lr=config.adam_lr,
                    max_gradient_norm=config.max_gradient_norm,
                    spike=config.spike,
                    ema_decay=config.ema_decay,
                ),
                layout=config.layout,
            )
        }
        self._dtype = fastest_dtype() if config.compute == "fastest" else torch.float32

    def prepare(self, step: int) -> None:
        self.sampler.seed(self.config.seed, rank(), step)

    def ask(self, name: str, step: int, update: int, part: int) -> tuple[Tensor, ...]:
        phase = self.config.phase_at(
            step
        )  # each part draws on, so that all have samples of their own
        count = phase.samples // world_size() // self.config.accumulate
        each = [self._error(self.sampler.clean(phase.crop, phase.frames)) for _ in range(count)]
        return torch.stack(each).mean(), *each

    def _error(self, x: Tensor) -> Tensor:
        """The loss on one video, at a level that was drawn for it."""
        noise = self.drawn_noise(x)
        z = x + noise.drawn(x, self.sampler.generator)
        dtype = self._dtype
        with torch.autocast("cpu", dtype=dtype, enabled=dtype == torch.bfloat16):
            x_hat = self.network(z, noise)
        # what is left to know, coefficient by coefficient: the weight of (3) where noise differs
        floor = self.config.weight_floor
        error = noise.apply(lambda std: _root_weight(std.clamp_min(floor)), x_hat - x)
        return error.square().mean()

    def drawn_noise(self, x: Tensor) -> NoiseLevel:
        """A level for x [1, T, 3, H, W], the same everywhere or not."""
        rng, config = self.sampler.rng, self.config
        law = config.wide_levels if rng.random() < config.wide_share else config.levels
        std = law.drawn(1, self.sampler.generator)
        if rng.random() >= config.map_share:
            return white(std)
        known = torch.exp(
            torch.tensor(rng.uniform(np.log(LEAST_KNOWN), np.log(max(LEAST_KNOWN, float(std)))))
        ).float()
        high = white(config.wide_levels.high if rng.random() < 0.5 else std).std
        if rng.random() < 0.5:
            return PooledNoise(high, known.view_as(high), int(rng.choice(FACTORS)))
        frames = x.shape[1] if rng.random() < 0.5 else 1
        kept = rng.random((1, frames, 1, *x.shape[-2:])) < rng.uniform(0.1, 0.95)
        return PixelNoise(torch.where(torch.from_numpy(kept), known, high))

    def shown(self, name: str, asked: tuple[Tensor, ...]) -> dict[str, float]:
        return {TEACHER: float(asked[0].detach())}

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing: what is random belongs to the step."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing."""

    def write(self, folder: Path) -> None:
        """The averaged prior with its measured errors, `teacher.safetensors`."""
        average = self.learners[TEACHER].whole_average()
        if rank() != 0:
            return
        network = FlowNetwork(self.network.config)
        network.load_state_dict(average)
        prior = FlowPrior(network.eval().requires_grad_(False), ErrorTable((1.0,), (1.0,)))
        errors = measured_errors(prior, self._validation())
        with new_file(folder / WEIGHTS, may_replace=True) as unfinished:
            save_prior(FlowPrior(network, errors), unfinished)

    def _validation(self) -> list[Tensor]:
        """The same few clean crops each time."""
        phase = self.config.phases[-1]
        self.sampler.seed(self.config.seed, 2**31)
        return [self.sampler.clean(phase.crop, phase.frames) for _ in range(4)]


@torch.no_grad()
def measured_errors(prior: Prior, clean: Sequence[Tensor]) -> ErrorTable:
    """Root mean squared error of `prior` at each of `MEASURED_LEVELS`, over clean videos."""
    signals = [prior.encode(x) for x in clean]
    generator = torch.Generator(signals[0].device).manual_seed(0)
    errors = []
    for level in MEASURED_LEVELS:
        noise = white(level)
        squared = [
            float((prior.denoise(z + noise.drawn(z, generator), noise) - z).square().mean())
            for z in signals
        ]
        errors.append(float(np.sqrt(np.mean(squared))))
    return ErrorTable(MEASURED_LEVELS, tuple(errors))


def _root_weight(std: Tensor) -> Tensor:
    return (1 / std.square() + 1 / SIGNAL_STD**2).sqrt()


def _first_network(config: TeacherConfig) -> FlowNetwork:
    if config.initial_weights is None:
        made = FlowNetwork(config.network)
    else:
        made = load_prior(Path(config.initial_weights)).network.train().requires_grad_(True)
    network: FlowNetwork = made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network
