"""How far the error map of the embedded student is off: what it tells of a pixel, and the true error.

    python benchmarks/error_maps.py --clips CLIPS --cache CACHE -o results/error_maps.md

Held-out crops, measured as `instantvir benchmark` does and restored by a `Session` as everybody's are.
Pixels are sorted by the error that is told and cut into eight equal parts; a part is told the root mean
square of its errors, and has that of its true ones, both in 8-bit levels.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from receipts import machine
from stages import HELD_OUT, held_out

from instantvir_distill.clips import Clip, load_clips
from instantvir_models.checkpoints.load import EMBEDDED, load_student
from instantvir_models.media import to_uint8
from instantvir_models.operators.measurement import Measurement
from instantvir_models.run.session import Session
from instantvir_models.solvers.amortised import Amortised
from instantvir_models.tasks import TASKS

PARTS = 8
FRAMES = 6


def told_and_true(measurement: Measurement, clean: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[2, pixels] squared errors in 8-bit levels."""
    y = to_uint8(measurement.y)
    session = Session(
        Amortised(load_student(EMBEDDED).student),
        measurement.degradation,
        height=y.shape[1],
        width=y.shape[2],
    )
    session.keeps_errors = True
    made = np.concatenate([session.push(y), session.flush()])
    told = session.taken_errors() ** 2
    true = np.square(made.astype(np.float32) - clean).mean(-1)
    return np.stack([told.ravel(), true.ravel()])


def lines_of(task: str, errors: NDArray[np.float32]) -> list[str]:
    """A row for what is told, and one for what is true."""
    parts = np.array_split(np.argsort(errors[0], kind="stable"), PARTS)
    rms = [np.sqrt(errors[:, part].mean(1)) for part in parts]
    logs = np.log(errors + 1e-2)
    whole = np.sqrt(errors.mean(1))
    agreement = np.corrcoef(logs)[0, 1]
    told, true = (" | ".join(f"{one[i]:.1f}" for one in rms) for i in (0, 1))
    return [
        f"| {task}, told | {told} | {whole[0]:.2f} | {agreement:.2f} |",
        f"| {task}, true | {true} | {whole[1]:.2f} | |",
    ]


def table(clips: list[Clip]) -> list[str]:
    """Markdown."""
    found: dict[str, list[NDArray[np.float32]]] = {task: [] for task in TASKS}
    for task, measurement, x in held_out(clips, HELD_OUT, FRAMES):
        found[task].append(told_and_true(measurement, to_uint8(x)))
    head = " | ".join(f"part {i}" for i in range(1, PARTS + 1))
    lines = [f"| | {head} | all | correlation of logarithms |", "|---" * (PARTS + 3) + "|"]
    for task, each in found.items():
        lines += lines_of(task, np.concatenate(each, 1))
    return lines


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="of decoded clips")
    parser.add_argument("-o", "--output", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    clips = [c for c in load_clips(asked.clips, cache=asked.cache) if c.name in HELD_OUT]
    weights = load_student(EMBEDDED).sha256
    receipt = [f"- {name}: {value}" for name, value in machine().items()]
    words = (__doc__ or "").split("\n\n")
    text = ["# Error maps", "", words[0], "", words[2].strip(), "", *table(clips), ""]
    text += [f"Clips: {', '.join(HELD_OUT)}, {FRAMES} frames. Weights {(weights or '')[:12]}.", ""]
    asked.output.write_text("\n".join([*text, *receipt]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
