"""The validation curve: a student on held-out crops, every task, as lines of JSON.

    python -m instantvir_distill.evaluate student.safetensors --clips DIR --cache DIR \\
        --log validation.jsonl --strips strips

Run beside a training run with `--every SECONDS`: each time the weights have changed, a line is added,
and a picture of what became of one crop. A line also says how a problem with a known answer is solved
(`probes`).
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instantvir_distill.clips import Clip, load_clips
from instantvir_distill.data import noise_behind
from instantvir_distill.probes import Probed, compared, known_picture
from instantvir_distill.tool import sentences
from instantvir_models.checkpoints.load import LoadedStudent, load_student
from instantvir_models.cpu import fastest_dtype
from instantvir_models.errors import UsageError
from instantvir_models.media import to_uint8, to_unit
from instantvir_models.media.round_trip import Encoder, h264, mpeg, round_trip
from instantvir_models.operators.base import Operator
from instantvir_models.operators.blur import GaussianBlur
from instantvir_models.operators.compose import Identity
from instantvir_models.operators.consistency import data_consistency
from instantvir_models.operators.downsample import Downsample
from instantvir_models.operators.mask import Mask
from instantvir_models.operators.measurement import LEVEL, Degradation, Measurement, degrade, stored
from instantvir_models.outputs.claim import new_file
from instantvir_models.outputs.lines import add_line
from instantvir_models.students.base import Student, condition

CROPS = (
    ("sam2_dog_01", 5), ("sam2_bedroom_02", 5), ("sam2_juggle_02", 5), ("carnd_highway_01", 5),
    ("media3_topshots", 5), ("mdn_bug_01", 5), ("sam2_blocks_01", 5), ("sam2_cups_02", 5),
)  # fmt: skip
"""Held-out clips, and the first frame of each."""

HEIGHT, WIDTH = 120, 208

MOST_CROPS = 8
"""Of clips that are not those of `CROPS`."""

SIZE_MULTIPLE = 24
"""Of the sides of crops of small clips: what enlargement by 2, 3 and 4 and three halvings divide."""


@dataclass(frozen=True)
class Column:
    """A task at one strength."""

    name: str
    operator: str
    noise_levels: float
    lossy: Encoder | None = None
    """What it is stored by; told is then how far it is off, all in all."""


COLUMNS = (
    *(Column(f"noise {level}", "identity", level) for level in (2, 5, 10, 25, 50)),
    Column("holes", "mask", 0), Column("holes+2.5", "mask", 2.5),
    Column("x2 area", "area2", 0), Column("x4 area", "area4", 0), Column("x4 cubic", "bicubic4", 0),
    Column("blur 3+2.5", "blur3", 2.5), Column("blur 1.6+5", "blur1.6", 5),
    Column("CRF 28", "identity", 0, h264(28)), Column("CRF 36", "identity", 0, h264(36)),
    Column("noise 10 CRF 28", "identity", 10, h264(28)),
    Column("noise 6 MJPEG 12", "identity", 6, mpeg("mjpeg", 12)),
    Column("blur 2 CRF 20", "blur2", 0, h264(20)), Column("x2 CRF 24", "area2", 0, h264(24)),
)  # fmt: skip


@dataclass(frozen=True)
class Score:
    """One crop restored."""

    psnr: float
    psnr_init: float
    told_over_true_error: float
    """The student's expected error of the result over the true one, 1 where calibrated."""


def crops(
    clips: list[Clip], *, frames: int, height: int = HEIGHT, width: int = WIDTH
) -> Iterator[tuple[str, Tensor]]:
    """(name, [1, T, 3, height, width]) of the middle of each clip of `CROPS` that is there.

    If none is, of the first few clips, and smaller where they are smaller.

    Raises:
        UsageError: if a clip is too short or too small.
    """
    by_name = {clip.name: clip for clip in clips}
    chosen = [(name, first) for name, first in CROPS if name in by_name]
    for name, first in chosen or [(clip.name, 0) for clip in clips[:MOST_CROPS]]:
        whole = by_name[name].frames
        rows, columns = (
            _middle(side, wanted)
            for side, wanted in zip(whole.shape[1:3], (height, width), strict=True)
        )
        part = whole[first : first + frames, rows, columns]
        if len(part) < frames or not part.size:
            raise UsageError(
                f"the clip `{name}` is too short or too small to be compared with: "
                f"{frames} frames of {SIZE_MULTIPLE}x{SIZE_MULTIPLE} pixels",
                hint="take it out of the folder",
            )
        x = torch.from_numpy(np.ascontiguousarray(part)).permute(0, 3, 1, 2)[None]
        yield name, x.float() / 127.5 - 1


def _middle(side: int, wanted: int) -> slice:
    """Of a side, `wanted` pixels or, where there are fewer, a multiple of what operators take."""
    size = wanted if side >= wanted else side // SIZE_MULTIPLE * SIZE_MULTIPLE
    first = (side - size) // 2
    return slice(first, first + size)


def measured(x: Tensor, column: Column, *, seed: int) -> Measurement:
    """x as `column` measures it, stored in 8 bits or by its codec."""
    generator = torch.Generator().manual_seed(seed)
    degradation = Degradation(
        operator=_operator(column, x, generator), noise_std=column.noise_levels * LEVEL
    )
    y = degrade(x, degradation, generator=generator).y
    if column.lossy is None:
        return Measurement(stored(y), degradation)
    y = to_unit(round_trip(to_uint8(y), column.lossy))
    told = noise_behind(degradation.operator, y - degradation.operator.A(x))
    return Measurement(y, replace(degradation, noise_std=told, is_lossy=True))


def _operator(column: Column, x: Tensor, generator: torch.Generator) -> Operator:
    kind = column.operator
    if kind == "mask":
        return Mask((torch.rand(x.shape[1], 1, *x.shape[-2:], generator=generator) < 0.5).float())
    if kind.startswith("blur"):
        return GaussianBlur(float(kind[4:]))
    if kind.startswith("area"):
        return Downsample(int(kind[4:]), "area")
    if kind.startswith("bicubic"):
        return Downsample(int(kind[7:]), "bicubic")
    return Identity()


def restored(student: Student[Any], measurement: Measurement, *, block: int) -> tuple[Tensor, ...]:
    """(result, initial estimate, the student's estimate before consistency, its std) block by block."""
    state, parts = student.new_state(), []
    frames = measurement.y.shape[1]
    for first in range(0, frames, block):
        part = Measurement(
            measurement.y[:, first : first + block], measurement.degradation.at_frame(first)
        )
        shown = condition(part, student.capabilities.traits)
        dtype = fastest_dtype()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype == torch.bfloat16):
            estimate = student.restore_block(shown, state)
        result = estimate.x_hat
        if not estimate.is_final:
            result = data_consistency(result, part, estimate_std=float(estimate.std[0]))
        std = estimate.std.square().expand(part.y.shape[1])[None]
        parts.append((result, shown.x_init, estimate.x_hat, std))
    return tuple(torch.cat(column, 1) for column in zip(*parts, strict=True))


@torch.inference_mode()
def validate(
    student: Student[Any], clips: list[Clip], *, frames: int
) -> dict[str, dict[str, Score]]:
    """Scores by column and crop."""
    out: dict[str, dict[str, Score]] = {column.name: {} for column in COLUMNS}
    for seed, (name, x) in enumerate(crops(clips, frames=frames)):
        for column in COLUMNS:
            measurement = measured(x, column, seed=seed)
            result, start, _, variance = restored(
                student, measurement, block=student.frames_per_block
            )
            error = float((result - x).square().mean())
            out[column.name][name] = Score(
                psnr=_psnr(stored(result), x),
                psnr_init=_psnr(stored(start), x),
                told_over_true_error=math.sqrt(float(variance.mean()) / max(error, 1e-9)),
            )
    return out


@torch.inference_mode()
def probed(student: Student[Any], *, seed: int = 0) -> Probed:
    """How far a student is from a posterior mean that is known."""
    given = known_picture(seed=seed)
    x_hat, *_ = restored(student, given.measurement, block=student.frames_per_block)
    return compared(x_hat, given)


@torch.inference_mode()
def strips(
    student: Student[Any], clips: list[Clip], *, frames: int, columns: Sequence[Column] = COLUMNS
) -> NDArray[np.uint8]:
    """A row for each column: what the student started from, what it made of it, the clean frame.

    The last frame of the first crop, [rows * height, 3 * width, 3] RGB.
    """
    _, x = next(crops(clips, frames=frames))
    rows = []
    for column in columns:
        measurement = measured(x, column, seed=0)
        result, start, *_ = restored(student, measurement, block=student.frames_per_block)
        shown = [to_uint8(stored(each[:, -1:]))[0] for each in (start, result, x)]
        rows.append(np.concatenate(shown, 1))
    return np.concatenate(rows, 0)


def write_strips(picture: NDArray[np.uint8], path: Path) -> None:
    """Write a picture [H, W, 3] RGB as PNG, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path, may_replace=True) as unfinished:
        encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
        unfinished.write_bytes(encoded.tobytes())


def _psnr(a: Tensor, b: Tensor) -> float:
    return 10 * math.log10(4 / max(float((a - b).square().mean()), 1e-9))


def row(scores: dict[str, dict[str, Score]]) -> dict[str, dict[str, float]]:
    """Means over crops, ready for a line of JSON."""

    def mean(field: str) -> dict[str, float]:
        return {
            column: round(float(np.mean([getattr(s, field) for s in each.values()])), 3)
            for column, each in scores.items()
        }

    return {name: mean(name) for name in ("psnr", "psnr_init", "told_over_true_error")}


def main() -> None:
    """The command line of this module."""
    with sentences():
        _main(_asked())


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", help="a student as `--model` names it")
    parser.add_argument("--clips", type=Path, required=True, help="not those that it learns from")
    parser.add_argument("--cache", type=Path, required=True, help="folder for them, decoded")
    parser.add_argument("--log", type=Path, help="file of a line for each look")
    parser.add_argument("--frames", type=int, default=3, help="of each clip")
    parser.add_argument(
        "--every", type=float, help="seconds between looks at the weights, which may come later"
    )
    parser.add_argument("--strips", type=Path, help="folder of a picture for each look")
    parser.add_argument("--each", action="store_true", help="scores of every crop")
    asked = parser.parse_args()
    if asked.frames < 1 or (asked.every is not None and not asked.every > 0):
        parser.error("--frames and --every are above 0")
    return asked


def _main(asked: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    clips = load_clips(asked.clips, cache=asked.cache)
    seen = None
    if asked.every is not None and not _are_there(asked.weights):
        sys.stderr.write(f"waiting for `{asked.weights}`, which a run writes after two minutes\n")
    while asked.every is not None and not _are_there(asked.weights):
        time.sleep(asked.every)
    while True:
        loaded = load_student(asked.weights)
        if loaded.sha256 != seen:
            seen = loaded.sha256
            _look(loaded, clips, asked)
        if asked.every is None:
            return
        time.sleep(asked.every)


def _are_there(weights: str) -> bool:
    """Unless it is a file that is not."""
    return not weights.endswith(".safetensors") or Path(weights).exists()


def _look(loaded: LoadedStudent, clips: list[Clip], asked: argparse.Namespace) -> None:
    """A line of scores, and a picture if one is wanted."""
    started = time.process_time()
    scores = validate(loaded.student, clips, frames=asked.frames)
    line: dict[str, Any] = {"time": round(time.time()), "sha256": loaded.sha256[:12]}
    probe = {name: round(value, 3) for name, value in vars(probed(loaded.student)).items()}
    line |= row(scores) | {"probe": probe}
    line |= {"cpu_seconds": round(time.process_time() - started, 1)}
    if asked.each:
        line["each"] = {
            column: {name: vars(score) for name, score in each.items()}
            for column, each in scores.items()
        }
    text = json.dumps(line)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
    if asked.strips is not None:
        picture = strips(loaded.student, clips, frames=asked.frames)
        write_strips(picture, asked.strips / f"{line['time']}-{line['sha256']}.png")
    if asked.log is not None:
        add_line(asked.log, text)


if __name__ == "__main__":
    main()
