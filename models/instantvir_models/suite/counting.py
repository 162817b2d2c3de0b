"""A prior that counts what it is asked: the cost of a solver in the only unit that no machine changes."""

import time

import torch
from torch import Tensor

from instantvir_models.priors.base import Prior
from instantvir_models.priors.noise import NoiseLevel


class CountedPrior:
    """`prior`, and how often it was asked about a frame; implements `Prior`."""

    def __init__(self, prior: Prior) -> None:
        self._prior = prior
        self.frames = 0
        """Frames that passed through it."""
        self.frames_followed = 0
        """Of these, frames whose way is kept to be followed back."""
        self.seconds = 0.0
        """Wall seconds in it, without the way back."""

    @property
    def accepts_maps(self) -> bool:
        return self._prior.accepts_maps

    @property
    def largest_std(self) -> float:
        return self._prior.largest_std

    def encode(self, x: Tensor) -> Tensor:
        return self._prior.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        return self._prior.decode(z)

    def denoise(self, z: Tensor, noise: NoiseLevel) -> Tensor:
        started = time.perf_counter()
        denoised = self._prior.denoise(z, noise)
        self.seconds += time.perf_counter() - started
        frames = z.shape[0] * z.shape[1]
        self.frames += frames
        if torch.is_grad_enabled() and z.requires_grad:
            self.frames_followed += frames
        return denoised

    def error_std(self, noise_std: float) -> float:
        return self._prior.error_std(noise_std)
