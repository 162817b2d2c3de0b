"""What the students in the package have in common: they take a few megabytes, read no text and know one
length of block."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import nn

from instantvir_models.errors import UsageError
from instantvir_models.students.base import StateT, Student
from instantvir_models.students.capabilities import Seen
from instantvir_models.students.fitting import FitRequest, Fitted, Notice
from instantvir_models.students.text import TextRows
from instantvir_models.students.tiled import TiledStudent

SIZE_MULTIPLE = 8
"""Frames are padded to a multiple of this: three halvings."""

TILE_ABOVE_PIXELS = 1_400_000
"""Larger frames than this (such as 1440x960) are restored in tiles."""


class EmbeddedStudent(nn.Module, Student[StateT]):
    """What of `Student` does not depend on the network.

    Args:
        config: of the network; its `frames_per_block` are restored together.
        seen: what it was, or is to be, trained on.
    """

    def __init__(self, config: Any, *, seen: Seen) -> None:
        super().__init__()
        self.config = config
        self.seen = seen

    @property
    def frames_per_block(self) -> int:
        return int(self.config.frames_per_block)

    @property
    def first_block_frames(self) -> int:
        return self.frames_per_block

    def for_device(self, device: torch.device) -> Self:
        return self

    def fitted(self, request: FitRequest) -> Fitted[Self]:
        if request.allowed_gigabytes is None:
            return Fitted(self)
        text = "`--vram` has no effect: this model takes a few megabytes"
        return Fitted(self, (Notice(text, is_warning=True),))

    def in_tiles(self, tile_pixels: int) -> TiledStudent[StateT]:
        return TiledStudent(self, tile_pixels=tile_pixels)

    def with_text(self, text: TextRows) -> Self:
        raise UsageError("this student reads no text")

    def no_larger_than(self, state: StateT) -> Self:
        return self
