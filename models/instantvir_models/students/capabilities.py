"""What a student can do and was made for, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch

from instantvir_models.operators.base import OperatorTraits
from instantvir_models.operators.measurement import LEVEL, Degradation
from instantvir_models.students.text import TextFormat

Ranges = Mapping[str, tuple[float, float]]
"""Of traits, by name: least and most."""

TOLERANCE = 1e-3
"""Relative, on both ends of a range: levels and standard deviations are rounded on their way."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Which degradations a student met in training."""

    operators: tuple[Ranges, ...]
    """One for each kind of operator: the ranges of its traits. A trait that is not named is as in the
    identity."""
    noise_levels: tuple[float, float]
    """Least and most noise, in 8-bit levels."""

    def covers(self, degradation: Degradation) -> bool:
        """Whether such a degradation was seen."""
        levels = degradation.noise_std / LEVEL
        operator = degradation.operator
        is_described = operator.shows_pixels or operator.traits != OperatorTraits(
            known_fraction=operator.traits.known_fraction
        )
        return (
            is_described
            and _is_within(levels, self.noise_levels)
            and any(_has_met(operator.traits, ranges) for ranges in self.operators)
        )


def _has_met(traits: OperatorTraits, ranges: Ranges) -> bool:
    nothing = OperatorTraits()
    for field in fields(traits):
        usual = float(getattr(nothing, field.name))
        value = float(getattr(traits, field.name))
        if not _is_within(value, ranges.get(field.name, (usual, usual))):
            return False
    return True


def _is_within(value: float, bounds: tuple[float, float]) -> bool:
    low, high = bounds
    return low * (1 - TOLERANCE) <= value <= high * (1 + TOLERANCE)


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a student can do and was made for."""

    devices: tuple[str, ...] = ("cpu",)
    """Types of the devices it computes on, the first that is there unless a person wants another."""
    text: TextFormat | None = None
    """The prompt it reads; it may then change while a video is restored. None if it reads none."""
    has_words: bool = False
    """Whether it has a prompt already, with words in it."""
    weights_dtype: torch.dtype | None = None
    """What it computes in, where that is the type of its weights; None for whatever it is told."""
    tile_above_pixels: int | None = None
    """Frames with more pixels are better restored in tiles; None never asks for tiles."""
    can_be_fitted: bool = False
    """Whether it can be made to keep to less memory."""
    seen: Seen | None = None
    """What it was trained on; None where nobody wrote it down."""
    traits: tuple[str, ...] = ()
    """Names of the numbers it is told about operator and noise, in their order."""
