"""Kinds of realistic damage: files as people have them, made of clean frames by real encoders."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from instantvir_models.media.round_trip import LOSSLESS, Encoder, Frames, h264, hevc, mpeg
from instantvir_models.suite.damage import (
    cartoon,
    film,
    half,
    kept,
    out_of_focus,
    phone,
    quarter,
    screen,
    shaken,
    sharpened,
    stored,
    vhs,
    webcam,
    white,
    woven,
)

PICTURES = 6
"""In a file, where nothing else is said."""


@dataclass(frozen=True)
class Kind:
    """One kind of damage."""

    name: str
    damaged: Callable[[Frames, np.random.Generator], Frames]
    encoder: Encoder
    told: tuple[str, ...] = ("identity",)
    """Operators that are tried, each with every noise."""
    scale: int = 1
    """How much smaller the file is than the clean clip."""
    frames_per_picture: int = 1
    """2 where a picture holds fields of two moments."""
    pictures: int = PICTURES
    """In the file."""
    made: Callable[[Frames], Frames] | None = None
    """What makes the clean picture of the clip; None where that is it."""

    def file(self, clean: Frames, seed: int) -> bytes:
        """What is made of clean frames, as a file."""
        return self.encoder.encoded(self.damaged(clean, np.random.default_rng(seed)))


KINDS = (
    Kind("mjpeg webcam q18 noise 6", webcam, mpeg("mjpeg", 18)),
    Kind("phone at night", phone, h264(27)),
    Kind("vhs", vhs, mpeg("mpeg2video", 6)),
    Kind("film grain and dust", film, h264(20), ("identity", "dust")),
    Kind("h264 crf 36", kept, h264(36)),
    Kind("h264 crf 32", kept, h264(32)),
    Kind("h264 crf 26", kept, h264(26)),
    Kind("mpeg2 q16", kept, mpeg("mpeg2video", 16)),
    Kind("mpeg4 q14", kept, mpeg("mpeg4", 14)),
    Kind("hevc crf 32", kept, hevc(32)),
    Kind("out of focus 3.5", out_of_focus, h264(18), ("identity", "defocus:radius=3.5")),
    Kind("motion blur 11", shaken, h264(18), ("identity", "motion:length=11,angle=150")),
    Kind("over-sharpened", sharpened, h264(25), ("identity", "sharpen:amount=1.2,sigma=1.2")),
    Kind("x2 bicubic", half, h264(24), ("down:factor=2,kernel=bicubic",), 2),
    Kind("x4 area", quarter, h264(24), ("down:factor=4,kernel=area",), 4),
    Kind("interlaced", woven, h264(20), frames_per_picture=2, pictures=12),
    Kind("clean crf 16", kept, h264(16)),
    Kind("lossless noise 10", lambda x, rng: stored(white(x, 10, rng)), LOSSLESS),
    Kind("cartoon crf 28", kept, h264(28), made=cartoon),
    Kind("screen crf 28", kept, h264(28), made=screen),
    Kind("clean lossless", kept, LOSSLESS),
)
