"""What is known about one video: the measured frames and how they came about."""

from dataclasses import dataclass

import torch
from torch import Tensor

from instantvir_models.operators.base import Operator

LEVEL = 1 / 127.5
"""One 8-bit level in the [-1, 1] range of pixels."""

ROUNDING_STD = LEVEL / 12**0.5
"""Standard deviation of the rounding of a measurement to 8 bits."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """y = A x + n."""

    y: Tensor
    """Measured frames [B, T, 3, h, w] in [-1, 1]."""
    operator: Operator
    """A, as it acts on these frames."""
    noise_std: float
    """Standard deviation of n in the [-1, 1] range, 0 for none."""
    is_lossy: bool = False
    """True when y went through a lossy video codec after the noise."""


def degrade(
    x: Tensor, operator: Operator, *, noise_std: float, generator: torch.Generator | None = None
) -> Measurement:
    """The measurement y = A x + n of clean frames x [B, T, 3, H, W], without rounding or clipping."""
    y = operator.A(x)
    if noise_std > 0:
        y = y + noise_std * torch.randn(y.shape, generator=generator, dtype=y.dtype)
    return Measurement(y=y, operator=operator, noise_std=noise_std)
