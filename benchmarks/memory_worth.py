"""What a student's memory is worth: the last block with the past, and alone.

    python benchmarks/memory_worth.py --clips DIR --cache DIR --scratch DIR
        [--model tiny] [--crops 6] [--frames 18]

Crops of held-out clips, sorted by how fast they move (length of the optical flow from frame to frame
of the clean clip). Each is restored by one `Session` from the first frame on, and its last block
once more by a new one. Writes `results/memory_worth_VERSION.md`.
"""

import argparse
import hashlib
import json
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from laboratory import code_sha256
from quality import Frames, restore
from receipts import RESULTS, machine

from instantvir_cli import __version__
from instantvir_distill.clips import load_clips
from instantvir_distill.evaluate import COLUMNS, HEIGHT, WIDTH, Column, crops, measured
from instantvir_models.checkpoints.load import load_student
from instantvir_models.media import to_uint8
from instantvir_models.metrics.fidelity import psnr
from instantvir_models.solvers.amortised import Amortised
from instantvir_models.students.alignment import dense_flow

NAMES = ("noise 10", "noise 25", "holes+2.5", "x4 area", "blur 3+2.5")


def motion_pixels(clean: Frames) -> tuple[float, float]:
    """Median and 90 % quantile of the flow between neighbouring frames, in pixels a frame."""
    luma = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clean]
    flows = [dense_flow(here, there) for here, there in zip(luma[1:], luma[:-1], strict=True)]
    lengths = np.hypot(*np.moveaxis(np.stack(flows), -1, 0))
    median, most = np.quantile(lengths, (0.5, 0.9))
    return float(median), float(most)


def worth(
    solver: Amortised, x: torch.Tensor, column: Column, *, seed: int, kept: Path
) -> tuple[float, float]:
    """PSNR in dB of the last block without and with what came before; kept in a file."""
    if kept.exists():
        alone, after_past = json.loads(kept.read_text())
        return alone, after_past
    measurement, clean = measured(x, column, seed=seed), to_uint8(x)
    y, known = to_uint8(measurement.y), measurement.degradation
    first = len(y) - solver.frames_per_block
    with torch.inference_mode():
        whole = restore(y, known, solver)
        alone = restore(y[first:], known.at_frame(first), solver)
    found = tuple(float(psnr(x_hat, clean[first:]).mean()) for x_hat in (alone, whole[first:]))
    kept.write_text(json.dumps(found))
    return found[0], found[1]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True, help="kept results, to go on with")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--crops", type=int, default=6, help="how many clips")
    parser.add_argument("--frames", type=int, default=18, help="a multiple of the block")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    given.scratch.mkdir(parents=True, exist_ok=True)
    receipt = machine()
    loaded = load_student(given.model)
    solver = Amortised(loaded.student)
    columns = [column for column in COLUMNS if column.name in NAMES]
    lines = []
    clips = load_clips(given.clips, cache=given.cache)
    found = islice(crops(clips, frames=given.frames), given.crops)
    for seed, (name, x) in enumerate(found):
        cells = []
        for column in columns:
            of = (loaded.sha256, code_sha256(), name, column.name, given.frames)
            key = hashlib.sha256(repr(of).encode()).hexdigest()[:20]
            pair = worth(solver, x, column, seed=seed, kept=given.scratch / f"memory-{key}.json")
            cells.append(f"{pair[1] - pair[0]:+.2f} ({pair[1]:.2f})")
        motion = motion_pixels(to_uint8(x))
        moved = "{:.2f}, {:.2f}".format(*motion)
        lines.append((motion, f"| {name} | {moved} | " + " | ".join(cells) + " |"))
    text = "\n".join(
        [
            "# What memory is worth",
            "",
            f"Gain in PSNR dB of the last block of {given.frames} frames by what came before, and in "
            f"brackets what it then is; {WIDTH}x{HEIGHT}, told the truth, clips sorted by motion. "
            f"Weights {loaded.sha256[:12]}; seeds as in the laboratory table.",
            "",
            *(f"- {key}: {value}" for key, value in receipt.items()),
            "",
            "| clip | motion in pixels a frame, median and 90 % | "
            + " | ".join(c.name for c in columns)
            + " |",
            "|---" * (len(columns) + 2) + "|",
            *(line for _, line in sorted(lines)),
        ]
    )
    (RESULTS / f"memory_worth_{__version__}.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
