"""What each version's embedded weights restore, side by side: the history of quality, as a table and a chart.

    python benchmarks/history.py --each "0.1.0, 0.2.0=61530d5" --each "0.3.0, 0.4.0=bba9502" --each ...

Takes the weights out of the history of the repository and runs all of them through this version's code
on the bundled clips, with the degradations and the seed of `instantvir benchmark --suite paper`. Versions
that have the same weights are one. One thread; under a minute. Writes `results/history.json`,
`docs/benchmarks/history.md` and `history.svg` beside it (that needs matplotlib).
"""

import argparse
import hashlib
import json
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from receipts import RESULTS, machine, write_result

from instantvir_models.checkpoints.load import load_student
from instantvir_models.metrics.fidelity import frame_difference_psnr, psnr
from instantvir_models.run.session import Session
from instantvir_models.solvers.amortised import Amortised
from instantvir_models.suite.clips import bundled_clips
from instantvir_models.suite.runner import PAPER_TASKS, case_of

WEIGHTS = "models/instantvir_models/weights/tiny.safetensors"
DOCS = RESULTS.parents[1] / "docs" / "benchmarks"
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Point:
    """The weights of one version, or of several that have the same, on one task: means over clips."""

    version: str
    sha256: str
    task: str
    psnr: float
    """dB."""
    frame_difference_psnr: float
    """dB; flicker lowers it."""
    cpu_seconds_per_frame: float
    """Median over clips."""


def points(version: str, weights: Path) -> list[Point]:
    """A version's weights on every task."""
    student = load_student(str(weights)).student
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    found = []
    for task in PAPER_TASKS:
        quality, flicker, seconds = [], [], []
        for clip in bundled_clips():
            case = case_of(task, clip, SEED)
            height, width = case.y.shape[1:3]
            session = Session(
                Amortised(student, torch.float32),
                case.measurement.degradation,
                height=height,
                width=width,
            )
            started = time.process_time()
            x = np.concatenate([session.push(case.y), session.flush()])
            seconds.append((time.process_time() - started) / len(x))
            quality.append(float(psnr(x, clip.frames).mean()))
            flicker.append(float(frame_difference_psnr(x, clip.frames).mean()))
        found.append(
            Point(
                version=version,
                sha256=sha256,
                task=task.name,
                psnr=float(np.mean(quality)),
                frame_difference_psnr=float(np.mean(flicker)),
                cpu_seconds_per_frame=float(np.median(seconds)),
            )
        )
    return found


def weights_at(commit: str, folder: Path) -> Path:
    """The embedded weights as they were at a commit."""
    path = folder / f"{commit}.safetensors"
    with path.open("wb") as file:
        subprocess.run(
            ["git", "show", f"{commit}:{WEIGHTS}"], cwd=RESULTS.parents[1], stdout=file, check=True
        )
    return path


def page(every: list[Point], receipt: dict[str, object]) -> str:
    """The history as Markdown."""
    lines = [
        "# History",
        "",
        "Written by `benchmarks/history.py`; do not edit. The embedded weights of each version, all of them "
        f"run by the code of {receipt['instantvir']}, on the six bundled clips (96x64, 5 frames), damaged as in "
        "[the suite](index.md). Seconds are CPU seconds of one thread a frame.",
        "",
        "![PSNR and time of each version, by task](history.svg)",
        "",
        "| task | version | weights | PSNR, dB | frame-difference PSNR, dB | CPU s/frame |",
        "|---|---|---|---|---|---|",
    ]
    for task in PAPER_TASKS:
        lines += [
            f"| {p.task} | {p.version} | `{p.sha256[:12]}` | {p.psnr:.2f} | "
            f"{p.frame_difference_psnr:.2f} | {p.cpu_seconds_per_frame:.4f} |"
            for p in every
            if p.task == task.name
        ]
    return "\n".join([*lines, "", f"Receipt: `{json.dumps(receipt)}`", ""])


def chart(every: list[Point], path: Path) -> None:
    """PSNR and time over versions, a line for each task."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "history"  # the same file for the same numbers
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
    for task in PAPER_TASKS:
        mine = [p for p in every if p.task == task.name]
        versions = [p.version for p in mine]
        axes[0].plot(versions, [p.psnr for p in mine], marker="o", label=task.name)
        axes[1].plot(
            versions, [1000 * p.cpu_seconds_per_frame for p in mine], marker="o", label=task.name
        )
    for axis, label in zip(axes, ("PSNR, dB", "CPU ms a frame of 96x64"), strict=True):
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[1].set_ylim(bottom=0)
    axes[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None}, facecolor="white")


def main() -> None:
    """Measure, write the table and the chart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", action="append", required=True, metavar="VERSION=COMMIT")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    every: list[Point] = []
    with tempfile.TemporaryDirectory() as folder:
        for version, _, commit in (text.partition("=") for text in given.each):
            every += points(version, weights_at(commit, Path(folder)))
    receipt = machine()
    write_result("history", {"about": receipt, "points": [asdict(point) for point in every]})
    DOCS.mkdir(exist_ok=True)
    (DOCS / "history.md").write_text(page(every, receipt), encoding="utf-8")
    chart(every, DOCS / "history.svg")


if __name__ == "__main__":
    main()
