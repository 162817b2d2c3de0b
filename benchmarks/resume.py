"""What stopping costs: kills of a run at random moments, the price of keeping, a long film's memory.

python benchmarks/resume.py kills [SUFFIX] [TIMES] [SEED]    # of 200 frames with sound
python benchmarks/resume.py cost [SIZE] [FRAMES]             # of the end of a piece
python benchmarks/resume.py clock [FRAMES] [ROUNDS]          # the same of whole runs, by the clock
python benchmarks/resume.py share [SIZE] [FRAMES] [SOLVER]   # what part of a run's own time it is, at most
python benchmarks/resume.py long [FRAMES] [SOLVER]           # memory and pace of 20,000 frames of 32x24
python benchmarks/resume.py pieces CLIP...                   # bytes and PSNR of 240 frames, by length of pieces
"""

import itertools
import logging
import math
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import torch

from instantvir_models.media import EncoderSettings, Frame, create_video, open_video
from instantvir_models.media.container_writer import ContainerWriter
from instantvir_models.media.encoder import VideoEncoder
from instantvir_models.media.segments import SegmentedWriter
from instantvir_models.metrics.fidelity import psnr, psnr_over_frames
from instantvir_models.run import going_on, journal, restoration
from instantvir_models.run.journal import Journal, frames_per_segment
from instantvir_models.run.restore import restore
from instantvir_models.run.restore_report import Progress
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
    going_on.frames_per_segment = lambda height, width: 3  # type: ignore[assignment]
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
    notes = _Spent()
    going_on.frames_per_segment = lambda height, width: usual  # type: ignore[assignment]
    seconds, going_on.KEEP_SECONDS = going_on.KEEP_SECONDS, 0.0
    with notes.of(Session, "memory"), notes.of(Journal, "note"):
        restore(clip, folder / "noted.mp4", operator="noise:std=3")
    print(
        f"{1000 * notes.seconds / (pieces + 1):.1f} ms ({1000 * notes.wall_seconds / (pieces + 1):.1f} ms "
        f"by the clock) to keep three frames and the memory amid a piece, once in {seconds:.0f} s"
    )


def share(folder: Path, size: str = "64x48", frames: str = "750", solver: str = "student") -> None:
    """The part of a run's seconds that passes inside the calls which keep pieces, of the same run and by the
    same clock, so that other programs slow both: the plan of pieces, the session's memory, the end of each
    and the beginning of the next, notes. Joining them is held against what a run without pieces takes to hand
    the same packets to the container. It is more than keeping costs, for most of it passes beside the
    restoration, and a run without pieces ends an encoder, too."""
    width, height = map(int, size.split("x"))
    clip = make_clip(
        folder / "in.mp4", width=width, height=height, num_frames=int(frames), audio=True
    )
    chosen = {} if solver == "student" else {"solver": solver}
    short = make_clip(folder / "short.mp4", width=width, height=height, num_frames=3)
    restore(short, folder / "short.out.mp4", operator="noise:std=3", **chosen)  # loads torch
    ends, joining, handing = _Spent(), _Spent(), _Spent()
    with (
        ends.of(restoration, "opened_pieces"),
        ends.of(Session, "memory"),
        ends.of(SegmentedWriter, "end_segment"),
        ends.of(Journal, "add"),
        ends.of(SegmentedWriter, "_new_segment"),
        joining.of(SegmentedWriter, "_mux_all"),
    ):
        kept = _run_seconds(clip, folder / "kept.mp4", None, **chosen)
    with (
        handing.of(ContainerWriter, "_mux"),
        handing.of(ContainerWriter, "_write_waiting_companions"),
    ):
        plain = _run_seconds(clip, folder / "plain.mp4", "it is measured", **chosen)
    pieces = math.ceil(int(frames) / frames_per_segment(height, width))
    print(
        f"{frames} frames of {size}, {solver}, {pieces} pieces: {kept}\n"
        f"keeping pieces {ends.part_of(kept)}\n"
        f"joining them {joining.part_of(kept)}\n"
        f"without pieces: {plain}, of which handing packets over {handing.part_of(plain)}"
    )


@dataclass(frozen=True)
class _Took:
    """What a whole run took."""

    wall_seconds: float
    cpu_seconds: float

    def __str__(self) -> str:
        return f"{self.wall_seconds:.2f} s ({self.cpu_seconds:.2f} CPU s)"


@dataclass
class _Spent:
    """CPU seconds of the threads in some functions, and seconds by the clock; once where one of them calls
    another."""

    seconds: float = 0.0
    wall_seconds: float = 0.0
    within: set[int] = field(default_factory=set)
    """Threads that are in one of them."""

    def part_of(self, run: _Took) -> str:
        """Its part of a run, by the clock and of the processor."""
        return (
            f"{self.wall_seconds:.3f} s ({100 * self.wall_seconds / run.wall_seconds:.2f} %; "
            f"CPU {self.seconds:.3f} s, {100 * self.seconds / run.cpu_seconds:.2f} %)"
        )

    @contextmanager
    def of(self, owner: Any, name: str) -> Iterator[None]:
        """Count what `owner.name` takes as long as this lasts."""
        inner = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            thread = threading.get_ident()
            if thread in self.within:
                return inner(*arguments, **named)
            self.within.add(thread)
            cpu, wall = time.thread_time(), time.perf_counter()
            try:
                return inner(*arguments, **named)
            finally:
                self.seconds += time.thread_time() - cpu
                self.wall_seconds += time.perf_counter() - wall
                self.within.discard(thread)

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
            _run_seconds(clip, folder / f"{number}{name}.mp4", why).wall_seconds
            for name, why in (("kept", None), ("plain", "it is measured"))
        ]
        print(f"| {seconds[0]:.2f} | {seconds[1]:.2f} |", flush=True)


def _run_seconds(clip: Path, target: Path, why_without_pieces: str | None, **chosen: Any) -> _Took:
    inner = going_on.why_in_one_piece
    if why_without_pieces is not None:
        going_on.why_in_one_piece = lambda restoration: why_without_pieces
    begun, cpu = time.perf_counter(), time.process_time()
    restore(clip, target, operator="noise:std=3", **chosen)
    going_on.why_in_one_piece = inner
    return _Took(time.perf_counter() - begun, time.process_time() - cpu)


FILM_FRAMES = 240
"""Of the films whose pieces are compared."""


def pieces(folder: Path, *clips: str) -> None:
    """What shorter pieces would cost: each clip is played forth and back, and written again as it is."""
    print("| clip | frames of a piece | bytes | more | PSNR, dB |\n|---|---|---|---|---|")
    for clip in map(Path, clips):
        film, least = _forth_and_back(clip, folder / "film.mkv"), 0
        for frames in (FILM_FRAMES, 120, 48, 24):
            journal.LONGEST_SEGMENT = journal.SHORTEST_SEGMENT = frames
            target = folder / "out.mp4"
            restore(film, target, operator="noise:std=3", solver="as_measured", overwrite=True)
            size = _video_bytes(target)
            least = least or size
            print(
                f"| {clip.stem} | {frames} | {size} | {100 * (size / least - 1):.1f} % | "
                f"{_psnr(target, film):.2f} |",
                flush=True,
            )


def _forth_and_back(clip: Path, film: Path) -> Path:
    """A lossless film of the clip's frames."""
    with open_video(clip) as reader:
        frames = [frame.pixels for frame in reader]
        rate = reader.info.frame_rate
    there_and_back = itertools.cycle((*frames, *frames[-2:0:-1]))
    height, width = frames[0].shape[:2]
    settings = EncoderSettings(codec="ffv1")
    with create_video(
        str(film), width=width, height=height, settings=settings, frame_rate=rate, overwrite=True
    ) as writer:
        for index in range(FILM_FRAMES):
            writer.write(Frame(next(there_and_back), index, 1 / Fraction(rate or 25)))
    return film


def _video_bytes(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(packet.size for packet in container.demux(video=0))


def _psnr(path: Path, film: Path) -> float:
    with open_video(path) as one, open_video(film) as other:
        return psnr_over_frames(
            [
                float(psnr(a.pixels[None], b.pixels[None])[0])
                for a, b in zip(one, other, strict=True)
            ]
        )


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
        {
            "kills": kills,
            "cost": cost,
            "clock": clock,
            "share": share,
            "long": long,
            "pieces": pieces,
        }[sys.argv[1]](Path(place), *sys.argv[2:])
