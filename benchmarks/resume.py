"""What stopping costs: kills of a run at random moments, the price of keeping, a long film's memory.

python benchmarks/resume.py kills [SUFFIX] [TIMES] [SEED]    # of 200 frames with sound
python benchmarks/resume.py cost [SIZE] [FRAMES]             # of the end of a piece
python benchmarks/resume.py long [FRAMES]                    # memory and pace of 20,000 frames of 32x24
"""

import logging
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
from instantvir_models.run.restoration import Progress, restore
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


def long(folder: Path, frames: str = "20000") -> None:
    """Memory and CPU seconds per frame at ten moments, and how far the time left was off."""
    clip = make_clip(folder / "in.mp4", width=32, height=24, num_frames=int(frames), audio=True)
    said: list[tuple[float, Progress]] = []
    every = int(frames) // 10

    def watch(progress: Progress) -> None:
        if progress.frames % every == 0:
            said.append((time.process_time(), progress))
            print(
                f"| {progress.frames} | {_resident_megabytes():.0f} | {progress.fps or 0:.1f} | "
                f"{progress.seconds:.1f} | {progress.seconds_left or 0:.1f} |",
                flush=True,
            )

    print("| frame | resident MB | FPS | seconds | said to be left |\n|---|---|---|---|---|")
    report = restore(
        clip, folder / "out.mp4", operator="noise:std=3", solver="map", on_progress=watch
    )
    print(
        f"{report.frames} frames in {report.wall_seconds:.1f} s, {_resident_megabytes():.0f} MB at the end"
    )


def _resident_megabytes() -> float:
    words = Path("/proc/self/status").read_text().split("VmRSS:")[1].split()
    return int(words[0]) / 1024


if __name__ == "__main__":
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    logging.getLogger("libav").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as place:
        {"kills": kills, "cost": cost, "long": long}[sys.argv[1]](Path(place), *sys.argv[2:])
