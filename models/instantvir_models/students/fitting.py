"""A student made to keep to the memory there is: what is asked for, and what comes of it."""

from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

FittedT = TypeVar("FittedT", covariant=True)


@dataclass(frozen=True)
class Notice:
    """A sentence to a person."""

    text: str
    is_warning: bool = False


@dataclass(frozen=True, kw_only=True)
class FitRequest:
    """Frames to restore, and the memory for it."""

    size: tuple[int, int]
    """(H, W) of the restored frames."""
    device: torch.device
    """Where the student is to compute."""
    dtype: torch.dtype | None = None
    """Its weights are to have this type where memory allows; None for the one they have."""
    is_dtype_fixed: bool = False
    """Whether no other type will do."""
    temporal_radius: int = 0
    """Frames on each side of a block that its operator looks at."""
    allowed_gigabytes: float | None = None
    """Memory it may take; None for what is free on a card, and for no limit elsewhere."""
    tile_pixels: int | None = None
    """Side of its tiles, 0 for whole frames; None leaves it to memory."""


@dataclass(frozen=True)
class Fitted(Generic[FittedT]):
    """A student on its device, and what a person is to be told."""

    value: FittedT
    notices: tuple[Notice, ...] = ()
    """What it needs, what was given up, and what had no effect."""
