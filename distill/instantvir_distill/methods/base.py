"""What methods are given and what they give back."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Protocol, Self

import torch
from torch import Tensor

from instantvir_distill.levels import NoiseLaw
from instantvir_models.operators.measurement import Measurement
from instantvir_models.priors.base import Prior

CriticSees = Literal["none", "blind", "conditioned", "features"]
"""Of critics: there is none, it sees noisy outputs alone, or the measurement too; or what the teacher
makes of noisy videos, and says how natural they are."""


@dataclass(frozen=True)
class Example:
    """A measured sequence, and which of its frames are learned from. It has no clean frames."""

    measurement: Measurement
    """All frames [1, T, 3, h, w]; those around the learned ones help the student to see."""
    frames: slice
    """Those that are restored."""
    task: str

    def to(self, device: torch.device) -> Self:
        """The same with its frames there; operators follow what they are given."""
        y = Measurement(self.measurement.y.to(device), self.measurement.degradation)
        return replace(self, measurement=y)

    @property
    def inside(self) -> Measurement:
        """The measurement of the learned frames."""
        return during(self.measurement, self.frames)


@dataclass(frozen=True)
class CleanExample(Example):
    """An example with its truth."""

    x: Tensor
    """The learned frames [1, t, 3, H, W], clean."""

    def to(self, device: torch.device) -> Self:
        return replace(super().to(device), x=self.x.to(device))


@dataclass(frozen=True)
class Reconstruction:
    """What a student made of the learned frames of an example."""

    x_hat: Tensor
    """[1, t, 3, H, W] consistent with the measurement."""
    start_variance: Tensor
    """[t, 1, H, W] expected squared error of what the student started from."""
    variance: Tensor
    """[t, 1, h, w] squared error that the student expects, H and W multiples of h and w."""


class Restore(Protocol):
    """A student as methods know it: examples to reconstructions, differentiable."""

    def __call__(self, examples: Sequence[Example]) -> list[Reconstruction]:
        """One for each example."""


class Critic(Protocol):
    """The posterior mean of the student's own outputs z given z_r, and y if it may see that.

    One that sees `features` says instead how natural each place of z_r is.
    """

    def __call__(self, z_r: Tensor, noise_std: Tensor, measurement: Measurement, /) -> Tensor:
        """[1, T, C, H, W] as z_r, or a number for each of many places; noise_std [1]."""


class Natural(Protocol):
    """Clean video that belongs to no measurement in particular."""

    def __call__(self, like: Tensor, /) -> Tensor:
        """Frames of the shape [1, T, 3, H, H] and type of `like`."""


class Keep(Protocol):
    """What was made of a measurement in a way that `how` names, or what `make` makes of it now."""

    def __call__(self, how: str, measurement: Measurement, make: Callable[[], Tensor], /) -> Tensor:
        """Frames or latents, where y is; without gradients."""


@torch.no_grad()
def made_anew(how: str, measurement: Measurement, make: Callable[[], Tensor]) -> Tensor:
    """Nothing is kept."""
    return make()


@dataclass(frozen=True)
class Networks:
    """The functions that a method may ask. Which ones it does it says itself (`Method`)."""

    restore: Restore
    _prior: Prior | None = None
    _critic: Critic | None = None
    _anchor: Restore | None = None
    _natural: Natural | None = None
    kept: Keep = made_anew
    """What the prior made of measurements before."""

    @property
    def prior(self) -> Prior:
        """The frozen teacher."""
        assert self._prior is not None, "a method that asks for a prior says `needs_prior`"
        return self._prior

    @property
    def critic(self) -> Critic:
        """What is learned of the student's outputs."""
        assert self._critic is not None, "a method that asks for a critic says what it sees"
        return self._critic

    @property
    def anchor(self) -> Restore:
        """The student as it was at the start."""
        assert self._anchor is not None, "a method that asks for an anchor says `needs_anchor`"
        return self._anchor

    @property
    def natural(self) -> Natural:
        """Clean frames of other videos."""
        assert self._natural is not None, "a method that asks for clean video says `needs_natural`"
        return self._natural


@dataclass(frozen=True)
class Loss:
    """What is minimised, and what it comes from."""

    total: Tensor
    """A scalar."""
    by_example: tuple[Tensor, ...]
    """Of each example, for the log."""


class Method(ABC):
    """An objective; its implementations are frozen dataclasses whose fields are its settings."""

    name: ClassVar[str]

    @property
    def reads_clean(self) -> bool:
        """Whether its examples are `CleanExample`s. Where not, it is never given their clean frames."""
        return False

    @property
    def needs_natural(self) -> bool:
        """Whether it compares with clean frames of other videos."""
        return False

    @property
    def needs_prior(self) -> bool:
        """Whether it asks a teacher."""
        return False

    @property
    def keeps_targets(self) -> bool:
        """Whether some of what it asks the teacher about an example is the same each time."""
        return False

    @property
    def needs_anchor(self) -> bool:
        """Whether it asks the student as it was at the start."""
        return False

    @property
    def needs_float32(self) -> bool:
        """Whether it takes differences that are smaller than bfloat16 resolves."""
        return False

    @property
    def critic_sees(self) -> CriticSees:
        """Whether a critic is learned besides, and what it sees."""
        return "none"

    def reach(self, task: str) -> int:
        """How many times larger than the recipe says the side of a clean crop is, for examples of
        `task` whose measurement is itself the target."""
        return 1

    @abstractmethod
    def loss(
        self, examples: Sequence[Example], networks: Networks, generator: torch.Generator
    ) -> Loss:
        """The student's loss."""

    def critic_loss(
        self, examples: Sequence[Example], networks: Networks, generator: torch.Generator
    ) -> Loss:
        """The critic's loss; the student stands still.

        Raises:
            NotImplementedError: if this method learns no critic.
        """
        raise NotImplementedError(f"{self.name} learns no critic")


@dataclass(frozen=True, kw_only=True)
class Balance:
    """How much the error of an example counts, by task."""

    powers: Mapping[str, float] = field(default_factory=dict)
    """Of the relative squared error; 0.5 elsewhere."""

    def power(self, task: str) -> float:
        """That of `task`."""
        return self.powers.get(task, 0.5)


def during(measurement: Measurement, frames: slice) -> Measurement:
    """The part of `measurement` inside `frames`."""
    return Measurement(
        measurement.y[:, frames], measurement.degradation.at_frame(int(frames.start))
    )


def mean_of(each: Sequence[Tensor]) -> Loss:
    """Every example counts the same."""
    return Loss(torch.stack(list(each)).mean(), tuple(each))


def noised(z: Tensor, law: NoiseLaw, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(z + r e, r) with r drawn from `law`, [B]."""
    noise_std = law.drawn(len(z), generator).to(z)
    return at_level(z, noise_std, generator), noise_std


def at_level(z: Tensor, noise_std: Tensor, generator: torch.Generator) -> Tensor:
    """z + r e with r = noise_std, [B]."""
    e = torch.randn(z.shape, generator=generator, dtype=z.dtype).to(z)
    return z + noise_std.reshape(-1, 1, 1, 1, 1) * e
