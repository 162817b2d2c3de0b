"""Whether a video is blurred, and whether that may be undone."""

from dataclasses import dataclass

from instantvir_models.diagnosis.error_model import expected_codec_error
from instantvir_models.diagnosis.findings import Finding
from instantvir_models.diagnosis.traces import Traces
from instantvir_models.media.frame import Pixels
from instantvir_models.operators.base import Operator
from instantvir_models.operators.compose import Identity
from instantvir_models.operators.estimate_blur import estimate_blur
from instantvir_models.operators.measurement import LEVEL

LARGEST_ERROR = 5.0
"""Levels of noise and codec error; behind more nothing is sharpened unasked."""

LARGEST_STEP = 18.0
"""Quantiser step; coarser ones wipe out what a blur, or dust, would be told by."""

LARGEST_CODEC_ERROR = 4.0
"""Levels; the same where no step is told."""


@dataclass(frozen=True, kw_only=True)
class BlurJudgement:
    """What was found of blur: what there is, and what may be undone of it."""

    operator: Operator
    """To be undone; the identity where nothing is sure."""
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    """What is to be said of a blur that is left as it is."""


def judged_blur(frames: Pixels, traces: Traces, error: Finding) -> BlurJudgement:
    """The blur of a video, if it is one that may be undone unasked."""
    reason = doubt_about_blur(traces)
    if reason is not None:
        return BlurJudgement(operator=Identity())
    codec_std = expected_codec_error(traces).value * LEVEL
    found = estimate_blur(frames, codec_std=codec_std)
    if found.kind is None:
        return BlurJudgement(operator=Identity())
    if error.value > LARGEST_ERROR:
        note = f"{found.reason}; it stays so, for noise hides how much"
        return BlurJudgement(operator=Identity(), notes=(note,))
    findings = tuple(
        Finding(
            kind="blur",
            value=parameter.value,
            unit=parameter.unit,
            low=max(0.0, parameter.value - 2 * parameter.std),
            high=parameter.value + 2 * parameter.std,
            confidence=found.confidence,
            sentence=f"{parameter.name} {parameter.value:.1f} {parameter.unit} "
            f"(confidence {found.confidence})",
        )
        for parameter in found.parameters
    )
    is_sure = found.confidence != "low"
    notes = () if is_sure else (f"{found.reason}; it stays so, for that is not sure",)
    return BlurJudgement(
        operator=found.operator if is_sure else Identity(),
        findings=findings,
        notes=notes,
    )


def doubt_about_blur(traces: Traces) -> str | None:
    """Why softness may be the codec's; None where it is not."""
    if traces.is_lossless:
        return None
    if traces.step is not None:
        is_coarse = traces.step > LARGEST_STEP
        return f"its codec's steps are coarse ({traces.step:.0f} levels)" if is_coarse else None
    share = expected_codec_error(traces)
    if share.value > LARGEST_CODEC_ERROR:
        return f"its codec alone may have made it so (about {share.value:.1f} levels)"
    return None
