"""Where examples come from: clean videos that are degraded, or measured ones and nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from instantvir_distill.clips import Clip
from instantvir_distill.data import Sampler
from instantvir_distill.methods.base import CleanExample, Example
from instantvir_models.errors import UsageError
from instantvir_models.media import to_unit
from instantvir_models.operators.compose import Identity
from instantvir_models.operators.mask import FrameMasks
from instantvir_models.operators.measurement import Degradation, Measurement
from instantvir_models.operators.spec import ClipShape, Specification
from instantvir_models.tasks import SR, tasks_in

CROP_MULTIPLE = 24
"""Of crops that were made larger: what enlargement by 2, 3 and 4 and three halvings divide."""

MEASURED_MULTIPLE = 8
"""Of the sides of crops of measured videos."""


class Source(Protocol):
    """An endless supply of examples; everything random comes from the seed last set."""

    def seed(self, *seed: int) -> None:
        """Start the random numbers that belong to `seed`, such as (run, worker, step)."""

    def examples(
        self, tasks: Sequence[str], *, crops: Sequence[int], frames: int, learned: int
    ) -> list[Example]:
        """One of each task: a crop of so many pixels, so many frames, `learned` of them learned."""


class CleanVideos:
    """Clean videos, degraded online. Clean frames leave it only by `clean_examples`."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler
        clips = [clip for group in sampler.scenes.groups for clip in group]
        self._smallest = min(min(clip.frames.shape[1:3]) for clip in clips)

    def seed(self, *seed: int) -> None:
        self.sampler.seed(*seed)

    def clean_examples(
        self, tasks: Sequence[str], *, crops: Sequence[int], frames: int, learned: int
    ) -> list[CleanExample]:
        """The same as `examples`, with their truth."""
        samples = [
            self.sampler.sample(task, crop=crop, frames=frames)
            for task, crop in zip(tasks, self._fitting(crops), strict=True)
        ]
        chosen = _stretches(self.sampler.rng, len(samples), frames=frames, learned=learned)
        return [
            CleanExample(sample.measurement, inside, task, sample.x[:, inside])
            for sample, inside, task in zip(samples, chosen, tasks, strict=True)
        ]

    def examples(
        self, tasks: Sequence[str], *, crops: Sequence[int], frames: int, learned: int
    ) -> list[Example]:
        samples = [
            self.sampler.sample(task, crop=crop, frames=frames).measurement
            for task, crop in zip(tasks, self._fitting(crops), strict=True)
        ]
        chosen = _stretches(self.sampler.rng, len(samples), frames=frames, learned=learned)
        return [Example(*each) for each in zip(samples, chosen, tasks, strict=True)]

    def natural(self, like: Tensor) -> Tensor:
        """Clean frames of the shape [1, T, 3, H, H] of `like`, from anywhere."""
        return self.sampler.clean(like.shape[-1], like.shape[1]).to(like)

    def _fitting(self, crops: Sequence[int]) -> list[int]:
        largest = self._smallest // CROP_MULTIPLE * CROP_MULTIPLE
        return [crop if crop <= self._smallest else largest for crop in crops]


@dataclass(frozen=True)
class MeasuredClip:
    """A measured video and what happened to it."""

    clip: Clip
    degradation: Degradation

    @classmethod
    def of(cls, clip: Clip, specification: Specification) -> "MeasuredClip":
        """With what the specification comes to at the size of this clip."""
        length, height, width = clip.frames.shape[:3]
        factor = specification.factor
        shape = ClipShape(num_frames=length, height=factor * height, width=factor * width)
        return cls(clip, specification.degradation(shape=shape))

    def check(self) -> None:
        """UsageError unless something happened to it, and it has the size that this leaves."""
        height, width = self.clip.frames.shape[1:3]
        operator = self.degradation.operator
        if isinstance(operator, Identity) and not self.degradation.noise_std:
            raise UsageError(
                "the operator says that nothing happened to the measurements, so there is nothing to learn",
                hint="`--operator noise:std=20`; `instantvir info VIDEO` estimates noise",
            )
        if any(isinstance(part, FrameMasks) for part in operator.parts):
            raise UsageError(
                f"`{operator.spec}` says which pixels are lost in each frame, and training needs to "
                "know before it sees them",
                hint="one mask for all frames, as an image: `mask:path=mask.png`",
            )
        operator.A_adjoint(torch.zeros(1, 1, 3, height, width))  # says what does not fit


class MeasuredVideos:
    """Videos of which only measurements exist, all degraded in a known way."""

    def __init__(self, clips: Sequence[MeasuredClip]) -> None:
        self.clips = list(clips)
        self.seed(0)

    def seed(self, *seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def examples(
        self, tasks: Sequence[str], *, crops: Sequence[int], frames: int, learned: int
    ) -> list[Example]:
        """One for each task; which one it is, is decided by what happened to the videos."""
        measured = [self._measurement(crop, frames) for crop in crops]
        chosen = _stretches(self.rng, len(measured), frames=frames, learned=learned)
        return [
            Example(one, inside, task_of(one.degradation))
            for one, inside in zip(measured, chosen, strict=True)
        ]

    def _measurement(self, crop: int, frames: int) -> Measurement:
        chosen = self.clips[self.rng.integers(len(self.clips))]
        video, degradation = chosen.clip.frames, chosen.degradation
        factor = degradation.operator.clean_size(1, 1)[0]
        first = int(self.rng.integers(len(video) - frames + 1))
        rows, columns = (self._stretch(side, crop, factor) for side in video.shape[1:3])
        y = to_unit(video[first : first + frames, _small(rows, factor), _small(columns, factor)])
        here = degradation.at_frame(first)
        return Measurement(y, replace(here, operator=here.operator.cropped(rows, columns)))

    def _stretch(self, measured: int, crop: int, factor: int) -> slice:
        """A random stretch of the clean side, whole measured pixels, about `crop` long."""
        size = min(measured, max(1, crop // factor))
        size = size // MEASURED_MULTIPLE * MEASURED_MULTIPLE or size
        first = int(self.rng.integers(measured - size + 1))
        return slice(factor * first, factor * (first + size))


def task_of(degradation: Degradation) -> str:
    """The name of the task that undoes it."""
    tasks = tasks_in(degradation.operator.traits)
    return SR.name if SR in tasks else tasks[0].name


def _stretches(rng: np.random.Generator, count: int, *, frames: int, learned: int) -> list[slice]:
    """Which frames of each example are learned from."""
    learned = min(learned, frames)
    firsts = rng.integers(frames - learned + 1, size=count).tolist()
    return [slice(first, first + learned) for first in firsts]


def _small(clean: slice, factor: int) -> slice:
    return slice(clean.start // factor, clean.stop // factor)
