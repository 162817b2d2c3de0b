"""What is done to pictures that no camera takes: the worst change of each task, over 200 of them.

    python -m benchmarks.saturated [--model NAME] [--per-kind 25]

Each short clip of `drawings` is degraded, stored in 8 bits, and restored with the operator told. What
counts is PSNR less that of the initial estimate, the largest of which cannot be above `TOP_DB`: the
exact picture is no better than one that is off by a quarter of a level.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from benchmarks.drawings import PER_KIND, Frames, pictures
from benchmarks.receipts import machine, write_result
from instantvir_models.checkpoints.load import load_student
from instantvir_models.operators.blur import GaussianBlur
from instantvir_models.operators.compose import Identity
from instantvir_models.operators.downsample import Downsample
from instantvir_models.operators.mask import Mask
from instantvir_models.operators.measurement import LEVEL, Degradation, Measurement, noisy, stored
from instantvir_models.solvers.amortised import Amortised
from instantvir_models.solvers.base import Solver, Window
from instantvir_models.solvers.classical.initial import InitialEstimate

TOP_DB = 60.0
"""About the PSNR of a picture that is right to a quarter of a level."""


@dataclass(frozen=True)
class Case:
    """A task at one strength."""

    name: str
    degradation: Degradation
    true_noise_levels: float
    """Of the noise that there is; what is told is in the degradation."""


def _mask() -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return (torch.rand(3, 1, 96, 96, generator=generator) < 0.5).float()


def cases() -> Iterator[Case]:
    """Every task."""
    identity = Identity()
    for told in (2.0, 5.0, 25.0):
        degradation = Degradation(operator=identity, noise_std=told * LEVEL)
        yield Case(f"noise {told:g}", degradation, told)
        yield Case(f"told {told:g}, no noise", degradation, 0)
    for name, operator, noise in (
        ("holes", Mask(_mask()), 0.0),
        ("holes, noise 5", Mask(_mask()), 5.0),
        ("x2", Downsample(2, "area"), 0.0),
        ("x4", Downsample(4, "area"), 0.0),
        ("blur 1.6", GaussianBlur(1.6), 0.0),
    ):
        yield Case(name, Degradation(operator=operator, noise_std=noise * LEVEL), noise)


@dataclass(frozen=True)
class Outcome:
    """One clip restored."""

    kind: str
    index: int
    psnr: float
    psnr_init: float
    replaced: float
    """The part of the area that became the initial estimate."""

    @property
    def gain(self) -> float:
        """Decibels over the initial estimate."""
        return self.psnr - self.psnr_init


@torch.no_grad()
def outcome(solver: Solver[object], case: Case, kind: str, index: int, frames: Frames) -> Outcome:
    """`frames` degraded and restored."""
    x = torch.from_numpy(frames).permute(0, 3, 1, 2)[None].float() / 127.5 - 1
    generator = torch.Generator().manual_seed(index)
    clean = case.degradation.operator.A(x)
    y = stored(noisy(clean, case.true_noise_levels * LEVEL, generator=generator))
    window = Window.whole(Measurement(y, case.degradation))
    restored = solver.restore_block(window, solver.new_state())
    start = InitialEstimate().restore_block(window, None)
    return Outcome(
        kind, index, _psnr(restored.x, x), _psnr(start.x, x),
        float(np.mean(restored.replaced or 0)),
    )  # fmt: skip


def _psnr(estimate: Tensor, x: Tensor) -> float:
    error = float((stored(estimate) - x).square().mean())
    return TOP_DB if error == 0 else min(TOP_DB, 10 * math.log10(4 / error))


def summary(outcomes: list[Outcome]) -> dict[str, object]:
    """One row of the table."""
    gains = np.array([each.gain for each in outcomes])
    worst = outcomes[int(gains.argmin())]
    return {
        "mean_gain_db": round(float(gains.mean()), 2),
        "min_gain_db": round(worst.gain, 2),
        "worst": f"{worst.kind} {worst.index}",
        "worst_psnr": round(worst.psnr, 2),
        "min_psnr": round(min(each.psnr for each in outcomes), 2),
        "clips_worse": int((gains < -0.05).sum()),
        "clips_guarded": sum(each.replaced > 0 for each in outcomes),
        "area_replaced": round(float(np.mean([each.replaced for each in outcomes])), 4),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", help="a student; the embedded one if left out")
    parser.add_argument("--per-kind", type=int, default=PER_KIND)
    given = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    receipt, started = machine(), time.process_time()
    loaded = load_student(given.model) if given.model else load_student()
    solver = Amortised(loaded.student)
    drawn, table, kinds = pictures(given.per_kind), {}, {}
    for case in cases():
        outcomes = [
            outcome(solver, case, kind, index, frames)
            for kind, clips in drawn.items()
            for index, frames in enumerate(clips)
        ]
        table[case.name] = row = summary(outcomes)
        kinds[case.name] = {
            kind: round(min(each.gain for each in outcomes if each.kind == kind), 2)
            for kind in drawn
        }
        sys.stderr.write(f"{case.name:18} {row}\n")
    write_result(
        "saturated",
        {
            "machine": receipt,
            "model_sha256": loaded.sha256,
            "clips": sum(map(len, drawn.values())),
            "cpu_seconds": round(time.process_time() - started),
            "tasks": table,
            "min_gain_db_by_kind": kinds,
        },
    )


if __name__ == "__main__":
    main()
