"""Whether a video is blurred, and whether that may be undone."""

from instantvir_models.diagnosis.error_model import expected_codec_error
from instantvir_models.diagnosis.findings import Finding
from instantvir_models.diagnosis.traces import Traces
from instantvir_models.media.frame import Pixels
from instantvir_models.operators.estimate import estimate_blur_sigma
from instantvir_models.operators.measurement import LEVEL

SMALLEST_BLUR = 1.0
"""Pixels; less is easily the codec's softness, or the lens's."""

LARGEST_ERROR = 5.0
"""Levels of noise and codec error; behind more nothing is sharpened unasked."""

LARGEST_STEP = 18.0
"""Quantiser step; coarser ones wipe out what a blur would be told by."""

LARGEST_CODEC_ERROR = 4.0
"""Levels; the same where no step is told."""


def blur_finding(
    frames: Pixels, traces: Traces, error: Finding
) -> tuple[Finding | None, str | None]:
    """A blur that may be undone, and what is to be said of one that may not."""
    found = estimate_blur_sigma(frames, error.value * LEVEL)
    if found.value < SMALLEST_BLUR:
        return None, None
    reason = doubt_about_blur(traces)
    if reason is None and error.value > LARGEST_ERROR:
        reason = "noise hides what it is"
    if reason is not None:
        return None, f"edges are soft by about {found.value:.1f} px and stay so, for {reason}"
    finding = Finding(
        kind="blur",
        value=found.value,
        unit="px",
        low=max(0.0, found.value - 2 * found.std),
        high=found.value + 2 * found.std,
        confidence=found.confidence,
        sentence=f"blurred by {found.value:.1f} px (confidence {found.confidence})",
    )
    return finding, None


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
