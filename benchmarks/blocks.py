"""What of time a student has to see: the block, what came before it, and what comes after.

    python benchmarks/blocks.py --clips DIR --cache DIR -o results/blocks.md [--model tiny]

The same weights in blocks of 1, 3 and 6 frames, with all frames at once (nothing is future then), and
in blocks of 3 that remember no more than so many blocks. Held-out crops; the score is that of frames
18 to 23 of 30, so that every student has a past, and a future if it waits. A row that is there is not
measured again.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from receipts import machine
from torch import Tensor

from instantvir_distill.clips import load_clips
from instantvir_distill.evaluate import COLUMNS, crops, measured, restored
from instantvir_distill.methods.base import during
from instantvir_models.checkpoints.load import load_student
from instantvir_models.media import to_uint8
from instantvir_models.metrics.fidelity import psnr
from instantvir_models.metrics.steadiness import warping_error
from instantvir_models.operators.measurement import Measurement, stored
from instantvir_models.students.fused import FusedStudent

FRAMES, BLOCK = 30, 3
SCORED = slice(18, 24)
NAMES = ("noise 25", "holes+2.5", "blur 3+2.5")
BLOCKS, HISTORIES = (6, 3, 1), (0, 1, 2, 6)

WORDS = "## What it says"
"""Begins what a person wrote behind the table; it stays."""

Restore = Callable[[Measurement], Tensor]
"""The frames `SCORED`."""


@dataclass(frozen=True)
class Variant:
    """A way to see time."""

    name: str
    restore: Restore
    delay: int
    """Frames that have to come before the first of a block can leave."""


def in_blocks(student: FusedStudent, block: int) -> Restore:
    """All that came before is remembered."""
    sized = FusedStudent(replace(student.config, frames_per_block=block)).eval()
    sized.load_state_dict(student.state_dict())

    def restore(measurement: Measurement) -> Tensor:
        return restored(sized, measurement, block=block)[0][:, SCORED]

    return restore


def remembering(student: FusedStudent, history: int) -> Restore:
    """Blocks of `BLOCK`, each after a start `history` blocks before it."""

    def restore(measurement: Measurement) -> Tensor:
        last = []
        for first in range(SCORED.start, SCORED.stop, BLOCK):
            seen = during(measurement, slice(max(0, first - history * BLOCK), first + BLOCK))
            last.append(restored(student, seen, block=BLOCK)[0][:, -BLOCK:])
        return torch.cat(last, 1)

    return restore


def variants(student: FusedStudent) -> Iterator[Variant]:
    """All of the table."""
    yield Variant("all frames at once", in_blocks(student, FRAMES), FRAMES)
    for block in BLOCKS:
        yield Variant(f"blocks of {block}", in_blocks(student, block), block)
    for history in HISTORIES:
        name = f"blocks of {BLOCK}, {history} of them remembered"
        yield Variant(name, remembering(student, history), BLOCK)


@torch.inference_mode()
def measure(variant: Variant, clips: list[tuple[str, Tensor]]) -> dict[str, Any]:
    """A row."""
    row: dict[str, Any] = {"name": variant.name, "delay": variant.delay, "columns": {}}
    began, shown = time.process_time(), 0.0
    for column in (column for column in COLUMNS if column.name in NAMES):
        found = []
        for seed, (_, x) in enumerate(clips):
            measurement = measured(x, column, seed=seed)
            here = time.process_time()
            made = variant.restore(measurement)
            shown += time.process_time() - here
            here_levels, clean = to_uint8(stored(made)), to_uint8(x[:, SCORED])
            ratio = warping_error(here_levels, clean) / warping_error(clean, clean)
            found.append((float(psnr(here_levels, clean).mean()), float(ratio.mean())))
        row["columns"][column.name] = [round(float(v), 3) for v in np.mean(found, 0)]
    row["cpu_seconds"] = round(shown, 2)
    row["with_scores"] = round(time.process_time() - began, 1)
    return row


def table(result: dict[str, Any]) -> str:
    """Markdown."""
    lines = [
        "# What of time a student has to see",
        "",
        *(__doc__ or "").split("\n\n", 2)[2].strip().splitlines(),
        "",
        "PSNR in dB, and flicker: change from frame to frame along the motion over that of the clean "
        f"clip. Clips: {', '.join(result['clips'])}. Weights {result['weights']}.",
        "",
        *(f"- {key}: {value}" for key, value in result["machine"].items()),
        "",
        "| | delay in frames | " + " | ".join(NAMES) + " | CPU s |",
        "|---" * (len(NAMES) + 3) + "|",
    ]
    for row in result["rows"]:
        cells = ["{:.2f} / {:.2f}".format(*row["columns"][name]) for name in NAMES]
        delay, seconds = row["delay"], row["cpu_seconds"]
        lines.append(f"| {row['name']} | {delay} | " + " | ".join(cells) + f" | {seconds} |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--crops", type=int, default=3, help="how many clips")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("-o", "--output", type=Path, required=True, help="and the same as .json")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    loaded = load_student(asked.model)
    assert isinstance(loaded.student, FusedStudent)
    every = load_clips(asked.clips, cache=asked.cache)
    clips = list(islice(crops(every, frames=FRAMES), asked.crops))
    kept = asked.output.with_suffix(".json")
    result: dict[str, Any] = {
        "machine": machine(),
        "weights": loaded.sha256[:12],
        "clips": [name for name, _ in clips],
        "rows": json.loads(kept.read_text())["rows"] if kept.exists() else [],
    }
    for variant in variants(loaded.student):
        if variant.name not in [row["name"] for row in result["rows"]]:
            result["rows"].append(measure(variant, clips))
            kept.write_text(json.dumps(result, indent=1) + "\n")
    said = asked.output.read_text().partition(WORDS) if asked.output.exists() else ("", "", "")
    asked.output.write_text("\n".join([table(result), "", *said[1:]]).rstrip() + "\n")


if __name__ == "__main__":
    main()
