"""From a user's words to a degradation: what is given is taken, what is not is estimated."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from instantvir_models.diagnosis.blur import doubt_about_blur
from instantvir_models.diagnosis.diagnose import (
    LEVELS,
    Diagnosis,
    confidence_of,
    diagnose_samples,
    error_finding,
    shows_something,
    told_with_codec,
)
from instantvir_models.diagnosis.error_model import (
    WHITE_LEVELS,
    expected_codec_error,
    is_white,
    shows_white_noise,
)
from instantvir_models.diagnosis.findings import Confidence, Finding, less_sure, shown_name
from instantvir_models.diagnosis.remedy import (
    careful_levels,
    enlarged_part,
    removable_part,
    shows_noise,
    told_factor,
    told_noise_std,
)
from instantvir_models.diagnosis.sample import Sample
from instantvir_models.diagnosis.traces import Traces, traces_of
from instantvir_models.errors import UsageError
from instantvir_models.media import USUAL_RULES, InputRules
from instantvir_models.media.fields import Fields
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
from instantvir_models.operators.mask import ChangingHoles, Dust, Mask, largest_known_part
from instantvir_models.operators.measurement import LEVEL, Degradation
from instantvir_models.operators.sidecar import read_sidecar, sidecar_path
from instantvir_models.operators.spec import (
    Specification,
    mask_of,
    parse_degradation,
    quoted,
)
from instantvir_models.tasks import (
    DEBLUR,
    DENOISE,
    INPAINT,
    SR,
    TASKS,
    TaskOptions,
    either,
    tasks_in,
)

DEFAULT_SCALE = 4
SAMPLE_FRAMES = 12
"""Frames that estimates are made from."""

UNSEEN_LEVELS = 0.5
"""Levels of noise that nobody sees."""

LEAST_SIDE = 64
"""Pixels, of a part of a picture that noise can be read off."""

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
    diagnosis: Diagnosis | None = None
    """What was found where nothing was told."""
    remarks: tuple[str, ...] = ()
    """Sentences for people: what was asked for and is not done, and why."""
    keep_detail: float = 0.0
    """Part of the fine contrast that stays everywhere, as `Session` takes it."""
    follow: float = 1.0
    """Part of the way to a solver's result that is gone, as `Session` takes it."""

    @property
    def is_nothing_to_do(self) -> bool:
        """Whether the video is better left as it is, but for its fields."""
        return self.diagnosis is not None and self.diagnosis.remedy.degradation is None


def resolve_by_looking(
    source: str, samples: Sequence[Sample], *, is_lossy: bool, fields: Fields | None = None
) -> Resolved:
    """The degradation of a video of which nothing is told, where one is sure to be undone well.

    Where none is, it is the one that changes nothing.

    Args:
        fields: what was found of them; the samples are of whole pictures.
    """
    diagnosis = diagnose_samples(source, samples, is_lossy=is_lossy, fields=fields)
    unchanged = Degradation(operator=Identity(), noise_std=0.0)
    return Resolved(
        degradation=diagnosis.remedy.degradation or unchanged,
        estimates=tuple(_as_estimate(finding) for finding in diagnosis.findings),
        is_operator_known=False,
        diagnosis=diagnosis,
        keep_detail=diagnosis.remedy.keep_detail,
    )


def resolve_video(
    source: str,
    options: TaskOptions,
    *,
    sample: Sample | None,
    is_lossy: bool,
    rules: InputRules = USUAL_RULES,
) -> Resolved:
    """The degradation of a video: from options, from the note beside it, or estimated.

    Args:
        source: a path, an address, or `-` for standard input, which has no note.
        sample: the first frames; None unless `needs_first_frames`.
        is_lossy: True when the video comes from a lossy codec.
        rules: how far the note may reach.

    Raises:
        UsageError: if nothing says what is wrong with the video, or options contradict it.
    """
    noted = _note_that_counts(source, options, rules)
    if noted is None:
        return resolve(options, sample=sample, is_lossy=is_lossy)
    return Resolved(
        degradation=replace(noted, is_lossy=is_lossy),
        is_operator_known=True,
        note=sidecar_path(Path(source)),
    )


def needs_first_frames(
    source: str, options: TaskOptions, *, is_lossy: bool, rules: InputRules = USUAL_RULES
) -> bool:
    """Whether `resolve_video` has to see the beginning of the video."""
    if _note_that_counts(source, options, rules) is not None or not (
        options.operator or options.tasks or options.dust
    ):
        return False
    return needs_sample(options, is_lossy=is_lossy)


def needs_to_be_looked_at(
    source: str, options: TaskOptions, rules: InputRules = USUAL_RULES
) -> bool:
    """Whether nothing at all is told of a video, so that `resolve_by_looking` has to find it out."""
    return options.tells_nothing and _note_that_counts(source, options, rules) is None


def _note_that_counts(source: str, options: TaskOptions, rules: InputRules) -> Degradation | None:
    """The note beside the video, unless it has none or the user says otherwise."""
    if source == "-" or not options.knows_nothing:
        return None
    return read_sidecar(Path(source), follow_references=rules.follow_references)


def resolve(options: TaskOptions, *, sample: Sample | None, is_lossy: bool) -> Resolved:
    """The degradation behind the tasks, as far as it can be known.

    Args:
        sample: a few frames of the video, which estimates are made from; None unless `needs_sample`.
        is_lossy: True when the video comes from a lossy codec.

    Raises:
        UsageError: if nothing says what is wrong with the video, or options contradict it.
    """
    if options.operator is not None:
        return _from_spec(options, sample, is_lossy)
    if not options.tasks and not options.dust and options.mask is not None:
        raise UsageError(
            "`--mask` says where something is lost, not what is to be done",
            hint="add `--task inpaint`",
        )
    if not options.tasks and not options.dust:
        flags = either([f"`--task {name}`" for name in TASKS])
        raise UsageError(
            "nothing says what is wrong with the video",
            hint=f"{_beside_numbers(options)}give {flags} (several are possible), `--dust`, or `--operator`",
        )
    _refuse_useless(options)
    return _Resolver(options, _Look(sample, is_lossy)).resolve()


def _beside_numbers(options: TaskOptions) -> str:
    """Which task a number that was given alone belongs to."""
    numbers = {
        ("--noise", DENOISE.name): options.noise_levels,
        ("--blur-sigma", DEBLUR.name): options.blur_sigma,
        ("--scale", SR.name): options.scale,
    }
    given = [
        f"`{flag}` goes with `--task {task}`"
        for (flag, task), n in numbers.items()
        if n is not None
    ]
    return "".join(f"{each}; " for each in given)


def needs_sample(options: TaskOptions, *, is_lossy: bool) -> bool:
    """Whether `resolve` has to look at the video; if not, no sample will do."""
    if options.operator is not None:
        return options.noise_levels is None and not _says_noise(options.operator)
    if INPAINT in options.tasks:
        knows_noise = options.noise_levels is not None or not is_lossy
        knows_blur = options.blur_sigma is not None and knows_noise
        takes_noise = DENOISE in options.tasks and options.noise_levels is None
        return options.mask is None or takes_noise or (DEBLUR in options.tasks and not knows_blur)
    if options.noise_levels is None or is_lossy:
        return True
    return DEBLUR in options.tasks and options.blur_sigma is None


def _from_spec(options: TaskOptions, sample: Sample | None, is_lossy: bool) -> Resolved:
    said = options.operator
    assert said is not None
    degradation = parse_degradation(said) if isinstance(said, str) else said
    estimates: tuple[EstimatedParameter, ...] = ()
    noise_std = degradation.noise_std
    if options.noise_levels is not None:
        noise_std = options.noise_levels * LEVEL
    elif not _says_noise(said) and degradation.operator.traits.known_fraction == 1:
        is_inverted = DEBLUR in tasks_in(degradation.operator.traits)
        noise_std, estimate = _Look(sample, is_lossy).noise(is_inverted=is_inverted)
        estimates = (estimate,)
    operator = degradation.operator
    if options.dust:
        operator = Dust() if operator.is_identity else Composition([operator, Dust()])
    known = Degradation(operator=operator, noise_std=noise_std, is_lossy=is_lossy)
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


class _Look:
    """What can be read off a sample; nothing is computed before it is asked for."""

    def __init__(self, sample: Sample | None, is_lossy: bool) -> None:
        self._sample, self.is_lossy = sample, is_lossy

    @property
    def sample(self) -> Sample:
        """The sample; whoever asks said so in `needs_sample`."""
        assert self._sample is not None, "needs_sample said that nothing is looked at"
        return self._sample

    @cached_property
    def traces(self) -> Traces:
        return traces_of(self.sample.frames, self.sample.codings)

    def noise(self, *, is_inverted: bool = False) -> tuple[float, EstimatedParameter]:
        """What to tell a solver in [-1, 1] units, and the same for people in 8-bit levels."""
        if shows_something(self.traces) and (self.is_lossy or self._is_correlated):
            return self._error_as_noise(is_inverted=is_inverted)
        found = estimate_noise_std(self.sample.frames)
        noise = EstimatedParameter(
            name="noise",
            value=found.value / LEVEL,
            std=found.std / LEVEL,
            unit=LEVELS,
            confidence=found.confidence,
        )
        if not (self.is_lossy or is_inverted):
            noise = self._doubted(noise)
        return noise.value * LEVEL, noise

    def _doubted(self, noise: EstimatedParameter) -> EstimatedParameter:
        """Noise by the finest band, as sure as all that is seen allows: texture is in that band, too, but
        stays from frame to frame. Unsure noise counts as what changes, and of one frame as little as it
        may be."""
        is_seen, error = shows_something(self.traces), self.error
        if noise.value < UNSEEN_LEVELS or (is_seen and shows_white_noise(self.traces)):
            return noise
        is_likely = is_seen and error.low <= noise.value <= error.high
        confidence = less_sure(noise.confidence, error.confidence) if is_likely else "low"
        if confidence != "low":
            return replace(noise, confidence=confidence)
        is_told_apart = is_seen and self.traces.num_frames > 1
        changing = error.value if is_told_apart else careful_levels(error)
        levels = min(changing, max(0.0, noise.value - noise.std))
        std = max((error.high - error.low) / 4, noise.std)
        return replace(noise, value=levels, std=std, confidence="low")

    @cached_property
    def error(self) -> Finding:
        """Rms error of the sample, noise and codec together."""
        return error_finding([self.traces])[0]

    @property
    def _is_correlated(self) -> bool:
        """Whether noise is surely there that the finest band alone does not show."""
        is_sure = self.error.confidence != "low" and self.error.value > WHITE_LEVELS
        return is_sure and not is_white(self.traces)

    def _error_as_noise(self, *, is_inverted: bool) -> tuple[float, EstimatedParameter]:
        """An unsure one counts as the least that it may be, but where a blur is undone."""
        error = self.error
        is_unsure = error.confidence == "low" and not is_inverted
        levels = error.low if is_unsure else error.value
        if self.is_lossy and not is_inverted:
            levels *= removable_part(self.traces.codec_name, is_noisy=self._is_noisy)
        factor = 1.0 if is_inverted else self._told_factor
        told = told_noise_std(factor * levels, is_lossy=self.is_lossy, is_inverted=is_inverted)
        return told, EstimatedParameter(
            name="noise and compression" if self.is_lossy else "noise",
            value=levels,
            std=(error.high - error.low) / 4,
            unit=error.unit,
            confidence=error.confidence,
        )

    @property
    def _is_noisy(self) -> bool:
        """Whether there is noise besides what a codec did."""
        share = expected_codec_error(self.traces).value
        return shows_noise(self.traces, self.error.value, share)

    @property
    def _told_factor(self) -> float:
        return told_factor(self.traces, is_noisy=self._is_noisy)

    def told_noise(self, levels: float, *, is_inverted: bool) -> float:
        """What to tell a solver of noise that the user knows of: behind a codec, with its share."""
        if not self.is_lossy:
            return levels * LEVEL
        error = told_with_codec(levels, self.traces)
        return told_noise_std(error, is_lossy=True, is_inverted=is_inverted)

    @property
    def codec_std(self) -> float:
        """What the codec is expected to have left, in [-1, 1] units."""
        return expected_codec_error(self.traces).value * LEVEL if self.is_lossy else 0.0

    def doubt_about_blur(self) -> str | None:
        """Why softness may be the codec's; None where it is not."""
        return doubt_about_blur(self.traces) if self.is_lossy else None


class _Resolver:
    """Builds one operator from what is given and what the sample shows."""

    def __init__(self, options: TaskOptions, look: _Look) -> None:
        self.options, self.look = options, look
        self.estimates: list[EstimatedParameter] = []
        self.remarks: list[str] = []
        self.is_known = True

    def resolve(self) -> Resolved:
        is_lossy = self.look.is_lossy
        mask = self._mask() if INPAINT in self.options.tasks else None
        operators: list[Operator] = self._blur() if DEBLUR in self.options.tasks else []
        noise_std = self._noise_std(mask, is_inverted=bool(operators))
        sigma = max(
            (b.traits.blur_sigma for b in operators if isinstance(b, GaussianBlur)), default=0
        )
        if sigma and is_lossy and self.options.noise_levels is None:
            noise_std = self._with_codec_noise(noise_std, sigma)
        if SR in self.options.tasks:
            # the factor is the user's, the kernel a guess
            self.is_known = False
            operators.append(Downsample(self.options.scale or DEFAULT_SCALE))
        if mask is not None:
            operators.append(mask)
        if self.options.dust:
            operators.append(Dust())
        operator = (
            Composition(operators) if len(operators) > 1 else next(iter(operators), Identity())
        )
        follow = self._follow()
        if follow < 1:
            self.remarks.append(
                f"the enlargement goes {follow:.0%} of the way: the small picture is crisper than an average"
            )
        return Resolved(
            degradation=Degradation(operator=operator, noise_std=noise_std, is_lossy=is_lossy),
            estimates=tuple(self.estimates),
            is_operator_known=self.is_known,
            remarks=tuple(self.remarks),
            follow=follow,
        )

    def _follow(self) -> float:
        """How far to go with an enlargement whose kernel is a guess."""
        options = self.options
        if SR not in options.tasks or INPAINT in options.tasks or not self.look.is_lossy:
            return 1.0
        return enlarged_part(self.look.traces)

    def _noise_std(self, mask: Operator | None, *, is_inverted: bool) -> float:
        told = self.options.noise_levels
        if mask is not None:
            return self._beside(mask, is_inverted=is_inverted) if told is None else told * LEVEL
        if told is not None:
            noise_std = self.look.told_noise(told, is_inverted=is_inverted)
            self._say_what_is_added(told, noise_std)
            return noise_std
        return self._noise_of(self.look, is_inverted=is_inverted)

    def _noise_of(self, look: _Look, *, is_inverted: bool) -> float:
        """The noise that a look shows, where it is enough to be seen."""
        noise_std, estimate = look.noise(is_inverted=is_inverted)
        self.estimates.append(estimate)
        if estimate.value >= UNSEEN_LEVELS or look.is_lossy or is_inverted:
            return noise_std
        if SR not in self.options.tasks:
            self.remarks.append("no noise is taken away: none is sure; `--noise` says otherwise")
        return 0.0

    def _beside(self, mask: Operator, *, is_inverted: bool) -> float:
        """The noise of a video with holes, which look like noise to every estimator: it is read off a part
        without any, and only where noise is to be taken away."""
        if DENOISE not in self.options.tasks:
            if self.options.tasks == (INPAINT,):
                self.remarks.append(self._what_stays)
            return 0.0
        part = _without_holes(self.look.sample, mask)
        if part is None:
            self.remarks.append(
                "no noise is taken away: how much there is cannot be read off between such holes; "
                "say it with `--noise`"
            )
            return 0.0
        return self._noise_of(_Look(part, self.look.is_lossy), is_inverted=is_inverted)

    @property
    def _what_stays(self) -> str:
        """What becomes of pixels that are there where only holes are to be filled."""
        more = "`--task denoise` or `--noise` takes noise away, too"
        if self.look.is_lossy:
            return f"besides holes, what the codec added is taken away, a few levels; {more}"
        return f"of the pixels that are there none is changed, noise and all; {more}"

    def _say_what_is_added(self, told: float, noise_std: float) -> None:
        """The noise that a person knows is not what a solver is told of: behind a codec its share is added."""
        look = self.look
        if not look.is_lossy or not shows_something(look.traces) or look.traces.is_lossless:
            return
        share = expected_codec_error(look.traces)
        name = shown_name(look.traces.codec_name)
        self.estimates.append(
            EstimatedParameter(
                name="codec noise",
                value=share.value,
                std=(share.high - share.low) / 4,
                unit="levels of 255",
                confidence=confidence_of(share),
            )
        )
        self.remarks.append(
            f"noise of {told:g} levels, as told, and what {name} added make "
            f"{told_with_codec(told, look.traces):.1f} levels (root of the sum of squares); the "
            f"model, which reckons with a codec by itself, is told {noise_std / LEVEL:.1f}"
        )

    def _with_codec_noise(self, noise_std: float, sigma: float) -> float:
        """The noise an inverse filter has to reckon with; the zeros of other blurs look the same."""
        codec_std = estimate_codec_noise_std(self.look.sample.frames, blur_sigma=sigma)
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
        reason = self.look.doubt_about_blur()
        if reason is not None:
            self.remarks.append(f"no blur is undone: {reason}; `--blur-sigma` says otherwise")
            return []
        found = estimate_blur(self.look.sample.frames, codec_std=self.look.codec_std)
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
        if found.kind is None:
            self.remarks.append(f"no blur is undone: {found.reason}")
            return []
        return [found.operator]

    def _mask(self) -> Operator:
        if self.options.mask is not None:
            return mask_of(self.options.mask, spec=f"mask:path={quoted(str(self.options.mask))}")
        self.is_known = False
        found = estimate_mask(self.look.sample.frames)
        if found.missing_fraction == 0:
            raise UsageError(
                "no missing pixels were found in the video",
                hint="give `--mask mask.png`, white where pixels are known",
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
        if found.per_frame:
            return ChangingHoles()
        return Mask(found.mask, spec="mask:path=estimated")


def _without_holes(sample: Sample, mask: Operator) -> Sample | None:
    """The largest part that no hole is in; None where it is too small to tell, or nobody knows it yet."""
    if not isinstance(mask, Mask) or mask.mask.shape[-2:] != sample.frames.shape[1:3]:
        return None
    rows, columns = largest_known_part(mask.mask)
    part = sample.frames[:, rows, columns]
    return sample.part(rows, columns) if min(part.shape[1:3]) >= LEAST_SIDE else None


def _as_estimate(finding: Finding) -> EstimatedParameter:
    return EstimatedParameter(
        name=finding.kind,
        value=finding.value,
        std=(finding.high - finding.low) / 4,
        unit=finding.unit,
        confidence=finding.confidence,
    )
