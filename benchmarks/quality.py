"""Restoration quality beside what a user can install today: one table per task.

    python benchmarks/quality.py CLIP... --out benchmarks/results/quality [--crf 18]

For every clip: the first frames, measured with a fixed seed and stored as 8 bits (or through H.264),
restored by the embedded student through `Session` (no access to the truth) and by each rival at
the setting that suits this clip best (chosen with the truth). Everything runs on one thread, so
CPU seconds compare. Rivals are computed once per clip and kept in `--cache`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rivals import RIVALS, Rival

from instantvir_models.checkpoints.load import load_student
from instantvir_models.media import open_video, to_uint8, to_unit
from instantvir_models.media.round_trip import h264_round_trip
from instantvir_models.metrics.fidelity import frame_difference_psnr, psnr, ssim
from instantvir_models.operators.measurement import Degradation
from instantvir_models.operators.spec import ClipShape, parse_degradation
from instantvir_models.run.session import Session
from instantvir_models.solvers.amortised import Amortised
from instantvir_models.solvers.base import Solver
from instantvir_models.speed.meters import hardware
from instantvir_models.tasks import TASKS

SEED = 0
OURS = "instantvir (tiny)"

CASES = {task.name: task.benchmark_spec for task in TASKS.values()}
"""The measurement of each task."""

Frames = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method on one clip."""

    task: str
    clip: str
    method: str
    setting: str
    psnr: float
    ssim: float
    frame_difference_psnr: float
    cpu_seconds_per_frame: float


@dataclass(frozen=True, kw_only=True)
class Job:
    """One clip and task, with all its methods."""

    clip: Path
    task: str
    frames: int
    crf: int | None
    model: str
    cache: Path
    pictures: Path | None


def clean_frames(clip: Path, count: int) -> Frames:
    """The first `count` frames, cropped to a multiple of 4."""
    with open_video(clip, other_streams=False) as reader:
        frames = np.stack([frame.pixels for frame in islice(reader, count)])
    height, width = (size // 4 * 4 for size in frames.shape[1:3])
    return frames[:, :height, :width]


def measure(clean: Frames, spec: str, crf: int | None) -> tuple[Frames, Degradation]:
    """The measurement as a file would hold it, and what is known about it."""
    height, width = clean.shape[1:3]
    shape = ClipShape(num_frames=len(clean), height=height, width=width)
    degradation = parse_degradation(spec, shape=shape)
    y = degradation.operator.A(to_unit(clean))
    if degradation.noise_std:
        generator = torch.Generator().manual_seed(SEED)
        y = y + degradation.noise_std * torch.randn(y.shape, generator=generator)
    pixels = to_uint8(y)
    if crf is None:
        return pixels, degradation
    return h264_round_trip(pixels, crf=crf), replace(degradation, is_lossy=True)


def restore(y: Frames, degradation: Degradation, solver: Solver[Any]) -> Frames:
    """The measurement restored the way `instantvir restore` does it."""
    session = Session(solver, degradation, height=y.shape[1], width=y.shape[2])
    return np.concatenate([session.push(y), session.flush()])


def run(job: Job) -> list[Row]:
    """All methods on one clip and task."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    clean = clean_frames(job.clip, job.frames)
    y, degradation = measure(clean, CASES[job.task], job.crf)
    rows, best = [], (-1.0, y)
    for rival in RIVALS[job.task]:
        row, frames = _kept(
            job, rival, lambda rival=rival: best_of(job, rival, y, degradation, clean)
        )
        rows.append(row)
        if row.psnr > best[0]:
            best = (row.psnr, frames)
    student = load_student(job.model).student  # not part of the cost per frame
    started = time.process_time()
    restored = restore(y, degradation, Amortised(student))
    seconds = (time.process_time() - started) / len(clean)
    rows.append(_row(job, OURS, "", restored, clean, seconds))
    if job.pictures is not None:
        _write_sheet(job, y, best[1], restored, clean)
    return rows


def best_of(
    job: Job, rival: Rival, y: Frames, degradation: Degradation, clean: Frames
) -> tuple[Row, Frames]:
    """The rival at its best setting for this clip, and what it restored."""
    found: list[tuple[Row, Frames]] = []
    for solver in rival.solvers:
        started = time.process_time()
        restored = restore(y, degradation, solver)
        seconds = (time.process_time() - started) / len(clean)
        found.append((_row(job, rival.name, str(solver), restored, clean, seconds), restored))
    return max(found, key=lambda pair: pair[0].psnr)


def _row(
    job: Job, method: str, setting: str, restored: Frames, clean: Frames, seconds: float
) -> Row:
    return Row(
        task=job.task,
        clip=job.clip.stem,
        method=method,
        setting=setting,
        psnr=float(psnr(restored, clean).mean()),
        ssim=float(ssim(restored, clean).mean()),
        frame_difference_psnr=float(frame_difference_psnr(restored, clean).mean()),
        cpu_seconds_per_frame=seconds,
    )


def _kept(job: Job, rival: Rival, compute: Callable[[], tuple[Row, Frames]]) -> tuple[Row, Frames]:
    """`compute()`, or what it gave the last time for this clip, measurement and tuning grid."""
    spec = CASES[job.task]
    of = (
        job.clip.stem,
        job.clip.stat().st_size,
        spec,
        job.frames,
        job.crf,
        rival.name,
        rival.solvers,
    )
    key = hashlib.sha256(repr(of).encode()).hexdigest()[:16]
    stored = job.cache / f"{key}.npz"
    if stored.exists():
        with np.load(stored) as kept:
            return Row(**json.loads(str(kept["row"]))), kept["frames"]
    row, frames = compute()
    job.cache.mkdir(parents=True, exist_ok=True)
    partial = stored.with_suffix(".part.npz")
    np.savez_compressed(partial, row=json.dumps(asdict(row)), frames=frames)
    partial.replace(stored)
    return row, frames


def _write_sheet(job: Job, y: Frames, rival: Frames, restored: Frames, clean: Frames) -> None:
    """Input | best rival | restored | truth, the middle of the last frame at twice its size."""
    assert job.pictures is not None
    height, width = clean.shape[1:3]
    shown = cv2.resize(y[-1], (width, height), interpolation=cv2.INTER_NEAREST)
    top, left, side = height // 4, width // 4, min(height, width) // 2
    crops = [
        np.kron(frame[top : top + side, left : left + side], np.ones((2, 2, 1), np.uint8))
        for frame in (shown, rival[-1], restored[-1], clean[-1])
    ]
    job.pictures.mkdir(parents=True, exist_ok=True)
    sheet = np.concatenate(crops, 1)
    cv2.imwrite(str(job.pictures / f"{job.task}-{job.clip.stem}.png"), sheet[..., ::-1])


def tables(rows: Iterable[Row]) -> str:
    """Markdown: means over clips for every method, then our gain over each rival per clip."""
    rows = list(rows)
    lines = []
    for task, spec in CASES.items():
        mine = [row for row in rows if row.task == task]
        if not mine:
            continue
        lines += [f"### {task}: `{spec}`", ""]
        lines += [
            "| method | PSNR | SSIM | frame-difference PSNR | CPU s/frame |",
            "|---|---|---|---|---|",
        ]
        methods = list(dict.fromkeys(row.method for row in mine))
        for method in methods:
            of = [row for row in mine if row.method == method]
            fields = ("psnr", "ssim", "frame_difference_psnr", "cpu_seconds_per_frame")
            means = [np.mean([getattr(row, field) for row in of]) for field in fields]
            lines.append(f"| {method} | " + "{:.2f} | {:.4f} | {:.2f} | {:.3f} |".format(*means))
        others = [method for method in methods if method != OURS]
        lines += [
            "",
            "Per clip, PSNR (and frame-difference PSNR) of ours, and its lead over each rival:",
            "",
        ]
        lines += [
            "| clip | ours | " + " | ".join(others) + " |",
            "|---|---|" + "---|" * len(others),
        ]
        for clip in dict.fromkeys(row.clip for row in mine):
            by = {row.method: row for row in mine if row.clip == clip}
            ours = by[OURS]
            leads = [
                f"{ours.psnr - by[m].psnr:+.2f} "
                f"({ours.frame_difference_psnr - by[m].frame_difference_psnr:+.2f})"
                for m in others
            ]
            cells = " | ".join([f"{ours.psnr:.2f} ({ours.frame_difference_psnr:.2f})", *leads])
            lines.append(f"| {clip} | {cells} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Parse the arguments, run every job, write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="writes OUT.md and OUT.json")
    parser.add_argument("--tasks", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--crf", type=int, help="send measurements through H.264 at this CRF")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--cache", type=Path, default=Path("runs/rivals"))
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    jobs = [
        Job(
            clip=clip, task=task, frames=given.frames, crf=given.crf, model=given.model,
            cache=given.cache, pictures=given.pictures,
        )
        for task in given.tasks
        for clip in given.clips
    ]  # fmt: skip
    with ProcessPoolExecutor(given.workers) as pool:
        rows = [row for some in pool.map(run, jobs) for row in some]
    head = (
        f"{given.frames} frames of each clip, seed {SEED}, "
        f"{'lossless 8-bit' if given.crf is None else f'H.264 CRF {given.crf}'} measurements; "
        f"model {load_student(given.model).sha256[:12]}.\n"
    )
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.with_suffix(".md").write_text(f"{head}\n{tables(rows)}")
    report = {"hardware": hardware(), "rows": [asdict(row) for row in rows]}
    given.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    print(head, tables(rows), sep="\n")


if __name__ == "__main__":
    main()
