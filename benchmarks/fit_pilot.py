"""Finds the numbers of `students/pilot.py`: how far noisy frames are filtered with the student as pilot.

    python benchmarks/fit_pilot.py --clips DIR --cache DIR

For each level of noise and share of it: how much of the result is filtered, and how much of that is made
of the noisy frames, so that the mean gain in decibels over training clips is the largest.
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instantvir_distill.clips import load_clips
from instantvir_models.checkpoints.load import load_student
from instantvir_models.operators.compose import Identity
from instantvir_models.operators.measurement import (
    LEVEL,
    ROUNDING_STD,
    Degradation,
    Measurement,
    noisy,
    stored,
)
from instantvir_models.solvers.base import Window
from instantvir_models.students import fused
from instantvir_models.students.base import condition
from instantvir_models.students.pilot import LEVELS, shrunk

CLIPS = (
    "exo_rooftops_01", "flutter_bee_01", "flutter_butterfly_01", "gopro_hero_01", "gopro_karma_01",
    "intel_asl_book", "mdn_cat_01", "media3_building", "media3_dogphone_01", "openh264_flower_01",
    "pexels_squirrel", "tos_battle_01", "pexels_ski", "friday_01", "carnd_vehicle", "nasa_shuttle_01",
)  # fmt: skip
"""Of the training set; none is held out."""
HEIGHT, WIDTH, FRAMES, BLOCK = 120, 208, 6, 3
SHARES = (0.5, 0.75, 1.0)
"""Of the noise, as which it counts."""
TRIED = np.linspace(0, 1, 21)

Moments = NDArray[np.float64]
"""Means of products of the pilot's error e, what filtering the pilot changes (u), and what filtering y
instead changes besides (v): ee, eu, ev, uu, uv, vv."""


def gain(moments: Moments, part: float, measured: float) -> float:
    """Decibels that x_hat + part u + measured v is nearer to the truth."""
    ee, eu, ev, uu, uv, vv = moments
    left = ee - 2 * part * eu - 2 * measured * ev
    left += part**2 * uu + 2 * part * measured * uv + measured**2 * vv
    return float(-10 * np.log10(left / ee))


def crops(clips: Path, cache: Path) -> Iterator[Tensor]:
    """[1, T, 3, H, W] of the middle of each clip."""
    for clip in load_clips(clips, cache=cache):
        height, width = clip.frames.shape[1:3]
        if clip.name in CLIPS and height >= HEIGHT and width >= WIDTH:
            top, left = (height - HEIGHT) // 2, (width - WIDTH) // 2
            part = clip.frames[:FRAMES, top : top + HEIGHT, left : left + WIDTH]
            x = torch.from_numpy(np.ascontiguousarray(part)).permute(0, 3, 1, 2)[None]
            yield x.float() / 127.5 - 1


@torch.inference_mode()
def moments_of(x: Tensor, level: float, seed: int) -> dict[float, Moments]:
    """By share, of one clip with noise of `level` levels."""
    student = load_student().student
    degradation = Degradation(operator=Identity(), noise_std=level * LEVEL)
    y = stored(noisy(x, degradation.noise_std, generator=torch.Generator().manual_seed(seed)))
    variance = degradation.noise_std**2 + ROUNDING_STD**2
    state, found = student.new_state(), dict.fromkeys(SHARES, np.zeros(6))
    for first in range(0, FRAMES, BLOCK):
        here = slice(first, first + BLOCK)
        window = Window.whole(Measurement(y[:, here], degradation))
        block = condition(window.measurement, student.capabilities.traits)
        pilot = student.restore_block(block, state).x_hat[0]
        e = x[0, here] - pilot
        for share in SHARES:
            of_pilot, of_noisy = (
                shrunk(pilot, frames, share * variance) for frames in (pilot, y[0, here])
            )
            u, v = of_pilot - pilot, of_noisy - of_pilot
            pairs = ((e, e), (e, u), (e, v), (u, u), (u, v), (v, v))
            products = [float((a * b).mean()) for a, b in pairs]
            found[share] = found[share] + np.array(products)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="of decoded clips")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    fused.FusedStudent._white_noise = lambda self, traits: [0.0] * len(traits)  # type: ignore[method-assign]
    every = list(crops(asked.clips, asked.cache))
    for level in LEVELS:
        each = [moments_of(x, level, seed) for seed, x in enumerate(every)]
        for share in SHARES:
            gains = {
                (part, measured): [gain(m[share], part, measured) for m in each]
                for part, measured in itertools.product(TRIED, TRIED)
                if measured <= part
            }
            (part, measured), best = max(gains.items(), key=lambda found: np.mean(found[1]))
            print(
                f"noise {level:g}, share {share:g}: {np.mean(best):+.2f} dB ({min(best):+.2f} at least) "
                f"filtered {part:.2f}, measured {measured / max(part, 1e-9):.2f} of it"
            )


if __name__ == "__main__":
    main()
