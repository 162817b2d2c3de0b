"""Damage as real files have it: noise of several kinds, and real encoders, in memory.

What `reliability.py`, `fit_diagnosis.py` and `zoo.py` share. Frames are uint8 [T, H, W, 3].
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from instantvir_models.diagnosis.sample import Sample
from instantvir_models.diagnosis.traces import traces_of
from instantvir_models.media import open_video

Frames = NDArray[np.uint8]
Levels = NDArray[np.float32]
"""The same in float 8-bit levels."""


@dataclass(frozen=True)
class Encoder:
    """One way of making a file."""

    name: str
    codec: str
    options: tuple[tuple[str, str], ...] = ()
    pix_fmt: str = "yuv420p"
    container: str = "matroska"

    def encoded(self, frames: Frames) -> bytes:
        """The file."""
        height, width = frames.shape[1:3]
        buffer = io.BytesIO()
        with av.open(buffer, "w", format=self.container) as file:
            stream = file.add_stream(self.codec, rate=Fraction(25))
            stream.width, stream.height, stream.pix_fmt = width, height, self.pix_fmt
            stream.codec_context.thread_count = 1
            stream.options = dict(self.options)
            for pixels in frames:
                picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                file.mux(stream.encode(picture.reformat(format=self.pix_fmt)))
            file.mux(stream.encode())
        return buffer.getvalue()


def h264(crf: int, preset: str = "veryfast") -> Encoder:
    """x264."""
    return Encoder(f"h264 crf {crf}", "libx264", (("crf", str(crf)), ("preset", preset)))


def hevc(crf: int) -> Encoder:
    """x265."""
    options = (("crf", str(crf)), ("preset", "veryfast"), ("x265-params", "log-level=none:pools=1"))
    return Encoder(f"hevc crf {crf}", "libx265", options)


def vp9(crf: int) -> Encoder:
    """libvpx."""
    options = (("crf", str(crf)), ("b", "0"), ("deadline", "realtime"), ("cpu-used", "6"))
    return Encoder(f"vp9 crf {crf}", "libvpx-vp9", options)


def mpeg2(quantiser: int) -> Encoder:
    """MPEG-2 at a fixed quantiser."""
    q = str(quantiser)
    return Encoder(f"mpeg2 q {q}", "mpeg2video", (("qmin", q), ("qmax", q)))


def mpeg4(quantiser: int) -> Encoder:
    """MPEG-4 part 2 at a fixed quantiser."""
    q = str(quantiser)
    return Encoder(f"mpeg4 q {q}", "mpeg4", (("qmin", q), ("qmax", q)))


def mjpeg(quantiser: int) -> Encoder:
    """Motion JPEG at a fixed quantiser."""
    q = str(quantiser)
    return Encoder(f"mjpeg q {q}", "mjpeg", (("qmin", q), ("qmax", q)), pix_fmt="yuvj420p")


LOSSLESS = Encoder("lossless", "ffv1", pix_fmt="bgr0")


def white(clean: Frames, levels: float, rng: np.random.Generator) -> Levels:
    """Independent noise on every channel."""
    return clean + levels * _gaussian(clean.shape, rng)


def grain(clean: Frames, levels: float, rng: np.random.Generator, *, size: float = 0.9) -> Levels:
    """Grey grain of film: soft, weaker in shadows and highlights; rms `levels`."""
    noise = _gaussian((*clean.shape[:3], 1), rng)
    noise = np.stack([cv2.GaussianBlur(one, (0, 0), size)[..., None] for one in noise])
    tone = clean.mean(-1, keepdims=True) / 255
    noise *= 0.5 + np.sqrt(np.clip(4 * tone * (1 - tone), 0, 1))
    return clean + _with_rms(np.repeat(noise, 3, -1), levels)


def sensor(clean: Frames, levels: float, rng: np.random.Generator) -> Levels:
    """Noise of a Bayer sensor that was demosaiced, stronger in light; rms `levels`."""
    strength = np.sqrt(0.3 + clean / 255)
    raw = strength * _gaussian(clean.shape, rng)
    rows, columns = np.indices(clean.shape[1:3])
    mask = np.zeros((*clean.shape[1:3], 3), np.float32)
    mask[..., 0] = (rows % 2 == 0) & (columns % 2 == 0)
    mask[..., 1] = (rows + columns) % 2 == 1
    mask[..., 2] = (rows % 2 == 1) & (columns % 2 == 1)
    kernel = np.array([[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]], np.float32)
    weight = cv2.filter2D(mask, -1, kernel)
    noise = np.stack([cv2.filter2D(one * mask, -1, kernel) / weight for one in raw])
    return clean + _with_rms(noise, levels)


def tape(clean: Frames, levels: float, rng: np.random.Generator) -> Levels:
    """Noise of analogue tape: smeared along rows, colour far more than light; rms `levels`."""
    light = np.stack(
        [cv2.GaussianBlur(n, (0, 0), 1.2, sigmaY=0.3) for n in _gaussian(clean.shape[:3], rng)]
    )
    color = np.stack(
        [cv2.GaussianBlur(n, (0, 0), 5, sigmaY=0.8) for n in _gaussian((*clean.shape[:3], 2), rng)]
    )
    light, color = light / light.std(), color / color.std()
    red, blue = light + 1.2 * color[..., 0], light + 1.2 * color[..., 1]
    green = light - 0.6 * color.sum(-1)
    return clean + _with_rms(np.stack([red, green, blue], -1), levels)


NOISES = {"white": white, "grain": grain, "sensor": sensor, "tape": tape}


def stored(levels: Levels) -> Frames:
    """As 8 bits hold it."""
    return np.asarray(levels).round().clip(0, 255).astype(np.uint8)


def rms_error(frames: Frames, clean: Frames) -> float:
    """In 8-bit levels, over all channels."""
    return float(np.sqrt(np.mean(np.square(frames.astype(np.float32) - clean))))


def _gaussian(shape: tuple[int, ...], rng: np.random.Generator) -> Levels:
    return rng.standard_normal(shape, dtype=np.float32)


def _with_rms(noise: Levels, levels: float) -> Levels:
    rms = float(np.sqrt(np.mean(np.square(noise))))
    return noise * np.float32(levels / max(rms, 1e-9))


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
            lambda: mpeg2(self.integer(2, 24)): 0.11,
            lambda: mpeg4(self.integer(2, 24)): 0.11,
            lambda: mjpeg(self.integer(2, 24)): 0.11,
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
