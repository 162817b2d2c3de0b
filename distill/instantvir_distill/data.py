"""Training data: real clips, random crops of them, and random measurements of the crops."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instantvir_models.errors import VideoOpenError
from instantvir_models.media import open_video, to_uint8, to_unit
from instantvir_models.media.round_trip import h264_round_trip
from instantvir_models.operators.base import Operator
from instantvir_models.operators.blur import GaussianBlur
from instantvir_models.operators.compose import Composition, Identity
from instantvir_models.operators.downsample import Downsample, DownsampleKernel
from instantvir_models.operators.mask import Mask
from instantvir_models.operators.measurement import LEVEL, Degradation, Measurement, degrade, stored
from instantvir_models.tasks import DEBLUR, DENOISE, INPAINT, SR, Task


@dataclass(frozen=True, eq=False)
class Clip:
    """A decoded clip, memory-mapped."""

    name: str
    frames: NDArray[np.uint8]
    """[T, H, W, 3] RGB."""


@dataclass(frozen=True)
class Sample:
    """One training example."""

    x: Tensor
    """Clean frames [1, T, 3, H, W] in [-1, 1]."""
    measurement: Measurement
    """What was measured, with the operator and noise as they are told to the student."""
    task: str


def load_clips(folder: Path, *, cache: Path) -> list[Clip]:
    """Every video of `folder`, decoded once into `cache` and memory-mapped from there.

    Raises:
        VideoOpenError: if the folder holds no video.
    """
    paths = sorted(folder.glob("*.mp4"))
    if not paths:
        raise VideoOpenError(f"no .mp4 clips in `{folder}`", hint="pass a folder of clips")
    cache.mkdir(parents=True, exist_ok=True)
    return [Clip(path.stem, _decoded(path, cache)) for path in paths]


def _decoded(path: Path, cache: Path) -> NDArray[np.uint8]:
    stamp = hashlib.sha256(f"{path.resolve()}:{path.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    stored = cache / f"{path.stem}-{stamp}.npy"
    if not stored.exists():
        with open_video(path, other_streams=False) as reader:
            frames = np.stack([frame.pixels for frame in reader])
        partial = stored.with_suffix(".part.npy")
        np.save(partial, frames)
        partial.replace(stored)
    return np.load(stored, mmap_mode="r")


def split(
    clips: Sequence[Clip], validation_sources: Sequence[str]
) -> tuple[list[Clip], list[Clip]]:
    """(training, validation) clips, split by source so that no scene is on both sides."""
    held_out = [clip for clip in clips if clip.name.startswith(tuple(validation_sources))]
    return [clip for clip in clips if clip not in held_out], held_out


class Sampler:
    """An endless supply of training examples from clips.

    Everything random comes from the seed last set, so that a resumed run sees what the
    uninterrupted one would have seen.
    """

    def __init__(self, clips: Sequence[Clip], *, lossy_fraction: float) -> None:
        self.seed(0)
        self.lossy_fraction = lossy_fraction
        sources: dict[str, list[Clip]] = {}
        for clip in clips:
            sources.setdefault(clip.name.rstrip("0123456789").rstrip("_"), []).append(clip)
        self.sources = list(sources.values())
        self.weights = np.sqrt([len(group) for group in self.sources])
        self.weights /= self.weights.sum()

    def seed(self, *seed: int) -> None:
        """Start the random numbers that belong to `seed`, such as (run, worker, step)."""
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(int(self.rng.integers(2**62)))

    def sample(self, task: str, *, crop: int, frames: int) -> Sample:
        """One example of `task` with `frames` frames of `crop` x `crop` pixels."""
        x = self._crop(crop, frames)
        return SAMPLERS[task](self, x)

    def _crop(self, crop: int, frames: int) -> Tensor:
        """A random sequence, [1, T, 3, crop, crop]; shrunk, mirrored, reversed at random."""
        rng = self.rng
        group = self.sources[rng.choice(len(self.sources), p=self.weights)]
        clip = group[rng.integers(len(group))].frames
        total, height, width = clip.shape[:3]
        shrink = 1.0 if rng.random() < 0.4 else rng.uniform(1, min(2, min(height, width) / crop))
        side = round(crop * shrink)
        top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
        stride = 2 if rng.random() < 0.1 and total >= 2 * frames else 1
        first = rng.integers(total - (frames - 1) * stride)
        index = first + stride * np.arange(frames)
        if rng.random() < 0.08:
            index[:] = first  # a still scene: only the noise moves
        if rng.random() < 0.3:
            index = index[::-1]
        patch = np.stack([clip[i, top : top + side, left : left + side] for i in index])
        if side != crop:
            patch = np.stack(
                [cv2.resize(p, (crop, crop), interpolation=cv2.INTER_AREA) for p in patch]
            )
        if rng.random() < 0.5:
            patch = patch[:, :, ::-1]
        if rng.random() < 0.2:
            patch = patch[:, ::-1]
        if rng.random() < 0.2:
            patch = patch.transpose(0, 2, 1, 3)
        x = torch.from_numpy(np.ascontiguousarray(patch)).permute(0, 3, 1, 2)[None].float()
        x = x / 127.5 - 1
        if rng.random() < 0.25:
            gain, lift = rng.uniform(0.5, 1.1), rng.uniform(-0.15, 0.15)
            x = (x * gain + lift).clamp_(-1, 1)
        return x

    def _level(self, headline: float, low: float, high: float) -> float:
        """A noise level in [-1, 1] units: half the time near `headline`, else anywhere between."""
        if self.rng.random() < 0.5:
            return headline * self.rng.uniform(0.9, 1.1) * LEVEL
        return self.rng.uniform(low, high) * LEVEL

    def _denoise(self, x: Tensor) -> Sample:
        return self._measured(x, DENOISE, Identity(), self._level(25, 2, 50))

    def _deblur(self, x: Tensor) -> Sample:
        rng = self.rng
        if rng.random() < 0.5:
            return self._measured(x, DEBLUR, GaussianBlur(3.0), self._level(2.55, 0, 5))
        sigma = math.exp(rng.uniform(math.log(0.5), math.log(5)))
        true = GaussianBlur(sigma)
        told = GaussianBlur(sigma * rng.uniform(0.8, 1.2)) if rng.random() < 0.4 else true
        return self._measured(x, DEBLUR, true, self._level(1, 0, 10), told=told)

    def _super_resolution(self, x: Tensor) -> Sample:
        rng = self.rng
        kernel: DownsampleKernel = "area" if rng.random() < 0.5 else "bicubic"
        if rng.random() < 0.6:
            factor, noise_std = 4, 0.0
        else:
            choices = [f for f in (2, 3, 4) if x.shape[-1] % f == 0]
            factor, noise_std = int(rng.choice(choices)), self._level(0, 0, 10)
        operator: Operator = Downsample(factor, kernel)
        if rng.random() < 0.1:
            operator = Composition([GaussianBlur(rng.uniform(0.5, 2)), operator])
        return self._measured(x, SR, operator, noise_std)

    def _inpaint(self, x: Tensor) -> Sample:
        rng = self.rng
        keep = 0.5 if rng.random() < 0.6 else rng.uniform(0.1, 0.95)
        size = x.shape[-2:]
        masks = rng.random((x.shape[1] if rng.random() < 0.4 else 1, 1, *size)) < keep
        if rng.random() < 0.15:
            masks[:] = True
            for _ in range(rng.integers(1, 6)):
                thickness = int(rng.integers(1, 6))
                ends = rng.integers(0, size[0], 4)
                canvas = np.zeros(size, np.uint8)
                cv2.line(canvas, ends[:2].tolist(), ends[2:].tolist(), 1, thickness)
                masks &= canvas == 0
        noise_std = 0.0 if rng.random() < 0.6 else self._level(2.55, 0, 10)
        return self._measured(x, INPAINT, Mask(torch.from_numpy(masks).float()), noise_std)

    def _measured(
        self,
        x: Tensor,
        task: Task,
        operator: Operator,
        noise_std: float,
        *,
        told: Operator | None = None,
    ) -> Sample:
        """x degraded, stored as 8 bits or through H.264, and described a little wrongly."""
        true = Degradation(operator=operator, noise_std=noise_std)
        y = degrade(x, true, generator=self.generator).y
        is_lossy = bool(self.rng.random() < self.lossy_fraction)
        if is_lossy:
            y = _through_h264(y, crf=int(self.rng.integers(14, 31)))
        elif self.rng.random() < 0.7:
            y = stored(y)
        told_noise = noise_std * (self.rng.uniform(0.85, 1.15) if self.rng.random() < 0.5 else 1)
        degradation = Degradation(
            operator=told or operator, noise_std=told_noise, is_lossy=is_lossy
        )
        return Sample(x, Measurement(y, degradation), task.name)


SAMPLERS: dict[str, Callable[[Sampler, Tensor], Sample]] = {
    DENOISE.name: Sampler._denoise,
    DEBLUR.name: Sampler._deblur,
    SR.name: Sampler._super_resolution,
    INPAINT.name: Sampler._inpaint,
}
"""What makes an example of each task."""


def _through_h264(y: Tensor, *, crf: int) -> Tensor:
    """y [1, T, 3, h, w] in [-1, 1] after an H.264 round trip at `crf`."""
    return to_unit(h264_round_trip(to_uint8(y), crf=crf))
