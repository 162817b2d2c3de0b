"""Wan2.1 as a prior: the published text-to-video transformer, all frames seen at once.

The same transformer as the student's; a block as long as the clip makes it bidirectional, as it was
trained. On its path x_t = (1 - s) z_0 + s e it says the velocity v = e - z_0, so E[z_0 | x_t] =
x_t - s v; a signal z = z_0 + r e is x_t / (1 - s) at s = r / (1 + r).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from instantvir_models.autoencoders.base import CausalMemory
from instantvir_models.autoencoders.tiled import LocalAutoencoder
from instantvir_models.errors import UsageError
from instantvir_models.priors.base import ErrorTable
from instantvir_models.priors.noise import NoiseLevel, PixelNoise
from instantvir_models.students.text import TextRows
from instantvir_models.students.wan.schedule import NUM_TIMESTEPS, clean_from_velocity
from instantvir_models.students.wan.transformer import WanTransformer

LARGEST_SIGMA = 0.98
"""Where the published training ends (CausVid and its descendants)."""


@dataclass(frozen=True)
class WanPrior:
    """A frozen Wan transformer over latents [B, L, c, h, w]; implements `Prior`.

    Args:
        text: what is seen; `without` is the prompt that guidance leads away from.
        guidance: v = v_without + guidance (v_text - v_without); at 1 the second pass is saved.
            Published code that writes v_text + 3.5 (v_text - v_without) has 4.5 here.
    """

    transformer: WanTransformer
    autoencoder: LocalAutoencoder
    text: TextRows
    without: TextRows
    errors: ErrorTable | None = None
    """Measured once; None where nobody did, for what never asks how far it is off."""
    guidance: float = 1.0

    @property
    def accepts_maps(self) -> bool:
        return False

    @property
    def largest_std(self) -> float:
        return LARGEST_SIGMA / (1 - LARGEST_SIGMA)

    def encode(self, x: Tensor) -> Tensor:
        """Latents of a whole clip of 1 + 4k frames."""
        return self.autoencoder.encode(x, CausalMemory())

    def decode(self, z: Tensor) -> Tensor:
        return self.autoencoder.decode(z, CausalMemory())

    def denoise(self, z: Tensor, noise: NoiseLevel) -> Tensor:
        noise_std = self._one_level(noise)
        told = denoised(self.transformer, z, noise_std, self.text)
        if self.guidance == 1:
            return told.to(z)
        untold = denoised(self.transformer, z, noise_std, self.without)
        return (untold + self.guidance * (told - untold)).to(z)

    def error_std(self, noise_std: float) -> float:
        """Raises UsageError where it was never measured."""
        if self.errors is None:
            raise UsageError(
                "nobody measured how far this teacher is off",
                hint="`python -m instantvir_distill.measure TEACHER --clips CLEAN` does it once",
            )
        return self.errors.at(noise_std)

    def _one_level(self, noise: NoiseLevel) -> float:
        if not isinstance(noise, PixelNoise) or torch.unique(noise.std).numel() > 1:
            raise ValueError("this prior takes one noise level for all of its latents")
        return float(noise.std.flatten()[0])


def denoised(transformer: WanTransformer, z: Tensor, noise_std: float, text: TextRows) -> Tensor:
    """E[z_0 | z = z_0 + noise_std e] of latents [B, L, c, h, w] that were trained on, all seen at once.

    float32, and so is the velocity: in half precision it drifts where noise is strong.
    """
    sigma = noise_std / (1 + noise_std)
    x_t = (1 - sigma) * z
    velocity = transformer.velocity_of_sequence(
        x_t.to(transformer.patch_embedding.weight),
        timestep=NUM_TIMESTEPS * sigma,
        text=text,
        latents_per_block=x_t.shape[1],
    )
    return clean_from_velocity(x_t.float(), velocity.float(), sigma=sigma)
