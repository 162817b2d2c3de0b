"""How steady a video is: what changes from frame to frame beyond what moves. In 8-bit levels."""

import cv2
import numpy as np
from numpy.typing import NDArray

from instantvir_models.metrics.fidelity import Frames

HIDDEN_SHARE, HIDDEN_FLOOR = 0.01, 0.5
"""A flow that does not come back within this share of its squared length, and this many squared pixels,
is of something that the frame before does not show (Sundaram et al., 2010)."""

SMALLEST_SIDE = 16
"""Frames with a shorter side are taken as not moving."""


def warping_error(restored: Frames, clean: Frames) -> NDArray[np.float64]:
    """Rms difference in levels of each frame from the one before, moved along the flow of the clean
    video, where that shows the same thing, [T - 1] (Lai et al., 2018).

    That of the clean video is not 0: light changes, and interpolation softens. Read it beside.
    """
    gray = [_luma(frame) for frame in clean]
    return np.array(
        [
            _warped_difference(restored[t], restored[t - 1], gray[t], gray[t - 1])
            for t in range(1, len(clean))
        ]
    )


def block_jump(restored: Frames, clean: Frames, frames_per_block: int) -> float | None:
    """By how many levels the rms error of the change from frame to frame is larger where a block of
    frames ends than elsewhere; None where no block ends.

    Raises:
        ValueError: if a block has no frame.
    """
    if frames_per_block < 1:
        raise ValueError(f"blocks have a frame or more, got {frames_per_block}")
    ends = np.arange(1, len(clean)) % frames_per_block == 0
    if not ends.any() or ends.all():
        return None
    error = np.diff(_levels(restored) - _levels(clean), axis=0)
    power = np.mean(error**2, (1, 2, 3))
    return float(np.sqrt(power[ends].mean()) - np.sqrt(power[~ends].mean()))


def _warped_difference(
    frame: Frames, before: Frames, gray: NDArray[np.uint8], gray_before: NDArray[np.uint8]
) -> float:
    flow = _flow(gray, gray_before)
    returned = flow + _moved(_flow(gray_before, gray), flow)
    length = np.square(flow).sum(-1) + np.square(returned - flow).sum(-1)
    is_seen = np.square(returned).sum(-1) <= HIDDEN_SHARE * length + HIDDEN_FLOOR
    if not is_seen.any():
        return 0.0
    difference = _levels(frame) - _moved(_levels(before), flow)
    return float(np.sqrt(np.mean(difference[is_seen] ** 2)))


def _flow(here: NDArray[np.uint8], there: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[H, W, 2] (dx, dy) such that here[p] is about there[p + flow]."""
    if min(here.shape) < SMALLEST_SIDE:
        return np.zeros((*here.shape, 2), np.float32)
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    estimator.setFinestScale(0)
    return estimator.calc(here, there, None)  # type: ignore[call-overload]


def _moved(values: NDArray[np.float32], flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """values [H, W, C] at p + flow, between pixels along straight lines, edges repeated."""
    rows, columns = np.indices(flow.shape[:2], np.float32)
    return cv2.remap(
        values, flow[..., 0] + columns, flow[..., 1] + rows, cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # type: ignore[return-value]  # fmt: skip


def _luma(frame: Frames) -> NDArray[np.uint8]:
    return cv2.cvtColor(_levels(frame).round().astype(np.uint8), cv2.COLOR_RGB2GRAY)  # type: ignore[return-value]


def _levels(frames: Frames) -> NDArray[np.float32]:
    """In levels of 8 bits."""
    return frames.astype(np.float32) * np.float32(255 / np.iinfo(frames.dtype).max)
