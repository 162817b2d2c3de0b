"""Which noise levels a score is asked at, and how much each counts."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

LAWS = ("flow", "shifted_flow", "log_uniform", "log_normal")
SHIFT = 8.0
"""Of flow time, in published code."""

WEIGHTS = ("kl", "vsd", "uniform")


@dataclass(frozen=True, kw_only=True)
class NoiseLaw:
    """A distribution of r, the noise level of z_r = z + r e.

    flow: s uniform in [low, high] and r = s / (1 - s). shifted_flow: s = 8 t / (1 + 7 t), t uniform in
    [0, 1], cut off at low and high, as in CausVid and its descendants. log_uniform: r from low to
    high. log_normal: log r has mean log(low high) / 2 and standard deviation log(high / low) / 2.
    """

    law: Literal["flow", "shifted_flow", "log_uniform", "log_normal"] = "log_uniform"
    low: float = 0.06
    high: float = 0.5

    def __post_init__(self) -> None:
        if self.law not in LAWS:
            raise ValueError(f"a law of noise levels is one of {', '.join(LAWS)}, got {self.law!r}")
        if not 0 < self.low < self.high or ("flow" in self.law and self.high >= 1):
            raise ValueError(f"noise levels run from low to high, got {self.low} and {self.high}")

    def drawn(self, count: int, generator: torch.Generator) -> Tensor:
        """[count], stratified: one from each of `count` equally probable parts."""
        u = (torch.arange(count) + torch.rand(count, generator=generator)) / count
        if self.law == "flow":
            s = self.low + (self.high - self.low) * u
            return s / (1 - s)
        if self.law == "shifted_flow":
            s = (SHIFT * u / (1 + (SHIFT - 1) * u)).clamp(self.low, self.high)
            return s / (1 - s)
        low, high = math.log(self.low), math.log(self.high)
        if self.law == "log_uniform":
            return torch.exp(low + (high - low) * u)
        quantile = math.sqrt(2) * torch.erfinv((2 * u - 1).clamp(-1 + 1e-6, 1 - 1e-6))
        return torch.exp((low + high) / 2 + (high - low) / 2 * quantile)


def score_weight(name: str, noise_std: Tensor) -> Tensor:
    """w of `score_difference`, [B]: `kl` 1, `vsd` a s r^2 on the flow path, `uniform` r^2.

    `uniform` weighs clean estimates alike (RED-diff, close to DMD), `vsd` noises.
    """
    if name == "kl":
        return torch.ones_like(noise_std)
    if name == "uniform":
        return noise_std.square()
    if name == "vsd":
        s = noise_std / (1 + noise_std)
        return s * (1 - s) * noise_std.square()
    raise ValueError(f"a weight of scores is one of {', '.join(WEIGHTS)}, got {name!r}")
