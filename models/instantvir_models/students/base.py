"""What a student is shown, and the protocol every student follows."""

import math
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from instantvir_models.operators.base import OperatorTraits
from instantvir_models.operators.measurement import Measurement
from instantvir_models.operators.prior import initial_estimate

NUM_TRAITS = 14


@dataclass(frozen=True)
class Conditioning:
    """One block of measured frames as a student sees it."""

    x_init: Tensor
    """[B, T, 3, H, W] initial estimate at the clean size, about [-1, 1]."""
    y_view: Tensor
    """[B, T, 3, H, W] the measurement itself, enlarged to the clean size, holes at 0."""
    known: Tensor
    """[B, T, 1, H, W], 1 where a pixel was measured."""
    traits: Tensor
    """[B, NUM_TRAITS] operator and noise in numbers of order one."""
    y_small: Tensor | None = None
    """[B, T, 3, h, w] the measurement at its own size where that is smaller; None if it is not."""

    def during(self, frames: slice) -> "Conditioning":
        """The part inside `frames`."""
        return Conditioning(
            x_init=self.x_init[:, frames],
            y_view=self.y_view[:, frames],
            known=self.known[:, frames],
            traits=self.traits,
            y_small=None if self.y_small is None else self.y_small[:, frames],
        )

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.x_init.shape[-2], self.x_init.shape[-1]


@dataclass(frozen=True)
class Estimate:
    """What a student says of one block."""

    x_hat: Tensor
    """[B, T, 3, H, W] before data consistency."""
    std: Tensor
    """[B] how far the student believes to be off, in the [-1, 1] range."""


StateT = TypeVar("StateT")


class Student(Protocol[StateT]):
    """A network that restores block after block in one causal pass each."""

    @property
    def frames_per_block(self) -> int:
        """Frames that are restored together."""

    @property
    def first_block_frames(self) -> int:
        """Frames of the first block, which may differ where latents cover several frames."""

    @property
    def tile_above_pixels(self) -> int | None:
        """Frames with more pixels are better restored in tiles; None never asks for tiles."""

    def in_tiles(self, tile_pixels: int) -> "Student[Any]":
        """This student with less memory at once: frames in tiles of `tile_pixels` a side."""

    def new_state(self) -> StateT:
        """The memory of one video before its first block."""

    def restore_block(self, block: Conditioning, state: StateT) -> Estimate:
        """The estimate of one block; `state` then also holds this block."""


def traits_vector(traits: OperatorTraits, *, noise_std: float, is_lossy: bool) -> list[float]:
    """`NUM_TRAITS` numbers of order one that describe how a video was degraded."""
    return [
        traits.blur_sigma / 3,
        math.log1p(traits.blur_sigma),
        float(traits.blur_sigma > 0),
        float(traits.scale == 2),
        float(traits.scale == 3),
        float(traits.scale >= 4),
        float(traits.is_antialiased_cubic),
        traits.known_fraction,
        float(traits.known_fraction < 1),
        traits.temporal_sigma,
        noise_std * 10,
        math.log10(noise_std + 3e-3) + 1.5,
        float(is_lossy),
        float(traits == OperatorTraits()),
    ]


def condition(measurement: Measurement) -> Conditioning:
    """The measurement as a student sees it, all tensors float32."""
    y, operator = measurement.y, measurement.operator
    x_init = initial_estimate(measurement).clamp(-1.5, 1.5)
    known = operator.known_pixels(y)
    if known is None:
        known = torch.ones_like(x_init[:, :, :1])
    known = known.expand(*x_init.shape[:2], 1, *x_init.shape[-2:])
    return Conditioning(
        x_init=x_init,
        y_view=_enlarged(y, x_init.shape) * known,
        known=known,
        traits=x_init.new_tensor(
            [
                traits_vector(
                    operator.traits,
                    noise_std=measurement.noise_std,
                    is_lossy=measurement.degradation.is_lossy,
                )
            ]
        ).expand(len(y), NUM_TRAITS),
        y_small=None if y.shape[-2:] == x_init.shape[-2:] else y,
    )


def _enlarged(y: Tensor, shape: torch.Size) -> Tensor:
    factor = shape[-1] // y.shape[-1]
    if factor == 1:
        return y
    return y.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
