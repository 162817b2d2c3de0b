"""Dust and scratches: spots that one frame has and its neighbours, looked up along the motion, do not."""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from instantvir_models.diagnosis.traces import middle_of
from instantvir_models.media.color import as_uint8
from instantvir_models.media.frame import Pixels
from instantvir_models.students.alignment import dense_flow, positions

Plane = NDArray[np.float32]
"""[h, w] in levels of 255."""

LEAST_LEVELS = 12.0
"""A spot stands out by at least so much."""

SEED_STDS, GROW_STDS = 3.0, 2.5
"""Standard deviations of what frames usually differ by: a spot has pixels that are so much beyond all
that the neighbours show there, and ends where it differs by less from their mean."""

UNREST = 2.0
"""How much of what the neighbours differ by around a place counts there besides."""

SMALL_AREA = 150
"""Pixels that a spot may always cover."""

LARGEST_PART = 0.002
"""A spot covers at most this part of a frame."""

LONGEST_PART = 0.35
"""A hair is at most this part of the shorter side long."""

MOST_PART = 0.03
"""A frame of which more would be spots is another scene, not a dirty one."""

EDGE_PART = 0.2
"""A spot ends where it stands out by less than this part of what it does at most."""

SEARCH_PIXELS = 24
"""How far around a spot it is looked for in the neighbours: what is there has moved."""

RIM_PIXELS = 2
"""What is around a spot has to be alike, too."""

FOUND_PART = 0.4
"""A spot that differs by less than this from something nearby in a neighbour has moved."""


LEAST_DUST, OFTEN = 0.002, 0.75
"""Part of the area that is dust, and of the frames that have some, at least, in dusty film: of 24 clips
as they are, or with grain of 10 levels, only one with a butterfly's wings shows so much."""


@dataclass(frozen=True)
class Seen:
    """A frame as spots are looked for in it."""

    luma: Plane
    """Slightly smoothed, so that grain does not count."""

    @classmethod
    def of(cls, pixels: Pixels) -> "Seen":
        """From [h, w, 3], uint8 or uint16."""
        luma = cv2.cvtColor(as_uint8(pixels), cv2.COLOR_RGB2GRAY).astype(np.float32)
        return cls(np.asarray(cv2.GaussianBlur(luma, (3, 3), 0.8), np.float32))

    @cached_property
    def guide(self) -> NDArray[np.uint8]:
        """What the flow is found on: half size, without what is as small as dust."""
        height, width = self.luma.shape
        if min(height, width) > 1:
            half = cv2.resize(self.luma, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        else:
            half = cv2.resize(self.luma, (-(-width // 2), -(-height // 2)))
        return np.asarray(cv2.medianBlur(half.astype(np.uint8), 5))


@dataclass(frozen=True)
class Between:
    """A frame between two others, looked up where its pixels were."""

    before: Seen
    here: Seen
    after: Seen

    @cached_property
    def flows(self) -> tuple[Plane, Plane]:
        """[h / 2, w / 2, 2] to the one before and to the one after, in pixels of half the size."""
        return (
            dense_flow(self.here.guide, self.before.guide),
            dense_flow(self.here.guide, self.after.guide),
        )

    @cached_property
    def neighbours(self) -> tuple[Plane, Plane]:
        """The luma of both where the pixels of `here` were, as bright as it is on the whole."""
        luma = self.here.luma
        first, second = (
            _looked_up(other, flow)
            for other, flow in zip((self.before, self.after), self.flows, strict=True)
        )
        flicker = np.float32(np.median(luma - (first + second) / 2))
        return first + flicker, second + flicker

    @cached_property
    def usual(self) -> float:
        """Standard deviation of what `here` and the mean of both usually differ by."""
        first, second = self.neighbours
        return max(1.0, 1.48 * float(np.median(np.abs(self.here.luma - (first + second) / 2))))


def find_dust(before: Pixels, here: Pixels, after: Pixels) -> NDArray[np.bool_]:
    """[h, w], False where `here` has a spot: it differs from both neighbours, which agree.

    What frames usually differ by is read off themselves, so that grain is no dust; a place that is
    beyond what either neighbour has within a pixel counts, so that detail and motion that was found
    only about are none; and a spot that lies nearby in a neighbour has moved. The idea is that of the
    rank-ordered differences of Nadenau and Mitra (1997).

    Args:
        before, here, after: consecutive frames [h, w, 3], uint8 or uint16.
    """
    return ~spots_in(Between(Seen.of(before), Seen.of(here), Seen.of(after)))


@dataclass(frozen=True, kw_only=True)
class DustSeen:
    """How much of what looks like dust consecutive frames show."""

    spots_per_frame: float
    part: float
    """Of the frames' area."""
    frames_with_spots: float
    """Part of the frames that have one."""

    @property
    def is_dust(self) -> bool:
        """Whether there is so much of it, all the time, that it is nothing else."""
        return self.part >= LEAST_DUST and self.frames_with_spots >= OFTEN


def dust_in(frames: Pixels) -> DustSeen:
    """What consecutive frames [T, h, w, 3] show of dust; nothing where there are fewer than three.

    Dust lies where it likes: a spot near which the frame before or after has one, too, is something
    that moves fast.
    """
    seen = [Seen.of(pixels) for pixels in middle_of(frames)]
    found = [spots_in(Between(*seen[t - 1 : t + 2])) for t in range(1, len(seen) - 1)]
    if not found:
        return DustSeen(spots_per_frame=0, part=0, frames_with_spots=0)
    lonely = [
        _without_company(spots, found[max(0, t - 1) : t] + found[t + 1 : t + 2])
        for t, spots in enumerate(found)
    ]
    counts = [cv2.connectedComponents(spots.astype(np.uint8))[0] - 1 for spots in lonely]
    return DustSeen(
        spots_per_frame=float(np.mean(counts)),
        part=float(np.mean([spots.mean() for spots in lonely])),
        frames_with_spots=float(np.mean([count > 0 for count in counts])),
    )


def _without_company(
    spots: NDArray[np.bool_], others: list[NDArray[np.bool_]]
) -> NDArray[np.bool_]:
    """The connected parts of `spots` that no spot of `others` is near to."""
    _, labels = cv2.connectedComponents(spots.astype(np.uint8))
    around = np.ones((2 * SEARCH_PIXELS + 1,) * 2, np.uint8)
    for other in others:
        near = cv2.dilate(other.astype(np.uint8), around) > 0
        spots = spots & ~np.isin(labels, np.unique(labels[near & spots]))
    return spots


def spots_in(frames: Between) -> NDArray[np.bool_]:
    """[h, w], True where a frame has a spot; what `find_dust` says of frames that are seen already."""
    here, usual = frames.here, frames.usual
    highest, lowest = np.maximum(*frames.neighbours), np.minimum(*frames.neighbours)
    unrest = cv2.boxFilter(highest - lowest, -1, (15, 15))
    rest = UNREST * np.maximum(unrest - usual, 0)
    beyond = np.maximum(here.luma - highest, lowest - here.luma)
    around = np.ones((3, 3), np.uint8)
    clearly = np.maximum(
        here.luma - cv2.dilate(highest, around), cv2.erode(lowest, around) - here.luma
    )
    seeds = clearly > max(LEAST_LEVELS, SEED_STDS * usual) + rest
    if not seeds.any():
        return np.zeros(here.luma.shape, np.bool_)
    grown = (beyond > max(LEAST_LEVELS / 2, GROW_STDS * usual) + rest) | seeds
    # `usual` is of a frame less the mean of two: 3/2 of a frame's variance, not twice
    noise_variance = 4 / 3 * usual**2
    spots = _components(
        grown,
        seeds,
        here,
        (frames.before, frames.after),
        beyond,
        noise_variance=noise_variance,
    )
    if spots.mean() > MOST_PART:
        return np.zeros(here.luma.shape, np.bool_)
    return np.asarray(cv2.dilate(spots.astype(np.uint8), np.ones((3, 3), np.uint8))) > 0


def _looked_up(other: Seen, flow: Plane) -> Plane:
    where = positions(flow, other.luma.shape)
    return np.asarray(
        cv2.remap(other.luma, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    )


def _components(
    grown: NDArray[np.bool_],
    seeds: NDArray[np.bool_],
    here: Seen,
    others: tuple[Seen, Seen],
    beyond: Plane,
    *,
    noise_variance: float,
) -> NDArray[np.bool_]:
    """The connected parts of `grown` that hold a seed, are small, and have not moved.

    Args:
        noise_variance: of what two frames differ by where they show the same.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        grown.astype(np.uint8), connectivity=8
    )
    height, width = grown.shape
    sides = stats[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].max(1)
    is_spot = np.bincount(labels[seeds], minlength=count) > 0
    is_spot &= stats[:, cv2.CC_STAT_AREA] <= max(SMALL_AREA, LARGEST_PART * height * width)
    is_spot &= sides <= LONGEST_PART * min(height, width)
    is_spot[0] = False
    out = np.zeros_like(grown)
    for label in np.flatnonzero(is_spot):
        left, top, w, h = (int(value) for value in stats[label, :4])
        box = (
            slice(max(0, top - RIM_PIXELS), top + h + RIM_PIXELS),
            slice(max(0, left - RIM_PIXELS), left + w + RIM_PIXELS),
        )
        inside = labels[box] == label
        stands_out = np.where(inside, beyond[box], 0)
        rim = np.ones((2 * RIM_PIXELS + 1,) * 2, np.uint8)
        shape = np.asarray(cv2.dilate(inside.astype(np.float32), rim), np.float32)
        nearest = min(_least_difference(here, other, box, shape) for other in others)
        if nearest - noise_variance > (FOUND_PART * float(stands_out[inside].mean())) ** 2:
            out[box] |= stands_out > EDGE_PART * stands_out.max()
    return out


def _least_difference(here: Seen, other: Seen, box: tuple[slice, slice], shape: Plane) -> float:
    """Mean square of what a spot of that shape differs by from the likest place nearby in a neighbour."""
    height, width = here.luma.shape
    rows, columns = (
        slice(max(0, part.start - SEARCH_PIXELS), min(size, part.stop + SEARCH_PIXELS))
        for part, size in zip(box, (height, width), strict=True)
    )
    squared = cv2.matchTemplate(
        other.luma[rows, columns], np.ascontiguousarray(here.luma[box]), cv2.TM_SQDIFF, mask=shape
    )
    return float(squared.min() / shape.sum())
