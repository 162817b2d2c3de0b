"""Learning from measurements alone: what is held back of y is predicted from the rest.

By what happened to the video:

    noise            recorrupted to recorrupted, (10), or Stein's estimate, (9)
    holes            some of the measured pixels are hidden and predicted, (11)
    blur, few pixels the measurement, shrunk where it is blurred, is a clean small video: it is
                     degraded again and restored

No clean frame and no teacher; the noise level and the operator have to be right.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from instantvir_distill.losses import hidden_error, recorrupted, relative_error, sure
from instantvir_distill.methods.base import (
    Balance,
    Example,
    Loss,
    Method,
    Networks,
    Reconstruction,
    mean_of,
)
from instantvir_models.operators.mask import Mask
from instantvir_models.operators.measurement import Degradation, Measurement, degrade, stored
from instantvir_models.operators.prior import noise_variance
from instantvir_models.tasks import DEBLUR, SR

LARGEST_SHRINK = 4
"""A blurred video is shrunk by no more than this before it counts as clean."""

STEP = 0.02
"""Of the finite difference in Stein's estimate, [-1, 1] range; asks for float32."""


@dataclass(frozen=True, kw_only=True)
class SelfSupervised(Balance, Method):
    """Predicts what it hides from the student."""

    name: ClassVar[str] = "self_supervised"

    noise: Literal["r2r", "sure"] = "r2r"
    """What learns from noisy measurements: recorruption, or Stein's estimate (two passes, float32)."""
    noise_gain: tuple[float, float] = (0.25, 1.0)
    """Least and most a of recorruption, log-uniform."""
    hidden: tuple[float, float] = (0.03, 0.25)
    """Least and most part of the measured pixels that is hidden."""

    def __post_init__(self) -> None:
        for name, (low, high) in (("noise_gain", self.noise_gain), ("hidden", self.hidden)):
            if not 0 < low <= high or (name == "hidden" and high >= 1):
                raise ValueError(f"`{name}` runs from low to high, got {low} and {high}")
        if self.noise not in ("r2r", "sure"):
            raise ValueError(f"`noise` is `r2r` or `sure`, got `{self.noise}`")

    @property
    def needs_float32(self) -> bool:
        return self.noise == "sure"

    def reach(self, task: str) -> int:
        return LARGEST_SHRINK if task.startswith((SR.name, DEBLUR.name)) else 1

    def loss(
        self, examples: Sequence[Example], networks: Networks, generator: torch.Generator
    ) -> Loss:
        asked = [self.question(example, generator) for example in examples]
        shown = [example for question in asked for example in question.examples]
        restored = iter(networks.restore(shown))
        each = [q.loss([next(restored) for _ in q.examples]) for q in asked]
        return mean_of(each)

    def question(self, example: Example, generator: torch.Generator) -> "Question":
        """What is asked about a measurement, by what happened to it."""
        measurement = example.measurement
        operator, power = measurement.operator, self.power(example.task)
        if operator.is_identity:
            if self.noise == "sure":
                return Moved.of(example, generator)
            least, most = self.noise_gain
            gain = math.exp(_uniform(math.log(least), math.log(most), generator))
            return Recorrupted.of(example, gain, generator)
        if operator.only_selects:
            return Hidden.of(example, _uniform(*self.hidden, generator), power, generator)
        return Again.of(example, self.reach(example.task), power, generator)


class Question:
    """Examples to restore, and what is wrong with the answers."""

    examples: tuple[Example, ...]

    def loss(self, made: Sequence[Reconstruction]) -> Tensor:
        """A scalar."""
        raise NotImplementedError


@dataclass(frozen=True)
class Recorrupted(Question):
    """A noisier measurement is restored; another one, with independent noise, is the target."""

    examples: tuple[Example, ...]
    target: Tensor
    target_variance: float
    """Of its noise."""

    @classmethod
    def of(cls, example: Example, gain: float, generator: torch.Generator) -> "Recorrupted":
        """With recorruption by `gain`."""
        measurement = example.measurement
        noise_std = noise_variance(measurement) ** 0.5
        noisier, target = recorrupted(measurement.y, noise_std, gain, generator)
        if _is_stored(measurement.y):  # a function of `noisier` is as independent of the target
            noisier = stored(noisier)
        told = Degradation(
            operator=measurement.operator,
            noise_std=noise_std * math.sqrt(1 + gain**2),
            is_lossy=measurement.degradation.is_lossy,
        )
        shown = Example(Measurement(noisier, told), example.frames, example.task)
        return cls((shown,), target[:, example.frames], (noise_std / gain) ** 2)

    def loss(self, made: Sequence[Reconstruction]) -> Tensor:
        """Squared, for a target with noise of its own allows nothing else."""
        scale = made[0].start_variance.mean() + self.target_variance
        return (made[0].x_hat - self.target).square().mean() / scale


@dataclass(frozen=True)
class Moved(Question):
    """The measurement, and the same moved a little along random signs: Stein's estimate."""

    examples: tuple[Example, ...]
    probe: Tensor

    @classmethod
    def of(cls, example: Example, generator: torch.Generator) -> "Moved":
        """With a random probe."""
        measurement = example.measurement
        y = measurement.y
        probe = 2 * torch.randint(0, 2, y.shape, generator=generator).to(y) - 1
        if _is_stored(y):  # what was cut off at black or white does not follow its noise
            probe = probe * (y.abs() < 1 - STEP)
        moved = Measurement(y + STEP * probe, measurement.degradation)
        other = Example(moved, example.frames, example.task)
        return cls((example, other), probe[:, example.frames])

    def loss(self, made: Sequence[Reconstruction]) -> Tensor:
        measurement = self.examples[0].inside
        seen, moved = (measurement.operator.A(one.x_hat) for one in made)
        variance = noise_variance(measurement)
        estimate = sure(seen, moved, measurement.y, self.probe, noise_std=variance**0.5, step=STEP)
        return estimate / made[0].start_variance.mean()


@dataclass(frozen=True)
class Hidden(Question):
    """Measured pixels that the student is not shown."""

    examples: tuple[Example, ...]
    y: Tensor
    hidden: Tensor
    power: float

    @classmethod
    def of(
        cls, example: Example, share: float, power: float, generator: torch.Generator
    ) -> "Hidden":
        """With about that share of the measured pixels hidden, at least one in each frame."""
        measurement = example.measurement
        known = measurement.operator.known_pixels(measurement.y)
        assert known is not None
        known = known[0].expand(measurement.y.shape[1], -1, -1, -1)
        chance = torch.rand(known.shape, generator=generator)
        order = torch.where(known > 0, chance, 2.0)
        first = order == order.amin((1, 2, 3), keepdim=True)
        hidden = ((chance < share) | first) & (known > 0)
        kept = (known > 0) & ~hidden
        shown = Measurement(
            measurement.y * kept,
            Degradation(
                operator=Mask(kept.float()),
                noise_std=measurement.noise_std,
                is_lossy=measurement.degradation.is_lossy,
            ),
        )
        frames = example.frames
        return cls(
            (Example(shown, frames, example.task),),
            measurement.y[:, frames],
            hidden[None, frames].to(measurement.y),
            power,
        )

    def loss(self, made: Sequence[Reconstruction]) -> Tensor:
        return hidden_error(
            made[0].x_hat, self.y, self.hidden, variance=made[0].start_variance, power=self.power
        )


@dataclass(frozen=True)
class Again(Question):
    """The measurement as a clean small video, degraded once more."""

    examples: tuple[Example, ...]
    x: Tensor
    power: float

    @classmethod
    def of(cls, example: Example, reach: int, power: float, generator: torch.Generator) -> "Again":
        """With a crop as large as the clean one over `reach`."""
        measurement = example.measurement
        operator = measurement.operator
        height, width = operator.clean_size(*measurement.y.shape[-2:])
        small = _shrunk(measurement)
        rows, columns = (
            _part(there, max(1, wanted // reach), operator.clean_size(1, 1)[0], generator)
            for there, wanted in zip(small.shape[-2:], (height, width), strict=True)
        )
        x = small[..., rows, columns]
        onto = operator.cropped(
            slice(0, rows.stop - rows.start), slice(0, columns.stop - columns.start)
        )
        given = Degradation(operator=onto, noise_std=measurement.noise_std)
        y = stored(degrade(x, given, generator=generator).y)
        shown = Example(Measurement(y, given), example.frames, example.task)
        return cls((shown,), x[:, example.frames], power)

    def loss(self, made: Sequence[Reconstruction]) -> Tensor:
        return relative_error(
            made[0].x_hat, self.x, variance=made[0].start_variance.mean(), power=self.power
        )


def _is_stored(y: Tensor) -> bool:
    """Whether y comes from a file, where nothing is darker than black or brighter than white."""
    return bool(y.abs().amax() <= 1)


def _shrunk(measurement: Measurement) -> Tensor:
    """y at the size at which it is about sharp: smaller by the blur that it still has."""
    traits = measurement.operator.traits
    blur = traits.blur_sigma / traits.scale
    factor = min(LARGEST_SHRINK, math.ceil(blur) + 1) if blur > 0 else 1
    y = measurement.y
    return F.avg_pool2d(y.flatten(0, 1), factor).unflatten(0, y.shape[:2])


def _part(there: int, wanted: int, multiple: int, generator: torch.Generator) -> slice:
    """A random stretch of `wanted` out of `there`, a multiple of what the operator takes."""
    size = min(there, wanted) // multiple * multiple
    if size == 0:
        raise ValueError(f"a measurement {there} pixels long is too small to be degraded again")
    first = int(torch.randint(there - size + 1, (), generator=generator))
    return slice(first, first + size)


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))
