"""DiffIR2VR-Zero: an image restorer sampled frame by frame, made steady along the optical flow.

Yeh et al., arXiv 2407.01519. It knows no operator: a first stage gives `clean` frames, an image prior
conditioned on them is sampled. Here the first stage is the initial estimate, and conditioning is exact:
`clean` is taken for the video with white errors of a known deviation, one more look at it.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instantvir_models.operators.measurement import Measurement
from instantvir_models.operators.prior import initial_estimate
from instantvir_models.priors.base import Prior
from instantvir_models.priors.noise import white
from instantvir_models.solvers.iterative.levels import noise_std, spaced
from instantvir_models.solvers.iterative.loop import Draws, Prediction, Renoising
from instantvir_models.solvers.iterative.whole_clip import WholeClipSolver
from instantvir_models.students.alignment import dense_flow

BATCH_FRAMES = 10
SHORT_TAIL = 2
"""So many frames, or fewer, at the end join the batch before."""

OCCLUSION_SHARE, OCCLUSION_FLOOR = 0.01, 0.5
"""A flow that does not come back within this share of its squared length, and this, is of something hidden."""


@dataclass(frozen=True)
class Look:
    """Where every pixel of a frame is in another one."""

    flow: Tensor
    """[H, W, 2] (dx, dy) pixels."""
    is_visible: Tensor
    """[H, W], 1 where it can be seen there."""


@dataclass(frozen=True, kw_only=True)
class DiffIR2VR(WholeClipSolver):
    """Frames sampled from the conditioned image prior, estimates warped from key frames early on.

    Args:
        warped_share: of the levels, the first ones, at which estimates are warped.
        stage_std: white error that the first stage is taken to have; None: the measurement's noise
            where nothing but that is wrong, 0.06 elsewhere.
    """

    prior: Prior
    levels: tuple[float, ...] = spaced(50)
    warped_share: float = 0.1
    stage_std: float | None = None
    seed: int = 0

    def solved(self, measurement: Measurement) -> Tensor:
        """Frames [1, T, 3, H, W]."""
        clean = initial_estimate(measurement).clamp(-1.5, 1.5)
        std = self._stage_std(measurement)
        keys = _Keys()
        parts = [self._sampled(clean[:, part], std, keys) for part in batches(clean.shape[1])]
        return torch.cat(parts, 1)

    def _stage_std(self, measurement: Measurement) -> float:
        if self.stage_std is not None:
            return self.stage_std
        if measurement.operator.is_identity:
            return max(measurement.noise_std, 0.01)
        return math.hypot(0.06, measurement.noise_std)

    def _sampled(self, clean: Tensor, std: float, keys: "_Keys") -> Tensor:
        draws = Draws(self.seed, is_shared=False)  # anew for each batch: they share their noise
        renoising = Renoising("keep", "ancestral")
        looks = _Looks.of(clean, keys.clean)
        x_t = self.levels[0] * draws.fresh(clean)
        warped = round(self.warped_share * len(self.levels))
        estimates = []
        for index, level in enumerate(self.levels):
            x_0 = given(self.prior, x_t, level, clean, std)
            if index < warped:
                x_0 = looks.steadied(x_0, keys.estimates[index] if keys.estimates else None)
                estimates.append(x_0[:, looks.key])
            next_level = self.levels[index + 1] if index + 1 < len(self.levels) else 0.0
            x_t = renoising.noisy(x_0, Prediction(x_t, x_0, level), next_level, draws)
        keys.clean, keys.estimates = clean[:, looks.key], estimates
        return x_t


def given(prior: Prior, x_t: Tensor, level: float, clean: Tensor, std: float) -> Tensor:
    """E[x | x_t, clean], clean = x + std e: both looks are one, weighed by their precisions."""
    r2, q2 = noise_std(level) ** 2, std**2
    s2 = 1 / (1 / r2 + 1 / q2)
    z = s2 * (x_t / (1 - level) / r2 + clean / q2)
    return prior.decode(prior.denoise(prior.encode(z), white(math.sqrt(s2), dtype=z.dtype)))


def batches(num_frames: int) -> list[slice]:
    """Frames that are sampled together."""
    starts = list(range(0, num_frames, BATCH_FRAMES))
    if len(starts) > 1 and num_frames - starts[-1] <= SHORT_TAIL:
        starts.pop()
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], num_frames], strict=True)]


@dataclass
class _Keys:
    """What the batch before leaves to the next."""

    clean: Tensor | None = None
    estimates: list[Tensor] | None = None


@dataclass(frozen=True)
class _Looks:
    """The flows of a batch."""

    key: int
    to_key: tuple[Look, ...]
    to_previous: Look | None

    @classmethod
    def of(cls, clean: Tensor, previous: Tensor | None) -> "_Looks":
        key = clean.shape[1] // 2
        frames = _luma(clean[0])
        to_key = tuple(look_from(frame, frames[key]) for frame in frames)
        before = None if previous is None else look_from(frames[key], _luma(previous)[0])
        return cls(key, to_key, before)

    def steadied(self, x_0: Tensor, previous_key: Tensor | None) -> Tensor:
        """Estimates with what is visible in the key frame taken from there; that one from the key before."""
        key = x_0[:, self.key]
        if self.to_previous is not None and previous_key is not None:
            key = taken(key, previous_key, self.to_previous)
        frames = [
            key if t == self.key else taken(x_0[:, t], key, look)
            for t, look in enumerate(self.to_key)
        ]
        return torch.stack(frames, 1)


def taken(frame: Tensor, other: Tensor, look: Look) -> Tensor:
    """(1 - m) frame + m warped(other) of frames [B, 3, H, W]."""
    seen = look.is_visible.to(frame)
    return (1 - seen) * frame + seen * nearest(other, look.flow)


def nearest(frame: Tensor, flow: Tensor) -> Tensor:
    """frame [B, C, H, W] at p + flow, the nearest pixel; 0 outside."""
    height, width = frame.shape[-2:]
    rows = (torch.arange(height)[:, None] + flow[..., 1]).round().long()
    columns = (torch.arange(width)[None] + flow[..., 0]).round().long()
    is_inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    found = frame[..., rows.clamp(0, height - 1), columns.clamp(0, width - 1)]
    return found * is_inside.to(frame)


def look_from(here: NDArray[np.uint8], there: NDArray[np.uint8]) -> Look:
    """Where each pixel of the picture `here` is in `there`, and whether it can be seen."""
    forth, back = (torch.from_numpy(dense_flow(*pair)) for pair in ((here, there), (there, here)))
    returned = forth + nearest(back.permute(2, 0, 1)[None], forth)[0].permute(1, 2, 0)
    lengths = forth.norm(dim=-1) + back.norm(dim=-1)
    is_hidden = returned.norm(dim=-1) > OCCLUSION_SHARE * lengths + OCCLUSION_FLOOR
    return Look(forth, (~is_hidden).float())


def _luma(frames: Tensor) -> NDArray[np.uint8]:
    """[T, H, W] of frames [T, 3, H, W]."""
    luma = 0.299 * frames[:, 0] + 0.587 * frames[:, 1] + 0.114 * frames[:, 2]
    levels = ((luma + 1) * 127.5).clamp(0, 255).byte().numpy()
    return np.stack([cv2.GaussianBlur(level, (5, 5), 1.0) for level in levels])
