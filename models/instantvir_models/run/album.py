"""A few moments of a restoration, kept to be shown: before, after, and what is left unexplained."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from instantvir_models.media import Frame, to_unit
from instantvir_models.media.color import as_uint8
from instantvir_models.operators.compose import masked
from instantvir_models.operators.measurement import LEVEL, Degradation

MOMENT_FRAMES = 8
"""Consecutive frames of a moment, so that what flickers shows."""

MOST_MOMENTS = 4

MOST_PIXELS_WIDE = 960
"""Larger frames are shown smaller; errors are taken before that."""

Frames = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Moment:
    """Consecutive frames of one video."""

    first_frame: int
    seconds: float
    """When the first of them is shown."""
    size: tuple[int, int]
    """(width, height) of the restored frames."""
    before: Frames
    """[T, h, w, 3], as measured."""
    after: Frames
    """[T, H, W, 3], restored."""
    truth: Frames | None
    """[T, H, W, 3] of the reference; None without one."""
    residual_levels: NDArray[np.float32]
    """[T, h, w], |A x - y| in 8-bit levels, mean over channels."""
    error_levels: NDArray[np.float32] | None
    """[T, H, W], the same of x and the truth."""


@dataclass(frozen=True, eq=False)
class _Triple:
    before: Frame
    after: Frame
    truth: Frame | None


class Album:
    """Keeps moments from all over a video whose length nobody knows; memory stays constant.

    Args:
        degradation: what happened to the video.
    """

    def __init__(self, degradation: Degradation) -> None:
        self._degradation = degradation
        self._moments: list[Moment] = []
        self._stride, self._count = MOMENT_FRAMES, 0
        self._open: list[_Triple] = []
        self._first = 0
        self._frame_rate = 0.0

    @property
    def frames_per_second(self) -> float:
        """Of what was seen last; 12 where nobody can say."""
        return self._frame_rate or 12.0

    def add(self, before: Frame, after: Frame, truth: Frame | None) -> None:
        """Take the next frame."""
        if self._count % self._stride < MOMENT_FRAMES:
            self._first = self._first if self._open else self._count
            self._open.append(_Triple(before, after, truth))
            if len(self._open) == MOMENT_FRAMES:
                self._finish()
        self._count += 1
        if before.duration:
            self._frame_rate = float(Fraction(1) / (before.duration * before.time_base))

    def moments(self) -> tuple[Moment, ...]:
        """What was kept; call when the video has ended."""
        if self._open and not self._moments:  # a short video, else a moment begins with each stride
            self._finish()
        return tuple(self._moments)

    def _finish(self) -> None:
        self._moments.append(_moment(self._open, self._first, self._degradation))
        self._open = []
        if len(self._moments) > MOST_MOMENTS:  # keep every other
            self._moments = self._moments[::2]
            self._stride *= 2


def _moment(triples: Sequence[_Triple], first_frame: int, degradation: Degradation) -> Moment:
    height, width = triples[0].after.pixels.shape[:2]
    clean = [triple.truth for triple in triples if triple.truth is not None]
    truth = _stacked(clean) if len(clean) == len(triples) else None
    after = _stacked([triple.after for triple in triples])
    error = None if truth is None else np.abs(after.astype(np.float32) - truth).mean(-1)
    return Moment(
        first_frame=first_frame,
        seconds=triples[0].before.pts_seconds,
        size=(width, height),
        before=_small(_stacked([triple.before for triple in triples])),
        after=_small(after),
        truth=None if truth is None else _small(truth),
        residual_levels=_residual_levels(triples, first_frame, degradation),
        error_levels=error,
    )


def _residual_levels(
    triples: Sequence[_Triple], first_frame: int, degradation: Degradation
) -> NDArray[np.float32]:
    y = to_unit(_pixels([triple.before for triple in triples]))
    x = to_unit(_pixels([triple.after for triple in triples]))
    operator, shown = degradation.at_frame(first_frame).operator, None
    if any(triple.before.known is not None for triple in triples):
        shown = torch.from_numpy(np.stack([_known(triple.before) for triple in triples])[:, None])
        operator = masked(operator, shown.float())
    with torch.no_grad():
        off = (operator.A(x) - (y if shown is None else y * shown)).abs()[0].mean(1)
    return np.asarray(off.numpy() / LEVEL, np.float32)


def _known(frame: Frame) -> NDArray[np.bool_]:
    return np.ones(frame.pixels.shape[:2], np.bool_) if frame.known is None else frame.known


def _pixels(frames: Sequence[Frame]) -> Any:
    """[T, H, W, 3], of as many bits as the frames have."""
    return np.stack([frame.pixels for frame in frames])


def _stacked(frames: Sequence[Frame]) -> Frames:
    return np.stack([as_uint8(frame.pixels) for frame in frames])


def _small(frames: Frames) -> Frames:
    width = frames.shape[2]
    if width <= MOST_PIXELS_WIDE:
        return frames
    scale = MOST_PIXELS_WIDE / width
    small = [cv2.resize(f, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for f in frames]
    return np.asarray(np.stack(small), np.uint8)
