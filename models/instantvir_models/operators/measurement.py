"""How a video was degraded, and what was measured of it: y = A x + n."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from instantvir_models.operators.base import Operator
from instantvir_models.operators.modes import to_modes

LEVEL = 1 / 127.5
"""One 8-bit level in the [-1, 1] range of pixels."""

ROUNDING_STD = LEVEL / 12**0.5
"""Standard deviation of the rounding of a measurement to 8 bits."""

LOSSY_STD = 3 * LEVEL
"""What a codec is taken to have added to the noise that is told of; who knows better tells more."""

LEAST_LOSSY_STD = 1.5 * LEVEL
"""What a codec is taken to have added at least where something is inverted, whatever noise is told: an
inverse makes it many times larger. A blur of 3 pixels in H.264 at CRF 18, told no noise, came out
10 dB below its input."""


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """How a video was made worse: y = A x + n."""

    operator: Operator
    """A."""
    noise_std: float
    """Standard deviation of n in the [-1, 1] range, 0 for none."""
    is_lossy: bool = False
    """True when the measurement went through a lossy video codec after the noise."""

    @property
    def spec(self) -> str:
        """The text that `parse_degradation` reads back; the noise in 8-bit levels."""
        if self.noise_std == 0:
            return self.operator.spec
        return f"{self.operator.spec}+noise:std={self.noise_std / LEVEL:.4g}"

    def at_frame(self, first_frame: int) -> "Degradation":
        """The degradation as it acts on frames from index `first_frame` on."""
        return replace(self, operator=self.operator.at_frame(first_frame))


@dataclass(frozen=True)
class Measurement:
    """What is known about some frames of a video: how they look, and how they came about."""

    y: Tensor
    """Measured frames [B, T, 3, h, w] in [-1, 1]."""
    degradation: Degradation
    """What happened to these frames; its operator starts at the first of them."""

    @property
    def operator(self) -> Operator:
        """A, as it acts on these frames."""
        return self.degradation.operator

    @cached_property
    def y_modes(self) -> Tensor:
        """The modes of y, found once."""
        return to_modes(self.y, over_time=self.over_time)

    @property
    def over_time(self) -> bool:
        """Whether its modes are modes over time too."""
        return self.operator.temporal_radius > 0

    @property
    def selected(self) -> Tensor:
        """y, but 0 where the operator selects pixels and left one out: what stands there is no
        measurement."""
        return self.operator.A(self.y) if self.operator.only_selects else self.y

    @property
    def noise_std(self) -> float:
        """Standard deviation of n in the [-1, 1] range, 0 for none."""
        return self.degradation.noise_std


def unexplained_std(degradation: Degradation) -> float:
    """Standard deviation of A x - y at the clean video: noise, rounding and what a codec adds."""
    lossy = LOSSY_STD if degradation.is_lossy else 0.0
    return math.sqrt(degradation.noise_std**2 + ROUNDING_STD**2 + lossy**2)


def degrade(
    x: Tensor, degradation: Degradation, *, generator: torch.Generator | None = None
) -> Measurement:
    """The measurement y = A x + n of clean frames x [B, T, 3, H, W], without rounding or clipping.

    What a lossy codec would add is not simulated.
    """
    y = noisy(degradation.operator.A(x), degradation.noise_std, generator=generator)
    return Measurement(y, degradation)


def noisy(y: Tensor, noise_std: float, *, generator: torch.Generator | None = None) -> Tensor:
    """y + n with white Gaussian n; y itself where there is no noise, which then draws no numbers."""
    if noise_std == 0:
        return y
    return y + noise_std * torch.randn(y.shape, generator=generator, dtype=y.dtype)


def stored(y: Tensor) -> Tensor:
    """y in [-1, 1] as it comes back from 8-bit storage: rounded to levels and clipped."""
    return ((y + 1) * 127.5).round().clamp(0, 255) * LEVEL - 1
