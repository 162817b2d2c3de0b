"""What was found wrong with a video, as a person is told of it."""

from dataclasses import dataclass
from typing import Literal

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
