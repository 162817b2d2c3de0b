"""What each part of the embedded student gives: short runs from nothing, each without one of them.

    python benchmarks/ablation.py --clips CLIPS --photos PHOTOS --cache CACHE --steps 250 -o ablation.json

One thread, one seed, the same samples in the same order for every run; the score is that of
`instantvir_distill.evaluate`. A run that was cut short goes on where it stopped.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import cv2
import torch
from receipts import machine

from instantvir_distill.clips import Clip, load_clips, split
from instantvir_distill.config import DistillConfig, Phase
from instantvir_distill.evaluate import row, validate
from instantvir_distill.launch import Material, objective_of
from instantvir_distill.methods import regression
from instantvir_distill.recipes import tiny
from instantvir_distill.trainer import Trainer
from instantvir_models.checkpoints.load import load_student
from instantvir_models.students import fused
from instantvir_models.students.fused import FusedStudent

WHOLE = "whole"


@contextmanager
def without_averaging() -> Iterator[None]:
    """Each frame as it was measured."""
    start = FusedStudent.start

    def alone(self, sequence, state):  # type: ignore[no-untyped-def]
        found = start(self, sequence, state)
        return replace(found, x_bar=found.x_init, variance=found.variance_init)

    with patch.object(FusedStudent, "start", alone):
        yield


@contextmanager
def without_expected_error() -> Iterator[None]:
    """Neither input nor output scaled by how far the start is off, no Wiener filter to begin with."""
    refine = FusedStudent.refine

    def unscaled(self, start):  # type: ignore[no-untyped-def]
        usual = torch.full_like(start.variance, fused.PICTURE_STD**2)
        return refine(self, replace(start, variance=usual, variance_init=usual))

    def is_open(variance, told):  # type: ignore[no-untyped-def]
        return fused.OPEN_GATE * torch.ones_like(variance)

    with (
        patch.object(FusedStudent, "refine", unscaled),
        patch.object(fused, "_first_gate", is_open),
    ):
        yield


@contextmanager
def without_local_mean() -> Iterator[None]:
    """The network sees brightness itself."""
    with patch.object(fused, "mean_around", lambda x, side: torch.zeros_like(x)):
        yield


@contextmanager
def without_far_view() -> Iterator[None]:
    """What is more than 40 pixels away is unseen."""

    def blind(small, std):  # type: ignore[no-untyped-def]
        return torch.zeros_like(small).repeat(1, 2, 1, 1)

    with patch.object(fused, "_low_view", blind):
        yield


@contextmanager
def with_absolute_loss() -> Iterator[None]:
    """The mean absolute error, in which strong noise counts most."""

    def absolute(x_hat, x, *, variance, power):  # type: ignore[no-untyped-def]
        return 10 * (x_hat - x).abs().mean()

    with patch.object(regression, "relative_error", absolute):
        yield


@contextmanager
def weighed_twice() -> Iterator[None]:
    """Data consistency after the network also where it is shown y with its noise."""
    with patch.object(FusedStudent, "is_final", lambda self, traits: False):
        yield


@contextmanager
def nothing_changed() -> Iterator[None]:
    """The student as it is."""
    yield


VARIANTS = {
    WHOLE: nothing_changed,
    "no average over time": without_averaging,
    "no division by the expected error": without_expected_error,
    "no local mean taken away": without_local_mean,
    "no view of what is far around": without_far_view,
    "absolute instead of relative error": with_absolute_loss,
    "data consistency after noise too": weighed_twice,
}


def config(steps: int) -> DistillConfig:
    """A short run of small crops."""
    phase = Phase(steps=steps, crop=64, frames=6, samples=8, frames_learned=1)
    return replace(tiny(), phases=(phase,), workers=1, ema_decay=0.98)


def trained(steps: int, clips: list[Clip], material: Material, folder: Path) -> Path:
    """The weights of a short run."""
    Trainer(config(steps), objective_of(config(steps), material, clips), folder).run()
    return folder / "student.safetensors"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="scratch folder")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("-o", "--output", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    every = load_clips(asked.clips, cache=asked.cache)
    training, _ = split(every, config(1).validation_sources)
    material = Material(clips=asked.clips, photos=asked.photos)
    rows = json.loads(asked.output.read_text())["rows"] if asked.output.exists() else {}
    for name, changed in VARIANTS.items():
        if name in rows:
            continue
        started = time.process_time()
        with changed():
            weights = trained(asked.steps, training, material, asked.cache / name.replace(" ", "_"))
            cpu_seconds = time.process_time() - started
            scores = row(validate(load_student(str(weights)).student, every, frames=3))
        rows[name] = {"psnr": scores["psnr"], "cpu_seconds": round(cpu_seconds)}
        sys.stderr.write(f"{name}: {rows[name]}\n")
        result = {"machine": machine(), "steps": asked.steps, "rows": rows}
        asked.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
