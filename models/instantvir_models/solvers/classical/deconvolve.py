"""Blur undone with a prior that is not fitted to the video, or with none."""

from dataclasses import dataclass

import torch
from torch import Tensor

from instantvir_models.clock import Step, timed
from instantvir_models.operators.base import Operator
from instantvir_models.operators.dct import dct2, idct2
from instantvir_models.operators.measurement import LEVEL, Degradation
from instantvir_models.operators.modes import Grid
from instantvir_models.solvers.base import Restored, Window
from instantvir_models.solvers.classical.frames import refuse_unless, restored
from instantvir_models.solvers.tiled import LocalSolver

LEAST_NOISE_STD = 0.5 * LEVEL
"""Noise that an inverse reckons with where none is said."""


@dataclass(frozen=True)
class Wiener(LocalSolver[None]):
    """Wiener filter in the DCT for frames with a power spectrum power / f^exponent; borders mirrored."""

    power: float = 4e-3
    """At one cycle per pixel, [-1, 1] range."""
    exponent: float = 2.0

    @property
    def frames_per_block(self) -> int:
        return 1

    def check(self, degradation: Degradation) -> None:
        operator = degradation.operator
        is_even = operator.mode_steps(Grid(1, 8, 8)) is not None
        is_able = operator.traits.scale == 1 and operator.temporal_radius == 0 and is_even
        refuse_unless(
            is_able, "wiener", "undoes blurs that look the same from both sides", degradation
        )

    def restore_block(self, window: Window, state: None) -> Restored:
        y = window.measurement.y
        with timed(Step.ESTIMATE):
            gain = self._gain(window.measurement.degradation, *y.shape[-2:])
            return restored(idct2(dct2(y) * gain.to(y)))

    def _gain(self, degradation: Degradation, height: int, width: int) -> Tensor:
        transfer = _transfer(degradation.operator, height, width)
        v = torch.arange(height, dtype=torch.float64)[:, None] / (2 * height)
        u = torch.arange(width, dtype=torch.float64) / (2 * width)
        frequency = (v**2 + u**2).sqrt()
        frequency[0, 0] = 1e-4
        variance = max(degradation.noise_std, LEAST_NOISE_STD) ** 2
        return transfer / (transfer**2 + variance * frequency**self.exponent / self.power)


def _transfer(operator: Operator, height: int, width: int) -> Tensor:
    """Eigenvalues [H, W] of an even blur in the DCT, from its response to a delta at the corner."""
    delta = torch.zeros(1, 1, 1, height, width, dtype=torch.float64)
    delta[..., 0, 0] = 1
    return (dct2(operator.A(delta)) / dct2(delta))[0, 0, 0]


@dataclass(frozen=True)
class RichardsonLucy(LocalSolver[None]):
    """Richardson-Lucy deconvolution (1972, 1974), stopped early; borders mirrored."""

    steps: int = 30

    @property
    def frames_per_block(self) -> int:
        return 1

    def check(self, degradation: Degradation) -> None:
        traits = degradation.operator.traits
        is_able = traits.scale == 1 and traits.known_fraction == 1
        refuse_unless(is_able, "richardson_lucy", "undoes blur", degradation)

    def restore_block(self, window: Window, state: None) -> Restored:
        operator = window.measurement.operator
        measured = ((window.measurement.y + 1) / 2).clamp_min(1e-3)
        x = measured.clone()
        for _ in range(self.steps):
            x = x * operator.A_adjoint(measured / operator.A(x).clamp_min(1e-4))
            x = x.clamp(1e-4, 1)
        return restored(x * 2 - 1)
