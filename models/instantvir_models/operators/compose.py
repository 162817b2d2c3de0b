"""The identity, and operators applied one after the other."""

from collections.abc import Sequence
from functools import reduce

from torch import Tensor

from instantvir_models.errors import UsageError
from instantvir_models.operators.base import Operator, OperatorTraits
from instantvir_models.operators.mask import FrameMasks, GuessedMask, Mask
from instantvir_models.operators.modes import Grid, ModeStep, Steps


class Identity(Operator):
    """Nothing but noise: A = I."""

    spec = "identity"
    only_selects = True

    def A(self, x: Tensor) -> Tensor:
        return x

    def A_adjoint(self, y: Tensor) -> Tensor:
        return y

    def mode_steps(self, grid: Grid) -> Steps:
        return ()

    def solve(self, b: Tensor, weight: Tensor | float) -> Tensor:
        return b / (1 + weight)  # no need of modes

    def A_dagger(self, y: Tensor) -> Tensor:
        return y

    def completed(self, y: Tensor) -> Tensor:
        return y

    @property
    def is_identity(self) -> bool:
        return True

    def halved(self) -> "Identity":
        return self

    @property
    def traits(self) -> OperatorTraits:
        return OperatorTraits()


class Composition(Operator):
    """A = A_n ... A_2 A_1: the first of `operators` acts on the clean video first."""

    def __init__(self, operators: Sequence[Operator]) -> None:
        if len(operators) < 2:
            raise ValueError(f"a composition joins two operators or more, got {len(operators)}")
        self.operators = tuple(operators)
        self.spec = "+".join(operator.spec for operator in operators)
        self.temporal_radius = sum(operator.temporal_radius for operator in operators)

    def A(self, x: Tensor) -> Tensor:
        return reduce(lambda v, operator: operator.A(v), self.operators, x)

    def A_adjoint(self, y: Tensor) -> Tensor:
        return reduce(lambda v, operator: operator.A_adjoint(v), reversed(self.operators), y)

    @property
    def parts(self) -> tuple[Operator, ...]:
        return tuple(part for operator in self.operators for part in operator.parts)

    def mode_steps(self, grid: Grid) -> Steps | None:
        steps: list[ModeStep] = []
        for operator, before in self._on_grids(grid):
            more = operator.mode_steps(before)
            if more is None:
                return None
            steps += more
        return steps

    def mode_energy(self, grid: Grid, later: Tensor) -> Tensor:
        for operator, before in reversed(self._on_grids(grid)):
            later = operator.mode_energy(before, later)
        return later

    def measured_power(self, grid: Grid, power: Tensor) -> Tensor:
        for operator, before in self._on_grids(grid):
            power = operator.measured_power(before, power)
        return power

    def _on_grids(self, grid: Grid) -> list[tuple[Operator, Grid]]:
        """Each operator with the modes of what it acts on."""
        out = []
        for operator in self.operators:
            out.append((operator, grid))
            grid = Grid(grid.frames, *operator.measured_size(grid.height, grid.width))
        return out

    def measured_size(self, height: int, width: int) -> tuple[int, int]:
        for operator in self.operators:
            height, width = operator.measured_size(height, width)
        return height, width

    def clean_size(self, height: int, width: int) -> tuple[int, int]:
        for operator in reversed(self.operators):
            height, width = operator.clean_size(height, width)
        return height, width

    def known_pixels(self, y: Tensor) -> Tensor | None:
        """Pixels of the clean size that a mask last in the chain left known."""
        known = self.operators[-1].known_pixels(y)
        height, width = self.clean_size(*y.shape[-2:])
        if known is None or (height, width) == tuple(y.shape[-2:]):
            return known
        return known.repeat_interleave(height // y.shape[-2], -2).repeat_interleave(
            width // y.shape[-1], -1
        )

    def cropped(self, rows: slice, columns: slice) -> "Composition":
        """Each operator as it acts on its part; rows and columns start where every one has a pixel."""
        cropped = []
        for operator in self.operators:
            cropped.append(operator.cropped(rows, columns))
            top, left = operator.measured_size(rows.start, columns.start)
            bottom, right = operator.measured_size(rows.stop, columns.stop)
            rows, columns = slice(top, bottom), slice(left, right)
        is_same = all(new is old for new, old in zip(cropped, self.operators, strict=True))
        return self if is_same else Composition(cropped)

    def at_frame(self, first_frame: int) -> "Composition":
        if not self.changes_over_time:
            return self
        return Composition([operator.at_frame(first_frame) for operator in self.operators])

    @property
    def changes_over_time(self) -> bool:
        return any(operator.changes_over_time for operator in self.operators)

    @property
    def traits(self) -> OperatorTraits:
        each = [operator.traits for operator in self.operators]
        scale = 1
        for traits in each:
            scale *= traits.scale
        known = 1.0
        for traits in each:
            known *= traits.known_fraction
        return OperatorTraits(
            blur_sigma=sum(traits.blur_sigma**2 for traits in each) ** 0.5,
            scale=scale,
            is_antialiased_cubic=any(traits.is_antialiased_cubic for traits in each),
            known_fraction=known,
            temporal_sigma=sum(traits.temporal_sigma**2 for traits in each) ** 0.5,
            blur_departure=max(traits.blur_departure for traits in each),
        )


def awaits_masks(operator: Operator) -> bool:
    """Whether pixels are lost that only the frames tell; `masked` says which.

    Raises:
        UsageError: if something acts after the loss: masks fit frames as they were measured.
    """
    awaiting = [isinstance(part, FrameMasks) for part in operator.parts]
    if any(awaiting) and not all(awaiting[awaiting.index(True) :]):
        raise UsageError(
            f"in `{operator.spec}` something happens after pixels are lost that change",
            hint="masks that come with the frames are of their size, and stand last",
        )
    return any(awaiting)


def masked(operator: Operator, known: Tensor, guessed: Tensor | None = None) -> Operator:
    """The operator where of the measured frames only the pixels in `known` are there.

    Args:
        known: [T, 1, h, w] of 0 and 1. Where all are known nothing is added.
        guessed: [T, 1, h, w], 1 where one of the others shows a guess.
    """
    parts = [part for part in operator.parts if not isinstance(part, FrameMasks | Identity)]
    if parts and isinstance(parts[-1], Mask):
        known = parts.pop().A(known[None])[0]
    spec = "+".join(_specs_of_masks(operator)) or "mask:path=of-frames"
    mask = Mask(known, spec=spec) if guessed is None else GuessedMask(known, guessed, spec=spec)
    if not mask.is_identity:
        parts.append(mask)
    if not parts:
        return Identity()
    return parts[0] if len(parts) == 1 else Composition(parts)


def _specs_of_masks(operator: Operator) -> list[str]:
    return [part.spec for part in operator.parts if isinstance(part, FrameMasks | Mask)]
