"""The one seam between time and mathematics: a `Solver` is given a window, and knows no clock.

A session owns time: which frames there are, how they are cut into blocks, what is kept. A solver
owns the restoration of one block.
"""

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from instantvir_models.errors import UsageError
from instantvir_models.operators.measurement import Degradation, Measurement
from instantvir_models.students.fitting import FitRequest, Fitted, Notice
from instantvir_models.students.text import TextFormat, TextRows

WHOLE_CLIP = sys.maxsize
"""Frames per block of a solver that restores a whole clip at once: a session then holds every frame
until the clip has ended, 12 bytes for each measured pixel and whatever the solver takes."""


@dataclass(frozen=True, kw_only=True)
class SolverNeeds:
    """What a solver can work with."""

    devices: tuple[str, ...] = ("cpu",)
    """Types of the devices that it computes on, the first that is there unless a person wants another."""
    text: TextFormat | None = None
    """The prompt that it reads; None if it reads none."""
    tile_above_pixels: int | None = None
    """Frames with more pixels are better restored in tiles; None never asks for tiles."""
    dtype: torch.dtype = torch.float32
    """What it computes in."""


@dataclass(frozen=True)
class Window:
    """A block of frames to restore, and what is known around it."""

    measurement: Measurement
    """Of the block and of up to `temporal_radius` frames on each side of it; fewer at the ends of a
    video."""
    inside: slice
    """The frames to restore."""
    past: Tensor
    """[B, inside.start, 3, H, W], how the frames before were restored."""

    @classmethod
    def whole(cls, measurement: Measurement) -> "Window":
        """All frames of a measurement, with nothing around them."""
        y = measurement.y
        height, width = measurement.operator.clean_size(*y.shape[-2:])
        past = y.new_empty(len(y), 0, 3, height, width)
        return cls(measurement, slice(0, y.shape[1]), past)

    @property
    def num_frames(self) -> int:
        """Frames to restore."""
        return self.inside.stop - self.inside.start

    def joined(self, x: Tensor, beyond: Tensor) -> Tensor:
        """[B, T, 3, H, W]: the past, `x` of the frames inside, and of `beyond` [B, T, 3, H, W] those
        that come later."""
        return torch.cat([self.past, x, beyond[:, self.inside.stop :]], 1)


@dataclass(frozen=True)
class Restored:
    """What a solver makes of a window."""

    x: Tensor
    """[B, T, 3, H, W] of the whole window; the frames inside are given out."""
    std: Tensor
    """[B] how far the solver believes to be off, in the [-1, 1] range."""
    replaced: tuple[float, ...] = ()
    """Of each frame inside, the part of its area that is the initial estimate because the solver's own
    could not be right; empty where nothing was replaced."""
    A_x: Tensor | None = None
    """A x of the whole window, where the solver has computed it anyway."""
    std_map: Tensor | None = None
    """[B, frames inside, 1, ceil(H / 4), ceil(W / 4)] how far it believes to be off place by place, in
    cells of 4x4 pixels; None where it does not tell places apart."""


StateT = TypeVar("StateT")


class Solver(ABC, Generic[StateT]):
    """y -> x with its std, block after block. Frozen: what changes is in the state.

    Only `frames_per_block` and `restore_block` have to be written; a solver with a memory also
    writes `new_state`.
    """

    @property
    @abstractmethod
    def frames_per_block(self) -> int:
        """Most frames that are restored together; `WHOLE_CLIP` for all of them."""

    @abstractmethod
    def restore_block(self, window: Window, state: StateT) -> Restored:
        """The restoration of one window; `state` then also holds this block.

        Steps are counted where they are wrapped in `clock.timed`.
        """

    def new_state(self) -> StateT:
        """The memory of one video before its first block; None for a solver without one."""
        return None  # type: ignore[return-value]

    @property
    def state_type(self) -> Any:
        """The type of its states: those that `run.kept` can put on a disk let a restoration be gone on
        with after it was stopped."""
        return type(self.new_state())

    @property
    def first_block_frames(self) -> int:
        """Frames of the first block. Where they are as many as in any block, blocks may have fewer
        frames too."""
        return self.frames_per_block

    @property
    def needs(self) -> SolverNeeds:
        """What it can work with."""
        return SolverNeeds()

    def check(self, degradation: Degradation) -> None:
        """Refuse a degradation that this solver cannot undo.

        Raises:
            UsageError: saying which it can.
        """

    def doubts(self, degradation: Degradation) -> tuple[str, ...]:
        """Sentences to a person about a degradation that this solver may not undo well."""
        return ()

    def fitted(self, request: FitRequest) -> "Fitted[Solver[StateT]]":
        """This solver on its device, keeping to the memory there is.

        Raises:
            UsageError: if frames of that size do not fit at all.
            DeviceMemoryError: if memory runs out on the way there.
        """
        if request.allowed_gigabytes is None:
            return Fitted(self)
        text = "`--vram` has no effect: this method runs on the CPU"
        return Fitted(self, (Notice(text, is_warning=True),))

    def in_tiles(self, tile_pixels: int) -> "Solver[Any]":
        """This solver with less memory at once: frames in tiles of `tile_pixels` a side.

        Raises:
            UsageError: if it has to see whole frames.
        """
        raise UsageError("this method sees whole frames; it cannot work in tiles")

    def with_text(self, text: TextRows) -> "Solver[StateT]":
        """This solver, told another prompt; it goes on with the states of the one before.

        Raises:
            UsageError: if it reads no text.
        """
        raise UsageError("this method reads no text")

    @property
    def can_be_sharpened(self) -> bool:
        """Whether `with_sharpness` is of use."""
        return False

    def with_sharpness(self, sharpness: float) -> "Solver[StateT]":
        """This solver, to give back so much of the fine contrast that its expected error says it lacks; it
        goes on with the states of the one before.

        Args:
            sharpness: 0 to 1.5; 0 is the least error.

        Raises:
            UsageError: if it cannot be sharpened.
        """
        raise UsageError(
            "this method does not say where it is off, so it cannot be sharpened",
            hint="leave out `--sharpness`, or give a model instead",
        )

    def no_larger_than(self, state: StateT) -> "Solver[StateT]":
        """This solver, to ask for no more memory than `state` has come to."""
        return self


def checked(restored: Restored, window: Window, solver: Solver[Any]) -> Restored:
    """`restored`, if it is what a solver promises to return.

    Raises:
        ValueError: saying what was returned and what it has to be.
    """
    y = window.measurement.y
    height, width = window.measurement.operator.clean_size(*y.shape[-2:])
    expected = (len(y), y.shape[1], 3, height, width)
    for name, value, shape in (("x", restored.x, expected), ("std", restored.std, expected[:1])):
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        if found != shape:
            raise ValueError(
                f"`{type(solver).__name__}.restore_block` returned {name} {found}, not a tensor "
                f"{shape}: x is of the whole window, [B, T, 3, H, W], and std is [B]"
            )
    return restored


def block_size(solver: Solver[Any], asked: int | None) -> int:
    """Frames per block that `solver` is to restore: its own number, or `asked` if that suits it.

    Raises:
        UsageError: if it was not made for such blocks.
    """
    own = solver.frames_per_block
    if asked is None:
        return own
    least = 1 if solver.first_block_frames == own else own  # a latent of several frames is whole
    if not least <= asked <= own:
        most = "any number of" if own == WHOLE_CLIP else f"1 to {own}"
        raise UsageError(
            f"blocks of {asked} frames do not suit this student",
            hint=f"it restores {own if least == own else most} frames together",
        )
    return asked
