"""Where a long video is cut, so that its pieces can be restored side by side and joined without a seam."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from statistics import median

LEAST_CUT = 12.0
"""Mean change from one picture to the next, in 8-bit levels, of what may be a cut between scenes."""

CUT_OVER_USUAL = 4.0
"""How much more than the pictures around it a cut changes."""

PICTURES_AROUND = 12


@dataclass(frozen=True)
class Piece:
    """Frames first .. stop of a video, and what has to be read to restore them as if none were missing."""

    first: int
    stop: int
    read_first: int
    """Where reading begins: the warm-up, in which the memory of the solver fills, is thrown away."""
    read_stop: int
    """Where it ends: with the block that holds the last frame, and what an operator looks at behind it."""
    start_seconds: Fraction | None
    """Between the frames read_first - 1 and read_first; None at the beginning."""

    @property
    def name(self) -> str:
        """Sorts as the pieces do."""
        return f"{self.first:08}-{self.stop:08}"


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """How a session cuts a video into blocks, and how far it looks beyond one."""

    first: int
    following: int
    radius: int = 0
    """Frames on both sides of a block that its operator looks at."""

    def begin_before(self, frame: int) -> int:
        """The last frame up to `frame` at which a session may begin and still cut blocks alike."""
        return max(0, frame) // self.following * self.following

    def end_after(self, frame: int) -> int:
        """Where the block that holds `frame` - 1 ends."""
        if frame <= self.first:
            return self.first
        return self.first + -(-(frame - self.first) // self.following) * self.following


def pieces_of(
    times: Sequence[Fraction],
    cuts: Sequence[int],
    *,
    frames_per_piece: int,
    warm_up: int,
    blocks: Blocks,
) -> list[Piece]:
    """The pieces of a video, at cuts between scenes where there is one near.

    Args:
        times: of all frames, in seconds, rising.
        cuts: first frames of scenes.
        frames_per_piece: about how many.
        warm_up: frames to restore before those of a piece, at least.
    """
    ends = [0, *_ends(len(times), cuts, frames_per_piece), len(times)]
    return [
        _piece(first, stop, times, warm_up, blocks)
        for first, stop in pairwise(ends)
        if first < stop
    ]


def _ends(num_frames: int, cuts: Sequence[int], frames_per_piece: int) -> list[int]:
    reach = frames_per_piece // 3
    wanted = range(frames_per_piece, num_frames - reach, frames_per_piece)
    return sorted({_cut_near(end, cuts, reach) for end in wanted})


def _cut_near(end: int, cuts: Sequence[int], reach: int) -> int:
    """The nearest cut that is not further away than `reach`; `end` itself if there is none."""
    near = [cut for cut in cuts if abs(cut - end) <= reach]
    return min(near, key=lambda cut: abs(cut - end)) if near else end


def _piece(first: int, stop: int, times: Sequence[Fraction], warm_up: int, blocks: Blocks) -> Piece:
    read_first = blocks.begin_before(first - warm_up - blocks.radius) if first else 0
    read_stop = min(len(times), blocks.end_after(stop) + blocks.radius)
    start = (times[read_first - 1] + times[read_first]) / 2 if read_first else None
    return Piece(first, stop, read_first, read_stop, start)


def cuts_in(changes: Sequence[float]) -> list[int]:
    """First frames of scenes.

    Args:
        changes: mean absolute change of each picture from the one before, in 8-bit levels; the first is 0.
    """
    cuts = []
    for index, change in enumerate(changes):
        low = max(0, index - PICTURES_AROUND)
        around = [*changes[low:index], *changes[index + 1 : index + 1 + PICTURES_AROUND]]
        if change > max(LEAST_CUT, CUT_OVER_USUAL * median(around or [0.0])):
            cuts.append(index)
    return cuts
