"""What a student is shown, and the protocol every student follows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from instantvir_models.operators.measurement import Measurement
from instantvir_models.operators.prior import initial_estimate
from instantvir_models.students.capabilities import Capabilities
from instantvir_models.students.fitting import FitRequest, Fitted
from instantvir_models.students.text import TextRows
from instantvir_models.students.traits import told

ERROR_CELL = 4
"""Side in pixels of the cells in which a student tells how far it believes to be off."""


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
    """[B, n] operator and noise in numbers of order one, those the student asked for."""
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
    """[B, T, 3, H, W]."""
    std: Tensor
    """[B] how far the student believes to be off, in the [-1, 1] range."""
    is_final: bool = False
    """Whether x_hat has weighed the measurement already, so that data consistency is not to do so
    again: a student that is shown y itself, with its noise, knows better than one weight what to make
    of each pixel."""
    std_map: Tensor | None = None
    """[B, T, 1, ceil(H / 4), ceil(W / 4)] the same in cells of `ERROR_CELL` pixels a side; None of a
    student that does not tell places apart."""


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
    def capabilities(self) -> Capabilities:
        """What it can do and was made for."""

    def for_device(self, device: torch.device) -> "Student[StateT]":
        """This student, to compute on `device`; `fitted` brings it there."""

    def fitted(self, request: FitRequest) -> "Fitted[Student[StateT]]":
        """This student on its device, keeping to the memory there is.

        Raises:
            UsageError: if frames of that size do not fit at all.
            DeviceMemoryError: if memory runs out while weights go to their device.
        """

    def in_tiles(self, tile_pixels: int) -> "Student[Any]":
        """This student with less memory at once: frames in tiles of `tile_pixels` a side."""

    def with_text(self, text: TextRows) -> "Student[StateT]":
        """This student, told another prompt; it goes on with the states of the one before.

        Raises:
            UsageError: if it reads no text.
        """

    def no_larger_than(self, state: StateT) -> "Student[StateT]":
        """This student, to ask from the start for no more memory than `state` has come to."""

    def new_state(self) -> StateT:
        """The memory of one video before its first block."""

    def restore_block(self, block: Conditioning, state: StateT) -> Estimate:
        """The estimate of one block; `state` then also holds this block."""

    def restore_sequence(self, sequence: Conditioning) -> Estimate:
        """The estimate of a whole video at once, causal like its blocks: how it is trained."""


def bounded_estimate(measurement: Measurement) -> Tensor:
    """The initial estimate [B, T, 3, H, W], bounded to what a frame can be by far."""
    return initial_estimate(measurement).clamp(-1.5, 1.5)


def condition(measurement: Measurement, traits: Sequence[str] = ()) -> Conditioning:
    """The measurement as a student sees it, all tensors float32.

    Args:
        traits: names of the numbers that the student is told about operator and noise.
    """
    y, operator = measurement.y, measurement.operator
    x_init = bounded_estimate(measurement)
    known = operator.known_pixels(y)
    if known is None:
        known = torch.ones_like(x_init[:, :, :1])
    known = known.expand(*x_init.shape[:2], 1, *x_init.shape[-2:])
    return Conditioning(
        x_init=x_init,
        y_view=_view(measurement, x_init) * known,
        known=known,
        traits=x_init.new_tensor([told(measurement.degradation, traits)]).expand(len(y), -1),
        y_small=None if y.shape[-2:] == x_init.shape[-2:] else y,
    )


def _view(measurement: Measurement, x_init: Tensor) -> Tensor:
    """[B, T, 3, H, W] what was measured, at the clean size; x_init where it is no look at the picture, nor a
    blur or an enlargement that a student is told of."""
    operator = measurement.operator
    traits = operator.traits
    is_told = traits.blur_sigma > 0 or traits.temporal_sigma > 0 or traits.scale > 1
    return _enlarged(measurement.y, x_init.shape) if is_told or operator.shows_pixels else x_init


def _enlarged(y: Tensor, shape: torch.Size) -> Tensor:
    factor = shape[-1] // y.shape[-1]
    if factor == 1:
        return y
    return y.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
