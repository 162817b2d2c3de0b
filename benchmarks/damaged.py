"""Parts of clips, damaged at random as real files are, beside what is true of each.

What `reliability.py`, `fit_diagnosis.py` and others share. Frames are uint8 [T, H, W, 3].
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from instantvir_models.diagnosis.sample import Sample
from instantvir_models.diagnosis.traces import traces_of
from instantvir_models.media import open_video
from instantvir_models.media.round_trip import LOSSLESS, Encoder, Frames, h264, hevc, mpeg, vp9
from instantvir_models.suite.damage import grain, sensor, stored, tape, white

NOISES = {"white": white, "grain": grain, "sensor": sensor, "tape": tape}


def rms_error(frames: Frames, clean: Frames) -> float:
    """In 8-bit levels, over all channels."""
    return float(np.sqrt(np.mean(np.square(frames.astype(np.float32) - clean))))


@dataclass(frozen=True)
class Draw:
    """Where random damage is drawn from."""

    clips: Sequence[Path]
    rng: np.random.Generator

    def integer(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def encoder(self) -> Encoder:
        """One of all, at a quality that files have."""
        makers = {
            lambda: LOSSLESS: 0.12,
            lambda: h264(self.integer(16, 40)): 0.2,
            lambda: h264(self.integer(16, 40), "medium"): 0.05,
            lambda: hevc(self.integer(18, 40)): 0.2,
            lambda: vp9(self.integer(20, 58)): 0.1,
            lambda: mpeg("mpeg2video", self.integer(2, 24)): 0.11,
            lambda: mpeg("mpeg4", self.integer(2, 24)): 0.11,
            lambda: mpeg("mjpeg", self.integer(2, 24)): 0.11,
        }
        which = self.rng.choice(len(makers), p=list(makers.values()))
        return list(makers)[int(which)]()

    def clean(self) -> tuple[str, Frames]:
        """The name of a clip and a part of it, half of the time at half size."""
        path = self.clips[self.integer(0, len(self.clips) - 1)]
        frames = read_frames(path)
        start = self.integer(0, max(0, len(frames) - MOST_FRAMES - 1))
        frames = frames[start : start + MOST_FRAMES]
        factor = self.integer(1, 2)
        height, width = (size // factor for size in frames.shape[1:3])
        part_h, part_w = min(height, PART[0]) // 2 * 2, min(width, PART[1]) // 2 * 2
        top = self.integer(0, frames.shape[1] - factor * part_h)
        left = self.integer(0, frames.shape[2] - factor * part_w)
        part = frames[:, top : top + factor * part_h, left : left + factor * part_w]
        size = (part_w, part_h)
        small = [
            cv2.resize(np.ascontiguousarray(f), size, interpolation=cv2.INTER_AREA) for f in part
        ]
        return path.name, np.stack(small)


MOST_FRAMES = 6
PART = (144, 256)
"""Rows and columns of what is looked at."""

VERSIONS = 4
"""Rows made of each part of a clip."""


def read_frames(path: Path) -> Frames:
    """Frames of a video, or of an array of them on disk, which is not read whole."""
    if path.suffix == ".npy":
        return np.load(path, mmap_mode="r")
    with open_video(path, other_streams=False) as reader:
        return np.stack([frame.pixels for frame in islice(reader, 48)]).astype(np.uint8)


def rows_of(draw: Draw) -> Iterator[dict[str, Any]]:
    """What is seen of one part of a clip, damaged in several ways, and what is true of each."""
    name, part = draw.clean()
    rng = draw.rng
    for _ in range(VERSIONS):
        soft = float(rng.choice([0, 0, 0, rng.uniform(0.5, 2.5)]))
        clean = np.stack([cv2.GaussianBlur(f, (0, 0), soft) for f in part]) if soft else part
        kind = str(rng.choice(list(NOISES)))
        levels = float(np.exp(rng.uniform(0, np.log(50)))) if rng.random() < 0.72 else 0.0
        noisy = stored(NOISES[kind](clean, levels, rng)) if levels else clean
        encoder, count = draw.encoder(), int(rng.choice([1, 2, 6], p=[0.1, 0.1, 0.8]))
        sample = decoded(encoder.encoded(noisy[: max(count, 3)]), count)
        count = len(sample.frames)
        yield dict(
            asdict(traces_of(sample.frames, sample.codings)),
            clip=name,
            encoder=encoder.name,
            kind=kind if levels else "none",
            noise=levels,
            error=rms_error(sample.frames, clean[:count]),
            noise_true=rms_error(noisy[:count], clean[:count]),
            codec_error=rms_error(sample.frames, noisy[:count]),
        )


def decoded(file: bytes, count: int) -> Sample:
    """The first frames of a file, and how they were stored."""
    with open_video(io.BytesIO(file), threads=1) as reader:
        return Sample.of(list(islice(reader, count)))
