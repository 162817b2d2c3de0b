"""Enlargement by interpolation, and frames as they were measured."""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from instantvir_models.operators.consistency import data_consistency
from instantvir_models.operators.measurement import Degradation
from instantvir_models.solvers.base import Restored, Window
from instantvir_models.solvers.classical.frames import refuse_unless, restored
from instantvir_models.solvers.tiled import LocalSolver

_OPENCV = {"bicubic": cv2.INTER_CUBIC, "lanczos": cv2.INTER_LANCZOS4}


@dataclass(frozen=True)
class Interpolated(LocalSolver[None]):
    """Frames enlarged by OpenCV's interpolation."""

    method: Literal["bicubic", "lanczos"] = "bicubic"
    consistent_std: float | None = None
    """How far the interpolation is taken to be off in a correction towards the measurement, in the
    [-1, 1] range; None leaves the interpolation as it is."""

    @property
    def frames_per_block(self) -> int:
        return 1

    def check(self, degradation: Degradation) -> None:
        traits = degradation.operator.traits
        is_plain = traits.known_fraction == 1 and not traits.blur_sigma
        refuse_unless(traits.scale > 1 and is_plain, self.method, "enlarges frames", degradation)

    def restore_block(self, window: Window, state: None) -> Restored:
        measurement = window.measurement
        size = measurement.operator.clean_size(*measurement.y.shape[-2:])
        x = torch.stack([self._enlarged(frame, size) for frame in measurement.y[0]])[None]
        if self.consistent_std is not None:
            x = data_consistency(x, measurement, estimate_std=self.consistent_std)
        return restored(x)

    def _enlarged(self, frame: Tensor, size: tuple[int, int]) -> Tensor:
        pixels = np.ascontiguousarray(frame.permute(1, 2, 0).cpu().numpy())
        grown = cv2.resize(pixels, size[::-1], interpolation=_OPENCV[self.method])
        return torch.from_numpy(grown).permute(2, 0, 1).to(frame)


@dataclass(frozen=True)
class AsMeasured(LocalSolver[None]):
    """The measurement itself: what a restoration has to be better than."""

    @property
    def frames_per_block(self) -> int:
        return 1

    def check(self, degradation: Degradation) -> None:
        is_able = degradation.operator.traits.scale == 1
        refuse_unless(is_able, "as_measured", "leaves frames as they are", degradation)

    def restore_block(self, window: Window, state: None) -> Restored:
        return restored(window.measurement.y)
