"""From a user's words to a degradation: what is given is taken, what is not is estimated."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from instantvir_models.errors import UsageError
from instantvir_models.media.frame import Pixels
from instantvir_models.operators.base import Operator
from instantvir_models.operators.blur import GaussianBlur
from instantvir_models.operators.compose import Composition, Identity
from instantvir_models.operators.downsample import Downsample
from instantvir_models.operators.estimate import (
    estimate_blur,
    estimate_codec_noise_std,
    estimate_mask,
    estimate_noise_std,
)
from instantvir_models.operators.mask import Mask
from instantvir_models.operators.measurement import LEVEL, Degradation
from instantvir_models.operators.sidecar import read_sidecar, sidecar_path
from instantvir_models.operators.spec import Specification, load_mask, parse_degradation
from instantvir_models.tasks import DEBLUR, INPAINT, SR, TASKS, TaskOptions, either

Confidence = Literal["high", "medium", "low"]

DEFAULT_SCALE = 4
SAMPLE_FRAMES = 12
"""Frames that estimates are made from."""

SMALLEST_BLUR = 0.5
"""Blur below this, in pixels, is taken as none."""


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
    note: Path | None = None
    """The note beside the video that it was read from, if it was."""


def resolve_video(
    source: str, options: TaskOptions, *, sample: Sequence[Pixels], is_lossy: bool
) -> Resolved:
    """The degradation of a video: from options, from the note beside it, or estimated.

    Args:
        source: a path, an address, or `-` for standard input, which has no note.
        sample: the first frames, [H, W, 3] each; may be empty unless `needs_first_frames`.
        is_lossy: True when the video comes from a lossy codec.

    Raises:
        UsageError: if nothing says what is wrong with the video, or options contradict it.
    """
    noted = _note_that_counts(source, options)
    if noted is None:
        frames: Pixels = np.stack(sample) if sample else np.empty(0, np.uint8)  # type: ignore[assignment]
        return resolve(options, sample=frames, is_lossy=is_lossy)
    return Resolved(
        degradation=replace(noted, is_lossy=is_lossy),
        is_operator_known=True,
        note=sidecar_path(Path(source)),
    )


def needs_first_frames(source: str, options: TaskOptions) -> bool:
    """Whether `resolve_video` has to see the beginning of the video."""
    if _note_that_counts(source, options) is not None or not (options.operator or options.tasks):
        return False
    return needs_sample(options)


def _note_that_counts(source: str, options: TaskOptions) -> Degradation | None:
    """The note beside the video, unless it has none or the user says otherwise."""
    if source == "-" or not options.knows_nothing:
        return None
    return read_sidecar(Path(source))


def resolve(options: TaskOptions, *, sample: Pixels, is_lossy: bool) -> Resolved:
    """The degradation behind the tasks, as far as it can be known.

    Args:
        sample: a few frames of the video [T, h, w, 3], which estimates are made from.
        is_lossy: True when the video comes from a lossy codec.

    Raises:
        UsageError: if nothing says what is wrong with the video, or options contradict it.
    """
    if options.operator is not None:
        return _from_spec(options, sample, is_lossy)
    if not options.tasks:
        flags = either([f"`--task {name}`" for name in TASKS])
        raise UsageError(
            "nothing says what is wrong with the video",
            hint=f"give {flags} (several are possible), or `--operator`",
        )
    _refuse_useless(options)
    return _Resolver(options, sample).resolve(is_lossy)


def needs_sample(options: TaskOptions) -> bool:
    """Whether `resolve` has to look at the video; if not, an empty sample will do."""
    if options.operator is not None:
        return options.noise_levels is None and not _says_noise(options.operator)
    if INPAINT in options.tasks:
        knows_blur = options.blur_sigma is not None and options.noise_levels is not None
        return options.mask is None or (DEBLUR in options.tasks and not knows_blur)
    if options.noise_levels is None:
        return True
    return DEBLUR in options.tasks and options.blur_sigma is None


def _from_spec(options: TaskOptions, sample: Pixels, is_lossy: bool) -> Resolved:
    said = options.operator
    assert said is not None
    degradation = parse_degradation(said) if isinstance(said, str) else said
    estimates: tuple[EstimatedParameter, ...] = ()
    noise_std = degradation.noise_std
    if options.noise_levels is not None:
        noise_std = options.noise_levels * LEVEL
    elif not _says_noise(said) and degradation.operator.traits.known_fraction == 1:
        noise_std, estimate = _noise(sample)
        estimates = (estimate,)
    known = Degradation(operator=degradation.operator, noise_std=noise_std, is_lossy=is_lossy)
    return Resolved(degradation=known, estimates=estimates, is_operator_known=True)


def _says_noise(operator: str | Degradation) -> bool:
    """Whether it says how much noise there is; if not, that is to be estimated."""
    return isinstance(operator, Degradation) or Specification.read(operator).noise_std is not None


def _refuse_useless(options: TaskOptions) -> None:
    """An option for a task that is not asked for would silently do nothing: say so."""
    for task in TASKS.values():
        own = task.own_option
        if own and getattr(options, own) is not None and task not in options.tasks:
            flag = own.replace("_", "-")
            raise UsageError(f"`--{flag}` has no effect without `--task {task}`")


class _Resolver:
    """Builds one operator from what is given and what the sample shows."""

    def __init__(self, options: TaskOptions, sample: Pixels) -> None:
        self.options, self.sample = options, sample
        self.estimates: list[EstimatedParameter] = []
        self.is_known = True

    def resolve(self, is_lossy: bool) -> Resolved:
        mask = self._mask() if INPAINT in self.options.tasks else None
        noise_std = self._noise_std(has_mask=mask is not None)
        operators: list[Operator] = []
        if DEBLUR in self.options.tasks:
            operators += self._blur()
            if operators and is_lossy and self.options.noise_levels is None:
                noise_std = self._with_codec_noise(noise_std)
        if SR in self.options.tasks:
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

    def _blur(self) -> list[Operator]:
        sigma = self.options.blur_sigma
        if sigma is not None:
            return [GaussianBlur(sigma)] if sigma >= SMALLEST_BLUR else []
        self.is_known = False
        found = estimate_blur(self.sample)
        self.estimates += [
            EstimatedParameter(
                name=parameter.name,
                value=parameter.value,
                std=parameter.std,
                unit=parameter.unit,
                confidence=found.confidence,
            )
            for parameter in found.parameters
        ]
        return [] if found.operator.is_identity else [found.operator]

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


def _noise(sample: Pixels) -> tuple[float, EstimatedParameter]:
    """Noise in [-1, 1] units, and the same for people in 8-bit levels."""
    found = estimate_noise_std(sample)
    return found.value, EstimatedParameter(
        name="noise",
        value=found.value / LEVEL,
        std=found.std / LEVEL,
        unit="levels of 255",
        confidence=found.confidence,
    )
