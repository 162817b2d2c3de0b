"""Scratches of film: lines from top to bottom that do not belong to the picture behind them.

A scratch is thin, nearly upright, straight, as bright or as dark all along, and what is on its left goes
on at its right. So are wires and window bars. What a scratch alone does: it flickers, there in one frame
and at that place in neither neighbour; or it stays where it is while the picture moves. A line that stands
still in a picture that stands still may be anything, and is left.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from instantvir_models.diagnosis.dust import SEED_STDS, Between, Plane, Seen
from instantvir_models.diagnosis.traces import middle_of
from instantvir_models.media.frame import Pixels

SIDE_PIXELS = 5
"""From the middle of a line to what is beside it: a scratch is at most about as wide."""

STRIP_PIXELS = 12
"""Height of the pieces in which a line has to show."""

SLANTS = (-6, -4, -2, 0, 2, 4, 6)
"""Pixels by which a scratch may lean to the right, from top to bottom."""

LEAST_LEVELS = 4.0
"""A line differs from both sides by at least so much."""

SHOWN_PART, GONE_PART = 0.85, 0.4
"""Of its pieces, in which a line shows at least, and in which one that is not there does at most."""

LEAST_SHIFT = 1.5
"""Pixels across by which the picture moves between two frames, at least, if it moves at all."""

RIM_PART = 0.3
"""A scratch ends where it differs by less than this part of what its middle does."""

OFTEN = 0.5
"""Of the frames that have a scratch, at least, in scratched film."""

MOST_SCRATCHES = 8
"""In a frame; more lines than this are a picture of lines."""


@dataclass(frozen=True)
class Line:
    """One line of a frame."""

    column: int
    """Where it is in the middle of the frame's height."""
    slant: int
    """By how many pixels it leans to the right from top to bottom."""
    sign: int
    """1 where it is brighter than what is beside it, -1 where it is darker."""


def scratched_part(frames: Pixels) -> float:
    """Part of consecutive frames [T, h, w, 3] that have a scratch, of those that have two neighbours; 0
    where there are fewer than three."""
    seen = [Seen.of(pixels) for pixels in middle_of(frames)]
    found = [scratches_in(Between(*seen[t - 1 : t + 2])).any() for t in range(1, len(seen) - 1)]
    return float(np.mean(found)) if found else 0.0


def scratches_in(frames: Between) -> NDArray[np.bool_]:
    """[h, w], True where a frame has a scratch, which is told by the frames beside it."""
    luma = frames.here.luma
    covered = np.zeros(luma.shape, np.bool_)
    found = [*_flickering(frames), *_staying(frames)]
    if len(found) <= MOST_SCRATCHES:
        for line in found:
            covered |= _covered(luma, line)
    return covered


def _flickering(frames: Between) -> list[Line]:
    """Lines that neither neighbour has where the motion leads to."""
    luma, least = frames.here.luma, max(LEAST_LEVELS, SEED_STDS * frames.usual)
    beyond = {
        1: luma - np.maximum(*frames.neighbours),
        -1: np.minimum(*frames.neighbours) - luma,
    }
    lines = (lines_of(plane, sign, least_levels=least) for sign, plane in beyond.items())
    return [line for found in lines for line in found]


def _staying(frames: Between) -> list[Line]:
    """Lines that a neighbour has at the same place although the picture has moved across."""
    shifts = [2 * float(np.median(flow[..., 0])) for flow in frames.flows]
    moving = [
        (other.luma, round(shift))
        for other, shift in zip((frames.before, frames.after), shifts, strict=True)
        if abs(shift) >= LEAST_SHIFT
    ]
    if not moving:
        return []
    luma = frames.here.luma
    lines = (lines_of(sign * luma, sign) for sign in (1, -1))
    return [
        line
        for found in lines
        for line in found
        if any(_stays(line, other, shift) for other, shift in moving)
    ]


def lines_of(plane: Plane, sign: int, *, least_levels: float = LEAST_LEVELS) -> list[Line]:
    """All thin, nearly upright lines that go from the top of a plane to its bottom, brighter than what is
    beside them."""
    if min(plane.shape) < 4 * STRIP_PIXELS:
        return []
    pieces = _pieces(plane)
    shown = np.stack([_shown(pieces, slant, least_levels) for slant in SLANTS])
    best = shown.max(0)
    highest = np.asarray(cv2.dilate(best[None], np.ones((1, 7), np.uint8)))[0]
    found = []
    for column in _middles(best >= np.maximum(SHOWN_PART, highest)):
        slants = np.flatnonzero(shown[:, column] == best[column])
        found.append(Line(column, SLANTS[int(slants[len(slants) // 2])], sign))
    return found


def _stands_out(luma: Plane) -> Plane:
    """By how much each pixel is above the brighter of what is on its left and on its right."""
    return np.asarray(luma - np.maximum(*_sides(luma)), np.float32)


def _sides(luma: Plane) -> tuple[Plane, Plane]:
    """What is `SIDE_PIXELS` to the left and to the right of each pixel."""
    sides = (0, 0, SIDE_PIXELS, SIDE_PIXELS)
    padded: Plane = np.asarray(cv2.copyMakeBorder(luma, *sides, cv2.BORDER_REPLICATE), np.float32)
    width = luma.shape[1]
    return padded[:, :width], padded[:, 2 * SIDE_PIXELS : 2 * SIDE_PIXELS + width]


def _pieces(luma: Plane) -> Plane:
    """[strips, w]: the median of what stands out in each piece of each column; none at the borders,
    where nothing is beside."""
    rows = luma.shape[0] // STRIP_PIXELS
    strips = _stands_out(luma)[: rows * STRIP_PIXELS].reshape(rows, STRIP_PIXELS, -1)
    pieces = np.median(strips, axis=1).astype(np.float32)
    pieces[:, :SIDE_PIXELS] = pieces[:, -SIDE_PIXELS:] = 0
    return pieces


def _shown(pieces: Plane, slant: int, least_levels: float = LEAST_LEVELS) -> Plane:
    """[w]: of a line through the middle of each column, the part of its pieces that show."""
    rows = len(pieces)
    leaning = [
        np.roll(row >= least_levels, -round(slant * ((i + 0.5) / rows - 0.5)))
        for i, row in enumerate(pieces)
    ]
    return np.mean(leaning, axis=0, dtype=np.float32)


def _middles(peaks: NDArray[np.bool_]) -> list[int]:
    """The middle of each run of columns."""
    _, labels = cv2.connectedComponents(peaks[None].astype(np.uint8))
    return [int(np.median(np.flatnonzero(labels[0] == n))) for n in range(1, labels.max() + 1)]


def _stays(line: Line, other: Plane, shift: int) -> bool:
    """Whether a neighbour has a line where it is, and not where the picture went."""
    shown = _shown(_pieces(line.sign * other), line.slant)
    here = shown[max(0, line.column - 1) : line.column + 2].max()
    there = line.column + shift
    is_inside = 0 <= there < len(shown)
    return bool(here >= SHOWN_PART and is_inside and shown[there] <= GONE_PART)


def _covered(luma: Plane, line: Line) -> NDArray[np.bool_]:
    """[h, w]: the columns along a line that differ from what is beside it, and one more on each side."""
    height, width = luma.shape
    lean = np.round(line.slant * ((np.arange(height) + 0.5) / height - 0.5)).astype(int)
    reach = np.arange(-SIDE_PIXELS + 1, SIDE_PIXELS)
    columns = np.clip(line.column + lean[:, None] + reach, 0, width - 1)
    left, right = _sides(luma)
    middle = line.column + lean
    rows = np.arange(height)
    beside = (left[rows, middle.clip(0, width - 1)] + right[rows, middle.clip(0, width - 1)]) / 2
    profile = np.median(line.sign * (luma[rows[:, None], columns] - beside[:, None]), axis=0)
    is_line = profile >= RIM_PART * profile.max()
    is_line = cv2.dilate(is_line[None].astype(np.uint8), np.ones((1, 3), np.uint8))[0] > 0
    covered = np.zeros(luma.shape, np.bool_)
    covered[rows[:, None], columns[:, is_line]] = True
    return covered
