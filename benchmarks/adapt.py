"""What adapting to measured videos alone brings, on clips whose truth it never sees.

    python benchmarks/adapt.py CLIP... --operator "identity+noise:std=30" --steps 60 -o runs/adapt

Every clip is measured once with a fixed seed and stored as 8 bits; `--recipe adapt` then trains the
embedded student on these measurements and nothing else. One line of JSON: PSNR against the truth
before and after, by clip, and the CPU seconds that training took. One thread.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from instantvir_distill.clips import Clip
from instantvir_distill.evaluate import restored
from instantvir_distill.launch import Material, objective_of
from instantvir_distill.recipes import RECIPES
from instantvir_distill.sources import MeasuredClip
from instantvir_distill.trainer import Trainer
from instantvir_models.checkpoints.load import load_student
from instantvir_models.media import open_video, to_uint8, to_unit
from instantvir_models.metrics.fidelity import psnr
from instantvir_models.operators.measurement import Measurement, degrade
from instantvir_models.operators.spec import Specification
from instantvir_models.students.base import Student


@dataclass(frozen=True)
class Hidden:
    """A clip, how it was measured, and what only this script knows."""

    measured: Clip
    truth: np.ndarray
    measurement: Measurement


def main() -> None:
    """The command line of this script."""
    asked = arguments()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    specification = Specification.read(asked.operator)
    clips = [measured(path, specification, asked, seed) for seed, path in enumerate(asked.clips)]
    before = scores("tiny", clips)
    started = time.process_time()
    config = RECIPES["adapt"]()
    config = replace(
        config,
        workers=1,
        seed=asked.seed,
        measured_by=asked.operator,
        phases=tuple(replace(phase, steps=asked.steps) for phase in config.phases),
    )
    objective = objective_of(
        config, Material(clips=asked.output), [clip.measured for clip in clips]
    )
    Trainer(config, objective, asked.output).run()
    seconds = time.process_time() - started
    after = scores(str(asked.output / "student.safetensors"), clips)
    row = {
        "operator": asked.operator, "steps": asked.steps, "seed": asked.seed,
        "psnr_before": before, "psnr_after": after, "cpu_seconds": round(seconds),
        "torch": torch.__version__, "machine": platform.processor() or platform.machine(),
    }  # fmt: skip
    print(json.dumps(row))


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--operator", required=True, help="as `instantvir restore --operator`")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--frames", type=int, default=12, help="of each clip")
    parser.add_argument("--side", type=int, default=240, help="of the middle that is taken")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    return parser.parse_args()


def measured(
    path: Path, specification: Specification, asked: argparse.Namespace, seed: int
) -> Hidden:
    """The middle of the first frames of `path`, measured."""
    with open_video(path, other_streams=False) as reader:
        frames = np.stack([frame.pixels for frame in islice(reader, asked.frames)])
    top, left = ((side - asked.side) // 2 for side in frames.shape[1:3])
    truth = frames[:, top : top + asked.side, left : left + asked.side]
    given = MeasuredClip.of(Clip(path.stem, truth), specification).degradation
    y = degrade(to_unit(truth), given, generator=torch.Generator().manual_seed(seed)).y
    stored = to_uint8(y)
    return Hidden(Clip(path.stem, stored), truth, Measurement(to_unit(stored), given))


@torch.inference_mode()
def scores(name: str, clips: list[Hidden]) -> dict[str, float]:
    """PSNR in dB of the student called `name`, by clip."""
    student = load_student(name).student
    return {clip.measured.name: round(decibels(student, clip), 3) for clip in clips}


def decibels(student: Student[Any], clip: Hidden) -> float:
    """Mean over frames."""
    x_hat, *_ = restored(student, clip.measurement, block=student.frames_per_block)
    return float(psnr(to_uint8(x_hat), clip.truth).mean())


if __name__ == "__main__":
    main()
