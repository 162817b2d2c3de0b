"""What `--split` changes: one video restored at once and in pieces, frame by frame.

    python benchmarks/split.py CLIP [--minutes 0.04] [--noise 10] --scratch DIR

Both are kept without loss (FFV1), so what differs is what the student did. Seams are where one piece ends and
the next begins; those at a cut between scenes are listed apart, for nothing is carried over a cut anyway.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from instantvir_models.farm.split import WARM_UP_FRAMES, SplitVideo, join, restore_piece, split
from instantvir_models.media import EncoderSettings, open_video
from instantvir_models.run.jobs import Job
from instantvir_models.run.opening import OpenedSolver, open_chosen
from instantvir_models.run.plan import RestorePlan
from instantvir_models.run.restoration import prepared
from instantvir_models.tasks import TaskOptions, parse_tasks

FRAMES_AFTER_A_SEAM = 12
WARM_UPS = (0, 12, WARM_UP_FRAMES)
"""Frames restored before those of a piece; what `--split` takes is the last."""


@dataclass(frozen=True)
class Difference:
    """Of a joined video to the one that was restored at once."""

    same_times: bool
    """So many frames, and at the same moments."""
    same_sound: bool
    mean_squares: Sequence[float]
    """By frame, in 8-bit levels."""

    def decibels(self, frames: Sequence[int]) -> str:
        """PSNR of these frames together."""
        mean = float(np.mean([self.mean_squares[index] for index in frames])) if frames else None
        return "-" if mean is None else _decibels(mean)

    @property
    def worst(self) -> str:
        """PSNR of the frame that differs most."""
        return _decibels(max(self.mean_squares))


def difference(whole: Path, joined: Path) -> Difference:
    """Frame by frame."""
    times: list[tuple[Fraction, Fraction]] = []
    errors: list[float] = []
    with open_video(str(whole)) as one, open_video(str(joined)) as other:
        for a, b in zip(one, other, strict=True):
            times.append((a.pts * a.time_base, b.pts * b.time_base))
            errors.append(float(np.mean((a.pixels.astype(np.float64) - b.pixels) ** 2)))
    return Difference(all(a == b for a, b in times), _sound(whole) == _sound(joined), errors)


def _decibels(mean_square: float) -> str:
    return "equal" if mean_square == 0 else f"{10 * np.log10(255**2 / mean_square):.1f}"


def _sound(path: Path) -> list[tuple[int | None, bytes]]:
    with av.open(str(path)) as container:
        return [(packet.pts, bytes(packet)) for packet in container.demux(audio=0) if packet.size]


def at_once(clip: Path, folder: Path, plan: RestorePlan, solver: OpenedSolver) -> Path:
    """The video restored as one."""
    target = folder / "whole.mkv"
    with prepared(Job(str(clip), str(target)), plan, solver) as restoration:
        restoration.run()
    return target


def in_pieces(
    clip: Path,
    folder: Path,
    plan: RestorePlan,
    solver: OpenedSolver,
    *,
    minutes: float,
    warm_up: int,
) -> tuple[Path, SplitVideo]:
    """The video restored piece by piece, and joined."""
    target = folder / f"joined-{warm_up}.mkv"
    video = split(
        Job(str(clip), str(target), folder), plan, solver, minutes=minutes, warm_up=warm_up
    )
    for piece in video.pieces:
        restore_piece(piece, plan, solver, lambda _: None)
    join(video)
    return target, video


def rows(clip: Path, folder: Path, plan: RestorePlan, *, minutes: float) -> Iterator[str]:
    """A Markdown table: what each warm-up leaves of the seams."""
    solver = open_chosen()
    whole = at_once(clip, folder, plan, solver)
    yield (
        "| warm-up, frames | pieces | frames and times | sound | all frames, dB | after seams, dB "
        "| after seams at cuts, dB | worst frame, dB | frames restored, of the unsplit |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for warm_up in WARM_UPS:
        joined, video = in_pieces(clip, folder, plan, solver, minutes=minutes, warm_up=warm_up)
        found = difference(whole, joined)
        count = len(found.mean_squares)
        seams = [each.piece.first for each in video.pieces[1:]]
        after = {
            is_cut: [
                index
                for seam in seams if (seam in video.cuts) == is_cut
                for index in range(seam, min(count, seam + FRAMES_AFTER_A_SEAM))
            ]
            for is_cut in (False, True)
        }  # fmt: skip
        read = sum(each.piece.read_stop - each.piece.read_first for each in video.pieces)
        cells = (
            warm_up, len(video.pieces),
            "equal" if found.same_times else "DIFFER", "equal" if found.same_sound else "DIFFERS",
            found.decibels(range(count)), found.decibels(after[False]), found.decibels(after[True]),
            found.worst, f"{read / count:.2f}",
        )  # fmt: skip
        yield f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("clip", type=Path)
    parser.add_argument("--minutes", type=float, default=0.04)
    parser.add_argument("--noise", type=float, default=10)
    parser.add_argument("--scratch", type=Path, required=True)
    given = parser.parse_args()
    given.scratch.mkdir(parents=True)
    plan = RestorePlan(
        wanted=TaskOptions(tasks=parse_tasks(["denoise"]), noise_levels=given.noise),
        encoder=EncoderSettings(codec="ffv1"),
    )  # fmt: skip
    for row in rows(given.clip, given.scratch, plan, minutes=given.minutes):
        print(row, flush=True)


if __name__ == "__main__":
    main()
