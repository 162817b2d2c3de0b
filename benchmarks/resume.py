"""What stopping costs: kills of a run at random moments, the price of keeping, a long film's memory.

python benchmarks/resume.py kills          # 25 for MP4, 25 for MKV, 200 frames with sound
python benchmarks/resume.py cost [SIZE]    # CPU seconds with pieces and without
python benchmarks/resume.py long [FRAMES]  # memory and pace of 20,000 frames of 32x24
"""

import logging
import sys
import tempfile
import time
from pathlib import Path

import cv2
import torch

from instantvir_models.run import restoration
from instantvir_models.run.restoration import Progress, restore
from tests.kills import KilledRuns
from tests.media_clips import make_clip

SHORT_SEGMENT = 30
"""Frames of a piece of the small films that are killed."""


def kills(folder: Path) -> None:
    """A table of when each run was killed, and what was kept then."""
    for suffix in (".mp4", ".mkv"):
        place = folder / suffix[1:]
        place.mkdir()
        runs = KilledRuns(place, suffix, frames=200, segment=SHORT_SEGMENT, seed=2)
        runs.kill(25)
        print(f"{suffix}: {runs.seconds:.2f} CPU s uninterrupted; all {len(runs.rows)} equal")
        print("| killed at CPU s | frames kept |\n|---|---|")
        for seconds, frames in runs.rows:
            print(f"| {seconds:.2f} | {frames} |")


def cost(folder: Path, size: str = "64x48", num_frames: str = "500") -> None:
    """CPU and wall seconds of one film, in pieces and at once, in turns."""
    width, height = map(int, size.split("x"))
    clip = make_clip(
        folder / "in.mp4", width=width, height=height, num_frames=int(num_frames), audio=True
    )
    usual = restoration.frames_per_segment
    print("| | CPU s | wall s |\n|---|---|---|")
    for turn in range(2):
        for name, frames in (("at once", 10**9), ("in pieces", usual(height, width))):
            restoration.frames_per_segment = lambda h, w, frames=frames: frames  # type: ignore[misc]
            cpu, wall = time.process_time(), time.perf_counter()
            restore(clip, folder / f"{turn}{name}.mp4", operator="noise:std=3")
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            print(f"| {name} | {cpu:.3f} | {wall:.3f} |", flush=True)
    restoration.frames_per_segment = usual


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
