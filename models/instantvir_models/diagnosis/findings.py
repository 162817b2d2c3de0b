"""What was found wrong with a video, as a person is told of it."""

from dataclasses import dataclass
from typing import Literal

CODEC_NAMES = {
    "h264": "H.264",
    "hevc": "HEVC",
    "av1": "AV1",
    "vp8": "VP8",
    "vp9": "VP9",
    "mpeg1video": "MPEG-1",
    "mpeg2video": "MPEG-2",
    "mpeg4": "MPEG-4",
    "h263": "H.263",
    "mjpeg": "Motion JPEG",
}
"""As people call them, by what FFmpeg does."""

Confidence = Literal["high", "medium", "low"]

Kind = Literal["fields", "dust", "error", "noise", "codec", "blur", "sharpening"]
"""`fields`: that pictures hold rows of two moments; `dust`: what lay on a film, spots a frame;
`error`: how far the file is from clean, noise and codec together; `noise`: what the camera, film or
tape added, as far as it can still be seen; `codec`: what compression alone leaves; `blur`: a number
that describes it; `sharpening`: how much finer than natural the busiest detail is."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was read off a video."""

    kind: Kind
    value: float
    unit: str
    low: float
    """The truth lies from here ..."""
    high: float
    """... to here, 95 times in 100."""
    confidence: Confidence
    sentence: str
    """The same in words."""


def less_sure(*confidences: Confidence) -> Confidence:
    """The lowest of them."""
    order: tuple[Confidence, ...] = ("low", "medium", "high")
    return min(confidences, key=order.index)


def shown_name(codec_name: str | None) -> str:
    """A codec as people call it."""
    return CODEC_NAMES.get(codec_name or "", codec_name or "the codec")
