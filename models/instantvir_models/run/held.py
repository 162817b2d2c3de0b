"""The measured frames that a session still needs, each with what is known of its pixels."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instantvir_models.operators.compose import masked
from instantvir_models.operators.measurement import Degradation, Measurement

Mask = NDArray[np.bool_] | None
"""[h, w] of one frame; None where there is nothing to say."""


@dataclass(eq=False)
class HeldFrames:
    """Consecutive frames of a video: what is around the next block, the block, and what came after it."""

    size: tuple[int, int]
    """(height, width) of the frames."""
    device: torch.device
    frames: list[Tensor] = field(default_factory=list)
    """[3, h, w] each."""
    known: list[Mask] = field(default_factory=list)
    """Of the same frames, False where what a frame shows is lost."""
    guessed: list[Mask] = field(default_factory=list)
    """Likewise, True where a pixel was not measured but computed from around it."""
    first: int = 0
    """The index of the first of them in the video."""

    @property
    def end(self) -> int:
        """The index behind the last."""
        return self.first + len(self.frames)

    def add(
        self,
        frames: Tensor,
        known: Iterable[NDArray[np.bool_]] | None,
        guessed: Iterable[NDArray[np.bool_]] | None,
    ) -> None:
        """Hold [n, 3, h, w] more."""
        nothing = [None] * len(frames)
        self.frames.extend(frames.unbind(0))
        self.known.extend(nothing if known is None else known)
        self.guessed.extend(nothing if guessed is None else guessed)

    def drop_before(self, index: int) -> None:
        """Forget the frames before the one with this index in the video."""
        count = max(0, index - self.first)
        del self.frames[:count], self.known[:count], self.guessed[:count]
        self.first += count

    def measured_before(self, index: int, happened: Degradation) -> Measurement:
        """The frames before the one with this index; of what their masks say was lost, nothing is left.

        Args:
            happened: to them, beginning with the first.
        """
        count = min(index - self.first, len(self.frames))
        y = torch.stack(self.frames[:count])[None].to(self.device)
        known = self._stacked(self.known[:count], fill=True)
        guessed = self._stacked(self.guessed[:count], fill=False)
        if known is None and guessed is None:
            return Measurement(y, happened)
        shown = torch.ones(count, 1, *self.size) if known is None else known
        if guessed is None:
            operator = masked(happened.operator, shown)
        else:
            operator = masked(happened.operator, shown * (1 - guessed), shown * guessed)
        return Measurement(y * shown.to(y), replace(happened, operator=operator))

    def _stacked(self, masks: list[Mask], *, fill: bool) -> Tensor | None:
        """[T, 1, h, w] of 0 and 1, frames without a mask all `fill`; None where none has one."""
        if all(mask is None for mask in masks):
            return None
        all_alike = np.full(self.size, fill)
        stack = np.stack([all_alike if mask is None else mask for mask in masks])
        return torch.from_numpy(stack).float()[:, None]
