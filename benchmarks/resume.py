"""What stopping costs: kills of a run at random moments, the price of keeping, a long film's memory.

python benchmarks/resume.py kills [SUFFIX] [TIMES] [SEED]    # of 200 frames with sound
python benchmarks/resume.py cost [SIZE] [FRAMES]             # of the end of a piece
python benchmarks/resume.py clock [FRAMES] [ROUNDS]          # the same of whole runs, by the clock
python benchmarks/resume.py long [FRAMES] [SOLVER]           # memory and pace of 20,000 frames of 32x24
"""

import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch

from instantvir_models.media.encoder import VideoEncoder
from instantvir_models.media.segments import SegmentedWriter
from instantvir_models.run import restoration
from instantvir_models.run.journal import Journal, frames_per_segment
from instantvir_models.run.restoration import Progress, Restoration, restore
from instantvir_models.run.session import Session
from tests.kills import KilledRuns
from tests.media_clips import make_clip

SHORT_SEGMENT = 30
"""Frames of a piece of the small films that are killed."""


def kills(folder: Path, suffix: str = ".mp4", times: str = "25", seed: str = "2") -> None:
    """A table of when each run was killed, and what was kept then."""
    runs = KilledRuns(folder, suffix, frames=200, segment=SHORT_SEGMENT, seed=int(seed))
    runs.kill(int(times))
    print(
        f"{suffix}: {runs.seconds:.2f} CPU s uninterrupted; killed {len(runs.rows)} times, each "
        f"file equal to the bit, nothing left; {runs.computed} frames restored in all"
    )
    print("| killed at CPU s | frames kept |\n|---|---|")
    for seconds, frames in runs.rows:
        print(f"| {seconds:.2f} | {frames} |")


def cost(folder: Path, size: str = "832x480", num_frames: str = "9") -> None:
    """CPU milliseconds of a frame, and of all that the end of a piece takes: the session's memory, the
    encoder's end and the next one's beginning, the disk."""
    width, height = map(int, size.split("x"))
    clip = make_clip(
        folder / "in.mp4", width=width, height=height, num_frames=int(num_frames), audio=True
    )
    usual = frames_per_segment(height, width)
    restoration.frames_per_segment = lambda height, width: 3  # type: ignore[assignment]
    ends, frames = _Spent(), _Spent()
    with (
        ends.of(Session, "memory"),
        ends.of(SegmentedWriter, "end_segment"),
        ends.of(Journal, "add"),
        ends.of(SegmentedWriter, "_new_segment"),
        frames.of(Session, "push"),
        frames.of(VideoEncoder, "encode"),
    ):
        restore(clip, folder / "out.mp4", operator="noise:std=3")
    pieces = (int(num_frames) - 1) // 3
    a_frame, an_end = frames.seconds / int(num_frames), ends.seconds / pieces
    print(
        f"{size}: {1000 * a_frame:.1f} ms a frame, {1000 * an_end:.1f} ms the end of a piece "
        f"({1000 * ends.wall_seconds / pieces:.1f} ms by the clock); of {usual} frames that is "
        f"{100 * an_end / (usual * a_frame):.2f} %"
    )


@dataclass
class _Spent:
    """CPU seconds of the threads in some functions, and seconds by the clock."""

    seconds: float = 0.0
    wall_seconds: float = 0.0

    @contextmanager
    def of(self, owner: type, name: str) -> Iterator[None]:
        """Count what `owner.name` takes as long as this lasts."""
        inner = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            cpu, wall = time.thread_time(), time.perf_counter()
            result = inner(*arguments, **named)
            self.seconds += time.thread_time() - cpu
            self.wall_seconds += time.perf_counter() - wall
            return result

        setattr(owner, name, timed)
        yield
        setattr(owner, name, inner)


def clock(folder: Path, frames: str = "750", rounds: str = "3") -> None:
    """Seconds by the clock of runs that keep pieces and of runs that do not, by turns: 64x48 with sound,
    the embedded student, pieces as long as usual."""
    clip = make_clip(folder / "in.mp4", width=64, height=48, num_frames=int(frames), audio=True)
    print("| with pieces, s | without, s |\n|---|---|")
    for number in range(int(rounds)):
        seconds = [
            _run_seconds(clip, folder / f"{number}{name}.mp4", why)
            for name, why in (("kept", None), ("plain", "it is measured"))
        ]
        print(f"| {seconds[0]:.2f} | {seconds[1]:.2f} |", flush=True)


def _run_seconds(clip: Path, target: Path, why_without_pieces: str | None) -> float:
    inner = Restoration._why_without_journal
    if why_without_pieces is not None:
        Restoration._why_without_journal = (  # type: ignore[method-assign]
            lambda self, path: why_without_pieces
        )
    begun = time.perf_counter()
    restore(clip, target, operator="noise:std=3")
    Restoration._why_without_journal = inner  # type: ignore[method-assign]
    return time.perf_counter() - begun


ASKED_SECONDS = 30
"""When the time left is held against the truth."""


def long(folder: Path, frames: str = "20000", solver: str = "map") -> None:
    """Memory and frames a second of each fifth, and how far the time left was off after 30 s."""
    clip = make_clip(folder / "in.mp4", width=32, height=24, num_frames=int(frames), audio=True)
    fifth = int(frames) // 5
    last, spent, asked = Progress(0, None, 0.0), time.process_time(), []

    def watch(progress: Progress) -> None:
        nonlocal last, spent
        if progress.seconds >= ASKED_SECONDS and not asked:
            asked.append(progress)
        if progress.frames % fifth == 0:
            now = time.process_time()
            print(
                f"| {progress.frames} | {_resident_megabytes():.0f} | "
                f"{fifth / (progress.seconds - last.seconds):.1f} | {fifth / (now - spent):.1f} | "
                f"{progress.seconds:.1f} |",
                flush=True,
            )
            last, spent = progress, now

    print(
        "| frame | resident MB | FPS of this fifth | frames per CPU s | seconds |\n"
        "|---|---|---|---|---|"
    )
    chosen = {} if solver == "student" else {"solver": solver}
    report = restore(clip, folder / "out.mp4", operator="noise:std=3", on_progress=watch, **chosen)
    print(
        f"{report.frames} frames in {report.wall_seconds:.1f} s, {_resident_megabytes():.0f} MB at the end"
    )
    for progress in asked:
        left, truth = progress.seconds_left or 0.0, last.seconds - progress.seconds
        print(
            f"after {progress.seconds:.1f} s: said to be left {left:.1f} s, truly {truth:.1f} s "
            f"({100 * (left / truth - 1):+.0f} %)"
        )


def _resident_megabytes() -> float:
    words = Path("/proc/self/status").read_text().split("VmRSS:")[1].split()
    return int(words[0]) / 1024


if __name__ == "__main__":
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    logging.getLogger("libav").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as place:
        print(f"load average at the start: {', '.join(f'{load:.1f}' for load in os.getloadavg())}")
        {"kills": kills, "cost": cost, "clock": clock, "long": long}[sys.argv[1]](
            Path(place), *sys.argv[2:]
        )
