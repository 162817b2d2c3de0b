"""Noise taken away by non-local means: similar patches averaged."""

from dataclasses import dataclass

import cv2
import numpy as np

from instantvir_models.media.convert import to_unit
from instantvir_models.media.filters import filtered
from instantvir_models.operators.measurement import LEVEL, Degradation
from instantvir_models.solvers.base import WHOLE_CLIP, Restored, Window
from instantvir_models.solvers.classical.frames import (
    each_picture,
    pictures,
    refuse_unless,
    restored,
)
from instantvir_models.solvers.tiled import LocalSolver

PATCH_PIXELS = 7


class _Denoising(LocalSolver[None]):
    """A method that takes away white noise and nothing else."""

    def check(self, degradation: Degradation) -> None:
        operator = degradation.operator
        is_able = operator.only_selects and operator.traits.known_fraction == 1
        refuse_unless(is_able, "nlmeans", "takes away noise", degradation)


def _levels(window: Window) -> float:
    return window.measurement.noise_std / LEVEL


@dataclass(frozen=True)
class NonLocalMeans(_Denoising):
    """OpenCV's non-local means (Buades et al. 2005), frame by frame."""

    strength_levels: float | None = None
    """8-bit levels; None takes 0.8 of the noise."""
    color_levels: float | None = None
    """Strength on the colours, which are then filtered apart from the lightness."""
    search_pixels: int = 21

    @property
    def frames_per_block(self) -> int:
        return 1

    def restore_block(self, window: Window, state: None) -> Restored:
        strength = self.strength_levels
        h = 0.8 * _levels(window) if strength is None else strength

        def denoised(picture: np.ndarray, _: int) -> np.ndarray:
            if self.color_levels is None:
                return cv2.fastNlMeansDenoising(picture, None, h, PATCH_PIXELS, self.search_pixels)
            return cv2.fastNlMeansDenoisingColored(
                picture, None, h, self.color_levels, PATCH_PIXELS, self.search_pixels
            )

        return restored(each_picture(window.measurement.y, denoised))


@dataclass(frozen=True)
class NonLocalMeansOverTime(_Denoising):
    """OpenCV's non-local means over a frame and its neighbours; needs the whole clip."""

    strength_levels: float | None = None
    """8-bit levels; None takes 0.7 of the noise."""
    radius_frames: int = 2
    search_pixels: int = 21

    @property
    def frames_per_block(self) -> int:
        return WHOLE_CLIP

    def restore_block(self, window: Window, state: None) -> Restored:
        frames = pictures(window.measurement.y)
        strength, radius = self.strength_levels, min(self.radius_frames, len(frames) - 1)
        h = 0.7 * _levels(window) if strength is None else strength
        mirrored = list(
            np.concatenate([frames[radius:0:-1], frames, frames[-2 : -2 - radius : -1]])
        )
        denoised = [
            cv2.fastNlMeansDenoisingMulti(
                mirrored, t + radius, 2 * radius + 1, None, h, PATCH_PIXELS, self.search_pixels
            )
            for t in range(len(frames))
        ]
        return restored(to_unit(np.stack(denoised)).to(window.measurement.y))


@dataclass(frozen=True)
class FFmpegNonLocalMeans(_Denoising):
    """FFmpeg's `nlmeans` filter."""

    strength: float | None = None
    """As the filter counts it; None takes 0.45 of the noise in 8-bit levels."""
    search_pixels: int = 15
    pixel_format: str = "yuv444p"

    @property
    def frames_per_block(self) -> int:
        return 1

    def restore_block(self, window: Window, state: None) -> Restored:
        strength = 0.45 * _levels(window) if self.strength is None else self.strength
        arguments = f"s={min(30.0, max(1.0, strength))}:p={PATCH_PIXELS}:r={self.search_pixels}"
        filters = (("format", self.pixel_format), ("nlmeans", arguments))
        frames = filtered(pictures(window.measurement.y), filters)
        return restored(to_unit(frames).to(window.measurement.y))
