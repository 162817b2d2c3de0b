"""Missing pixels filled in, frame by frame; known pixels stay."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import torch

from instantvir_models.errors import UsageError
from instantvir_models.operators.measurement import Degradation
from instantvir_models.solvers.base import Restored, Window
from instantvir_models.solvers.classical.frames import (
    Picture,
    each_picture,
    holes,
    refuse_unless,
    restored,
)
from instantvir_models.solvers.tiled import LocalSolver

_OPENCV = {"telea": cv2.INPAINT_TELEA, "navier_stokes": cv2.INPAINT_NS}


class _Filling(LocalSolver[None]):
    """Fills the holes of each frame with what `_fill` makes of it."""

    @property
    def frames_per_block(self) -> int:
        return 1

    def check(self, degradation: Degradation) -> None:
        operator = degradation.operator
        is_able = operator.only_selects and operator.traits.known_fraction < 1
        refuse_unless(is_able, self._name, "fills missing pixels", degradation)

    @property
    def _name(self) -> str:
        raise NotImplementedError

    def _fill(self, picture: Picture, hole: np.ndarray) -> Picture:
        raise NotImplementedError

    def restore_block(self, window: Window, state: None) -> Restored:
        y = window.measurement.y
        known = window.measurement.operator.known_pixels(y)
        if known is None:
            return restored(y)  # of these frames nothing was lost
        missing = list(holes(known, y))
        filled = each_picture(y, lambda picture, t: self._fill(picture, missing[t]))
        return restored(torch.where(known.bool(), y, filled))


@dataclass(frozen=True)
class OpenCVFill(_Filling):
    """OpenCV's inpainting: Telea's fast marching (2004), or Navier-Stokes (Bertalmio et al. 2001)."""

    method: Literal["telea", "navier_stokes"] = "telea"
    radius_pixels: int = 3

    @property
    def _name(self) -> str:
        return self.method

    def _fill(self, picture: Picture, hole: np.ndarray) -> Picture:
        filled = cv2.inpaint(
            picture, hole.astype(np.uint8), self.radius_pixels, _OPENCV[self.method]
        )
        return np.asarray(filled, np.uint8)


@dataclass(frozen=True)
class Biharmonic(_Filling):
    """scikit-image's exact solution of the biharmonic equation inside the holes; slow."""

    @property
    def _name(self) -> str:
        return "biharmonic"

    def check(self, degradation: Degradation) -> None:
        super().check(degradation)
        _inpaint_biharmonic()

    def _fill(self, picture: Picture, hole: np.ndarray) -> Picture:
        if hole.all():  # nothing to go by
            return picture
        filled = _inpaint_biharmonic()(
            picture / 255.0, hole, channel_axis=-1, split_into_regions=False
        )
        return (filled * 255).round().clip(0, 255).astype(np.uint8)


def _inpaint_biharmonic() -> Callable[..., Any]:
    try:
        from skimage.restoration import inpaint_biharmonic
    except ImportError as error:
        raise UsageError(
            "`biharmonic` needs scikit-image, which is not installed",
            hint="pip install 'instantvir[test]'",
        ) from error
    return inpaint_biharmonic
