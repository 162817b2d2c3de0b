"""Training data: random clean sequences and random measurements of them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from instantvir_distill.clips import Clip
from instantvir_distill.scenes import Photo, SceneSource
from instantvir_models.media import to_uint8, to_unit
from instantvir_models.media.round_trip import Encoder, h264, mpeg, round_trip
from instantvir_models.operators.base import Operator
from instantvir_models.operators.blur import GaussianBlur
from instantvir_models.operators.compose import Composition, Identity
from instantvir_models.operators.downsample import Downsample, DownsampleKernel
from instantvir_models.operators.mask import Mask
from instantvir_models.operators.measurement import (
    LEVEL,
    LOSSY_STD,
    Degradation,
    Measurement,
    noisy,
    stored,
)
from instantvir_models.tasks import DEBLUR, DENOISE, INPAINT, SR, Task

ENLARGEMENT_BY_4 = "sr4"
"""The task of the branch that enlarges."""

ENLARGEMENT_BELOW_4 = "sr23"
"""What such a branch leaves to the network."""

NOISELESS_SHARE = 0.08
"""Part of the noisy examples that are told noise and have none: what is fine must stay."""

COARSE_SHARE = 0.12
"""Part of them whose noise is correlated from pixel to pixel, as grain and cameras have it."""

CODEC_ONLY_SHARE = 0.5
"""Part of the examples of noise behind a codec that have no noise but what the codec added."""


@dataclass(frozen=True)
class Sample:
    """One training example."""

    x: Tensor
    """Clean frames [1, T, 3, H, W] in [-1, 1]."""
    measurement: Measurement
    """What was measured, with the operator and noise as they are told to the student."""
    task: str


class Sampler:
    """An endless supply of training examples.

    Everything random comes from the seed last set, so that a resumed run sees what the
    uninterrupted one would have seen.

    Args:
        inexactness: factor on the shares of examples that are told a little wrongly or have coarse
            noise; 0 where everything is as it is told.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        *,
        lossy_fraction: float,
        inexactness: float = 1.0,
        photos: Sequence[Photo] = (),
    ) -> None:
        self.seed(0)
        self.lossy_fraction, self.inexactness = lossy_fraction, inexactness
        self.scenes = SceneSource(clips, photos)

    def seed(self, *seed: int) -> None:
        """Start the random numbers that belong to `seed`, such as (run, worker, step)."""
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(int(self.rng.integers(2**62)))

    def sample(self, task: str, *, crop: int, frames: int) -> Sample:
        """One example of `task` with `frames` frames of `crop` x `crop` pixels."""
        x = self.clean(crop, frames)
        return SAMPLERS[task](self, x)

    def clean(self, crop: int, frames: int) -> Tensor:
        """A random sequence, [1, T, 3, crop, crop]; its contrast and colours changed at random."""
        rng = self.rng
        patch = self.scenes.sample(rng, crop=crop, frames=frames)
        x = torch.from_numpy(np.ascontiguousarray(patch)).permute(0, 3, 1, 2)[None].float()
        x = x / 127.5 - 1
        if rng.random() < 0.25:
            gain, lift = rng.uniform(0.5, 1.1), rng.uniform(-0.15, 0.15)
            x = (x * gain + lift).clamp_(-1, 1)
        if rng.random() < 0.1:
            grey = x.mean(2, keepdim=True)
            x = (grey + rng.uniform(0, 2.5) * (x - grey)).clamp_(-1, 1)
        return x

    def _level(self, low: float, high: float) -> float:
        """A noise level in [-1, 1] units, from `low` to `high` 8-bit levels, uniform in its logarithm."""
        return math.exp(self.rng.uniform(math.log(low), math.log(high))) * LEVEL

    def _is_one_of(self, share: float) -> bool:
        """Whether this example is of a share of those that are not quite what they are told to be."""
        return bool(self.rng.random() < share * self.inexactness)

    def _denoise(self, x: Tensor) -> Sample:
        noise_std = self._level(1, 60) if self.rng.random() < 0.5 else self._level(12, 60)
        lossy = self._codec()
        if lossy is not None:
            noise_std *= float(self.rng.random() >= CODEC_ONLY_SHARE)
        elif self._is_one_of(NOISELESS_SHARE):
            return self._measured(x, DENOISE, Identity(), 0.0, told_noise=noise_std)
        coarseness = self.rng.uniform(0.4, 1.3) if self._is_one_of(COARSE_SHARE) else 0.0
        return self._measured(x, DENOISE, Identity(), noise_std, lossy=lossy, coarseness=coarseness)

    def _codec(self) -> Encoder | None:
        """What a part of the measurements goes through."""
        rng = self.rng
        if rng.random() >= self.lossy_fraction:
            return None
        if rng.random() < 0.6:
            return h264(int(rng.integers(16, 43)))
        quantiser = round(math.exp(rng.uniform(math.log(2), math.log(24))))
        return mpeg(str(rng.choice(["mpeg2video", "mpeg4", "mjpeg"])), quantiser)

    def _deblur(self, x: Tensor) -> Sample:
        rng = self.rng
        sigma = 3.0 if rng.random() < 0.3 else math.exp(rng.uniform(math.log(0.5), math.log(5)))
        true = GaussianBlur(sigma)
        noise_std = 0.0 if rng.random() < 0.15 else self._level(0.7, 10)
        lossy = self._codec()
        # behind a codec a blur is hard to see, and is found too large more often than too small
        told = true
        if self._is_one_of(0.25 if lossy is None else 0.6):
            told = GaussianBlur(sigma * rng.uniform(0.9, 1.1 if lossy is None else 1.18))
        return self._measured(x, DEBLUR, true, noise_std, told=told, lossy=lossy)

    def _super_resolution(self, x: Tensor) -> Sample:
        choices = [f for f in (2, 3, 4) if x.shape[-1] % f == 0]
        return self._enlarged(x, 4 if self.rng.random() < 0.5 else int(self.rng.choice(choices)))

    def _enlarged_by_less(self, x: Tensor) -> Sample:
        is_by_three = self.rng.random() >= 0.6 and x.shape[-1] % 3 == 0
        return self._enlarged(x, 3 if is_by_three else 2)

    def _enlarged_by_4(self, x: Tensor) -> Sample:
        return self._enlarged(x, 4)

    def _enlarged(self, x: Tensor, factor: int) -> Sample:
        rng = self.rng
        kernel: DownsampleKernel = "area" if rng.random() < 0.5 else "bicubic"
        noise_std = 0.0 if rng.random() < 0.65 else self._level(0.7, 10)
        operator: Operator = Downsample(factor, kernel)
        if rng.random() < 0.1:
            operator = Composition([GaussianBlur(rng.uniform(0.5, 2)), operator])
        return self._measured(x, SR, operator, noise_std, lossy=self._codec())

    def _inpaint(self, x: Tensor) -> Sample:
        rng = self.rng
        keep = 0.5 if rng.random() < 0.5 else rng.uniform(0.1, 0.95)
        size = x.shape[-2:]
        masks = rng.random((x.shape[1] if rng.random() < 0.5 else 1, 1, *size)) < keep
        if rng.random() < 0.15:
            masks[:] = True
            for _ in range(rng.integers(1, 6)):
                thickness = int(rng.integers(1, 6))
                ends = rng.integers(0, size[0], 4)
                canvas = np.zeros(size, np.uint8)
                cv2.line(canvas, ends[:2].tolist(), ends[2:].tolist(), 1, thickness)
                masks &= canvas == 0
        noise_std = 0.0 if rng.random() < 0.55 else self._level(0.7, 25)
        operator = Mask(torch.from_numpy(masks).float())
        return self._measured(x, INPAINT, operator, noise_std, lossy=self._codec())

    def _measured(
        self,
        x: Tensor,
        task: Task,
        operator: Operator,
        noise_std: float,
        *,
        told: Operator | None = None,
        told_noise: float | None = None,
        lossy: Encoder | None = None,
        coarseness: float = 0.0,
    ) -> Sample:
        """x degraded, stored as 8 bits or by `lossy`, and described a little wrongly.

        Args:
            coarseness: sigma in pixels over which the noise is smooth, 0 where it is white.
        """
        seen = operator.A(x)
        noise = noisy(torch.zeros_like(seen), noise_std, generator=self.generator)
        y = seen + (_coarse(noise, coarseness) if coarseness else noise)
        y = stored(y) if lossy is None else to_unit(round_trip(to_uint8(y), lossy))
        if told_noise is None:
            told_noise = noise_std if lossy is None else noise_behind(operator, y - seen)
            told_noise *= self._inaccuracy(operator, is_lossy=lossy is not None)
        degradation = Degradation(
            operator=told or operator, noise_std=told_noise, is_lossy=lossy is not None
        )
        return Sample(x, Measurement(y, degradation), task.name)

    def _inaccuracy(self, operator: Operator, *, is_lossy: bool) -> float:
        """What the noise is told to be, over what it is."""
        if is_lossy:
            if operator.only_selects:
                return math.exp(self.rng.normal(0, 0.2))
            return math.exp(self.rng.normal(0.15, 0.45))  # estimators say too much there
        return self.rng.uniform(0.9, 1.1) if self._is_one_of(0.3) else 1.0


def _coarse(noise: Tensor, sigma: float) -> Tensor:
    """White noise [1, T, 3, h, w] smoothed, its standard deviation kept."""
    smooth = GaussianBlur(sigma).A(noise)
    return smooth * (noise.std() / smooth.std().clamp_min(1e-6))


def noise_behind(operator: Operator, error: Tensor) -> float:
    """What is told of a measurement that a codec changed by `error`, noise included.

    Where something is inverted all of it is told, as who estimates it finds it: an inverse that takes
    what a codec added for picture makes it many times larger.
    """
    if operator.only_selects:
        return beyond_usual_loss(error)
    return float(error.square().mean().sqrt())


def beyond_usual_loss(error: Tensor) -> float:
    """Standard deviation of `error` beyond what a codec is taken to add in any case."""
    return math.sqrt(max(0.0, float(error.square().mean()) - LOSSY_STD**2))


SAMPLERS: dict[str, Callable[[Sampler, Tensor], Sample]] = {
    DENOISE.name: Sampler._denoise,
    DEBLUR.name: Sampler._deblur,
    SR.name: Sampler._super_resolution,
    ENLARGEMENT_BY_4: Sampler._enlarged_by_4,
    ENLARGEMENT_BELOW_4: Sampler._enlarged_by_less,
    INPAINT.name: Sampler._inpaint,
}
"""What makes an example of each task."""
