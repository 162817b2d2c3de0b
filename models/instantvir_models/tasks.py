"""From a user's words to a degradation: what is given is taken, what is not is estimated."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from instantvir_models.errors import UsageError
from instantvir_models.operators.base import Operator
from instantvir_models.operators.blur import GaussianBlur
from instantvir_models.operators.compose import Composition, Identity
from instantvir_models.operators.downsample import Downsample
from instantvir_models.operators.estimate import (
    estimate_blur_sigma,
    estimate_codec_noise_std,
    estimate_mask,
    estimate_noise_std,
)
from instantvir_models.operators.mask import Mask
from instantvir_models.operators.measurement import LEVEL, Degradation
from instantvir_models.operators.spec import load_mask, parse_degradation

Confidence = Literal["high", "medium", "low"]

DEFAULT_SCALE = 4
SAMPLE_FRAMES = 12
"""Frames that estimates are made from."""

SMALLEST_BLUR = 0.5
"""Blur below this, in pixels, is taken as none."""


class Task(StrEnum):
    """What was done to the video, in the user's words."""

    DEBLUR = "deblur"
    SR = "sr"
    INPAINT = "inpaint"
    DENOISE = "denoise"


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """What the user knows about the degradation; None is to be estimated."""

    blur_sigma: float | None = None
    """Pixels."""
    noise_levels: float | None = None
    """8-bit levels."""
    scale: int | None = None
    mask: Path | None = None
    operator: str | None = None
    """A specification that says it all."""


@dataclass(frozen=True, kw_only=True)
class EstimatedParameter:
    """Something that was read off the video itself."""

    name: str
    value: float
    std: float
    """Uncertainty, one standard deviation."""
    unit: str
    confidence: Confidence


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A degradation, and how much of it is known."""

    degradation: Degradation
    estimates: tuple[EstimatedParameter, ...] = ()
    is_operator_known: bool
    """False when A (not only the noise) was estimated or assumed: nothing may claim consistency."""


def resolve(
    tasks: Sequence[Task],
    options: TaskOptions,
    *,
    sample: NDArray[np.uint8] | NDArray[np.uint16],
    is_lossy: bool,
) -> Resolved:
    """The degradation behind `tasks`, as far as it can be known.

    Args:
        sample: a few frames of the video [T, h, w, 3], which estimates are made from.
        is_lossy: True when the video comes from a lossy codec.

    Raises:
        UsageError: if nothing says what is wrong with the video, or options contradict it.
    """
    if options.operator is not None:
        return _from_spec(options, sample, is_lossy)
    if not tasks:
        raise UsageError(
            "nothing says what is wrong with the video",
            hint="give `--task deblur`, `sr`, `inpaint` or `denoise` (several are possible), "
            "or `--operator`",
        )
    _refuse_useless(tasks, options)
    return _Resolver(set(tasks), options, sample).resolve(is_lossy)


def needs_sample(tasks: Sequence[Task], options: TaskOptions) -> bool:
    """Whether `resolve` has to look at the video; if not, an empty sample will do."""
    if options.operator is not None:
        return options.noise_levels is None and "noise" not in options.operator
    if Task.INPAINT in tasks:
        knows_blur = options.blur_sigma is not None and options.noise_levels is not None
        return options.mask is None or (Task.DEBLUR in tasks and not knows_blur)
    if options.noise_levels is None:
        return True
    return Task.DEBLUR in tasks and options.blur_sigma is None


def _from_spec(
    options: TaskOptions, sample: NDArray[np.uint8] | NDArray[np.uint16], is_lossy: bool
) -> Resolved:
    assert options.operator is not None
    degradation = parse_degradation(options.operator)
    estimates: tuple[EstimatedParameter, ...] = ()
    noise_std = degradation.noise_std
    if options.noise_levels is not None:
        noise_std = options.noise_levels * LEVEL
    elif "noise" not in options.operator and degradation.operator.traits.known_fraction == 1:
        noise_std, estimate = _noise(sample)
        estimates = (estimate,)
    known = Degradation(operator=degradation.operator, noise_std=noise_std, is_lossy=is_lossy)
    return Resolved(degradation=known, estimates=estimates, is_operator_known=True)


def _refuse_useless(tasks: Sequence[Task], options: TaskOptions) -> None:
    """An option for a task that is not asked for would silently do nothing: say so."""
    wanted = [
        (options.blur_sigma, Task.DEBLUR, "--blur-sigma"),
        (options.scale, Task.SR, "--scale"),
        (options.mask, Task.INPAINT, "--mask"),
    ]
    for value, task, flag in wanted:
        if value is not None and task not in tasks:
            raise UsageError(f"`{flag}` has no effect without `--task {task}`")


class _Resolver:
    """Builds one operator from what is given and what the sample shows."""

    def __init__(
        self, tasks: set[Task], options: TaskOptions, sample: NDArray[np.uint8] | NDArray[np.uint16]
    ) -> None:
        self.tasks, self.options, self.sample = tasks, options, sample
        self.estimates: list[EstimatedParameter] = []
        self.is_known = True

    def resolve(self, is_lossy: bool) -> Resolved:
        mask = self._mask() if Task.INPAINT in self.tasks else None
        noise_std = self._noise_std(has_mask=mask is not None)
        operators: list[Operator] = []
        if Task.DEBLUR in self.tasks:
            operators += self._blur(noise_std)
            if operators and is_lossy and self.options.noise_levels is None:
                noise_std = self._with_codec_noise(noise_std)
        if Task.SR in self.tasks:
            # the factor is the user's, the kernel a guess
            self.is_known = False
            operators.append(Downsample(self.options.scale or DEFAULT_SCALE))
        if mask is not None:
            operators.append(mask)
        operator = (
            Composition(operators) if len(operators) > 1 else next(iter(operators), Identity())
        )
        return Resolved(
            degradation=Degradation(operator=operator, noise_std=noise_std, is_lossy=is_lossy),
            estimates=tuple(self.estimates),
            is_operator_known=self.is_known,
        )

    def _noise_std(self, *, has_mask: bool) -> float:
        if self.options.noise_levels is not None:
            return self.options.noise_levels * LEVEL
        if has_mask:  # holes look like noise to every estimator
            return 0.0
        noise_std, estimate = _noise(self.sample)
        self.estimates.append(estimate)
        return noise_std

    def _with_codec_noise(self, noise_std: float) -> float:
        """The noise an inverse filter has to reckon with."""
        codec_std = estimate_codec_noise_std(self.sample)
        if codec_std <= noise_std:
            return noise_std
        self.estimates.append(
            EstimatedParameter(
                name="codec noise",
                value=codec_std / LEVEL,
                std=0.4 * codec_std / LEVEL,
                unit="levels of 255",
                confidence="medium",
            )
        )
        return codec_std

    def _blur(self, noise_std: float) -> list[Operator]:
        sigma = self.options.blur_sigma
        if sigma is None:
            self.is_known = False
            found = estimate_blur_sigma(self.sample, noise_std)
            sigma = found.value
            self.estimates.append(
                EstimatedParameter(
                    name="blur sigma",
                    value=found.value,
                    std=found.std,
                    unit="px",
                    confidence=found.confidence,
                )
            )
        return [GaussianBlur(sigma)] if sigma >= SMALLEST_BLUR else []

    def _mask(self) -> Mask:
        if self.options.mask is not None:
            return Mask(load_mask(self.options.mask), spec=f"mask:path={self.options.mask}")
        self.is_known = False
        found = estimate_mask(self.sample)
        if found.missing_fraction == 0:
            raise UsageError(
                "no missing pixels were found in the video",
                hint="give `--mask mask.png`, white where pixels are known",
            )
        if found.per_frame:
            raise UsageError(
                "the missing pixels change from frame to frame, and only the first frames were seen",
                hint="give the masks: `--mask masks.npz`, as `instantvir degrade` writes them",
            )
        self.estimates.append(
            EstimatedParameter(
                name="missing pixels",
                value=100 * found.missing_fraction,
                std=0.0,
                unit="%",
                confidence=found.confidence,
            )
        )
        return Mask(found.mask, spec="mask:path=estimated")


def _noise(
    sample: NDArray[np.uint8] | NDArray[np.uint16],
) -> tuple[float, EstimatedParameter]:
    """Noise in [-1, 1] units, and the same for people in 8-bit levels."""
    found = estimate_noise_std(sample)
    return found.value, EstimatedParameter(
        name="noise",
        value=found.value / LEVEL,
        std=found.std / LEVEL,
        unit="levels of 255",
        confidence=found.confidence,
    )


def tasks_in(degradation: Degradation) -> tuple[str, ...]:
    """What a degradation needs, in the words of `Task`."""
    traits = degradation.operator.traits
    found = {
        Task.DEBLUR: traits.blur_sigma > 0 or traits.temporal_sigma > 0,
        Task.SR: traits.scale > 1,
        Task.INPAINT: traits.known_fraction < 1,
    }
    return tuple(task.value for task, is_there in found.items() if is_there) or ("denoise",)
