"""Trains a student: one process per core, gradients averaged, resumes after a kill."""

import json
import math
import os
import statistics
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from instantvir_distill.clips import Clip
from instantvir_distill.config import DistillConfig
from instantvir_distill.data import Sample, Sampler
from instantvir_distill.losses import miscalibration, relative_error
from instantvir_distill.optimizer import Muon, is_matrix
from instantvir_distill.scenes import Photo
from instantvir_models.checkpoints.load import load_student, save_student
from instantvir_models.cpu import fastest_dtype
from instantvir_models.errors import UsageError
from instantvir_models.operators.consistency import data_consistency
from instantvir_models.operators.measurement import Measurement
from instantvir_models.students.base import condition
from instantvir_models.students.fused import FusedConfig, FusedStudent, Refined, Start

SAVE_EVERY_SECONDS = 120
LOG_EVERY_STEPS = 50

NORMS_KEPT = 200
"""Gradient norms whose median says what a spike is."""


class Trainer:
    """One worker of a training run. Owns the student, its average, the optimisers and the data."""

    def __init__(
        self,
        config: DistillConfig,
        clips: list[Clip],
        folder: Path,
        *,
        rank: int,
        photos: Sequence[Photo] = (),
    ) -> None:
        torch.manual_seed(config.seed)
        self.config, self.folder, self.rank = config, folder, rank
        self.student = _first_student(config)
        self.average = {k: v.detach().clone() for k, v in self.student.state_dict().items()}
        for name, weight in self.student.named_parameters():
            weight.requires_grad_(name.startswith(config.learned))
        named = [(n, p) for n, p in self.student.named_parameters() if p.requires_grad]
        matrices = [p for n, p in named if is_matrix(n, p)]
        others = [p for n, p in named if not is_matrix(n, p)]
        self.optimizers: list[torch.optim.Optimizer] = []
        if matrices:
            self.optimizers.append(Muon(matrices, lr=config.muon_lr))
        if others:
            self.optimizers.append(torch.optim.AdamW(others, lr=config.adam_lr, weight_decay=0.0))
        self.sampler = Sampler(clips, lossy_fraction=config.lossy_fraction, photos=photos)
        self.norms: deque[float] = deque(maxlen=NORMS_KEPT)
        self.spikes = 0
        self.step = 0

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def run(self) -> None:
        """Train from the last checkpoint, if there is one, to the end of the recipe."""
        self._resume()
        saved = time.monotonic()
        losses: dict[str, list[float]] = {}
        while self.step < self.config.steps:
            for task, loss in self._update(self._samples()).items():
                losses.setdefault(task, []).append(loss)
            self.step += 1
            if self.rank == 0 and self.step % LOG_EVERY_STEPS == 0:
                self._log(losses)
                losses = {}
            if self.rank == 0 and (
                time.monotonic() - saved > SAVE_EVERY_SECONDS or self.step == self.config.steps
            ):
                self._save()
                saved = time.monotonic()

    def _samples(self) -> list[Sample]:
        """The examples of this worker at this step."""
        phase = self.config.phase_at(self.step)
        self.sampler.seed(self.config.seed, self.rank, self.step)
        return [
            self.sampler.sample(task, crop=phase.crop, frames=phase.frames)
            for task in self._tasks(phase.samples)
        ]

    def _tasks(self, samples: int) -> list[str]:
        """This worker's share of the mix, dealt out anew at each step."""
        mix, workers = self.config.mix, self.config.workers
        dealt = np.random.default_rng((self.config.seed, self.step)).permutation(
            [mix[i % len(mix)] for i in range(self.step * samples, (self.step + 1) * samples)]
        )
        return [str(task) for task in dealt[self.rank :: workers]]

    def _update(self, samples: list[Sample]) -> dict[str, float]:
        """One optimiser step; the mean loss of each task."""
        each, miscalibrated = self._losses(samples)
        loss = torch.stack(each).mean() + self.config.calibration_weight * miscalibrated
        loss.backward()
        self._average_gradients()
        if not self._is_spike():
            rate = self.config.rate_at(self.step)
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group.setdefault("base_lr", group["lr"]) * rate
                optimizer.step()
            self._update_average()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        by_task: dict[str, list[float]] = {}
        for sample, value in zip(samples, each, strict=True):
            by_task.setdefault(sample.task, []).append(float(value.detach()))
        return {task: statistics.fmean(values) for task, values in by_task.items()}

    def _losses(self, samples: list[Sample]) -> tuple[list[Tensor], Tensor]:
        """The loss of each example, and how wrong the student was about its own error."""
        phase = self.config.phase_at(self.step)
        count = min(phase.frames_learned, phase.frames)
        firsts = self.sampler.rng.integers(phase.frames - count + 1, size=len(samples))
        traits = self.student.config.traits
        starts = [
            _frames(
                self.student.start(
                    condition(
                        _during(sample.measurement, slice(0, self._seen_by(first + count))), traits
                    ),
                    self.student.new_state(),
                ),
                slice(first, first + count),
            )
            for sample, first in zip(samples, firsts, strict=True)
        ]
        # as it will run: weights stay float32, products are bfloat16 where the CPU computes in it
        with torch.autocast(
            "cpu", dtype=fastest_dtype(), enabled=fastest_dtype() == torch.bfloat16
        ):
            refined = self._refined(starts)
        each, miscalibrated = [], []
        for sample, start, first, one in zip(samples, starts, firsts, refined, strict=True):
            frames = slice(first, first + count)
            x, x_hat, expected = sample.x[:, frames], one.x_hat[None], one.variance
            if not self.student.is_final(start.traits):
                x_hat = data_consistency(
                    x_hat,
                    _during(sample.measurement, frames),
                    estimate_std=expected.detach().mean().sqrt(),
                )
            squared = (x_hat.detach() - x)[0].square().mean(1, keepdim=True)
            squared = F.interpolate(squared, size=expected.shape[-2:], mode="area")
            miscalibrated.append(miscalibration(squared, expected))
            power = self.config.powers.get(sample.task, 0.5)
            each.append(relative_error(x_hat, x, variance=start.variance_init.mean(), power=power))
        return each, torch.stack(miscalibrated).mean()

    def _seen_by(self, frames: int) -> int:
        """How many frames of a sequence the first `frames` of it depend on: whole blocks."""
        block = self.student.frames_per_block
        return -(-frames // block) * block

    def _refined(self, starts: list[Start]) -> list[Refined]:
        """What becomes of each example; those of the network at once, and those of its branch."""
        out: dict[int, Refined] = {}
        for is_branch in (False, True):
            chosen = [i for i, s in enumerate(starts) if (s.y_small is not None) == is_branch]
            if not chosen:
                continue
            joined = self.student.refine(_joined([starts[i] for i in chosen]))
            counts = [len(starts[i].x_init) for i in chosen]
            parts = zip(*(t.split(counts) for t in vars(joined).values()), strict=True)
            out |= {i: Refined(*part) for i, part in zip(chosen, parts, strict=True)}
        return [out[i] for i in range(len(starts))]

    def _is_spike(self) -> bool:
        """Whether the gradient is far longer than it usually is; else clips it."""
        norm = float(
            nn.utils.clip_grad_norm_(self.student.parameters(), self.config.max_gradient_norm)
        )
        usual = statistics.median(self.norms) if len(self.norms) >= 20 else math.inf
        is_spike = not norm <= self.config.spike * usual
        if is_spike:
            self.spikes += 1
        else:
            self.norms.append(norm)
        return is_spike

    def _average_gradients(self) -> None:
        learned = [p for p in self.student.parameters() if p.requires_grad]
        for weight in learned:  # of a branch that no sample of this worker and step went through
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        if not dist.is_initialized():
            return
        gradients = [p.grad for p in learned if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for gradient, part in zip(
            gradients, flat.split([g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(part.view_as(gradient))

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        for name, value in self.student.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)

    def _log(self, losses: dict[str, list[float]]) -> None:
        row = {
            "step": self.step,
            "time": round(time.time(), 1),
            "rate": round(self.config.rate_at(self.step), 4),
        }
        row |= {"spikes": self.spikes, "norm": round(statistics.median(self.norms), 4)}
        row |= {"cpu_seconds": round(time.process_time())}
        row |= {task: round(sum(v) / len(v), 5) for task, v in losses.items()}
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")

    def _save(self) -> None:
        """Write the checkpoint and the averaged weights, each complete or not at all."""
        state = {
            "step": self.step,
            "student": self.student.state_dict(),
            "average": self.average,
            "norms": list(self.norms),
            "spikes": self.spikes,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        partial = self._checkpoint.with_suffix(".part")
        torch.save(state, partial)
        os.replace(partial, self._checkpoint)
        averaged = FusedStudent(self.student.config, seen=self.student.seen)
        averaged.load_state_dict(self.average)
        weights = self.folder / "student.part"
        save_student(averaged, weights, dtype=torch.float32)
        os.replace(weights, self.folder / "student.safetensors")
        (self.folder / "config.json").write_text(json.dumps(asdict(self.config), indent=2))

    def _resume(self) -> None:
        if not self._checkpoint.exists():
            return
        state = torch.load(self._checkpoint, weights_only=True)
        self.step = state["step"]
        self.student.load_state_dict(state["student"])
        self.average = state["average"]
        self.norms.extend(state["norms"])
        self.spikes = state["spikes"]
        for optimizer, stored in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)


def _first_student(config: DistillConfig) -> FusedStudent:
    """The student at step 0, channels last."""
    if config.initial_weights is None:
        student: FusedStudent = FusedStudent(config.student).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return student
    given = load_student(config.initial_weights).student
    if not isinstance(given, FusedStudent):
        raise UsageError(
            f"`{config.initial_weights}` is no fused student, the kind that recipes train",
            hint="start from a file that `instantvir distill` wrote",
        )
    return _with_branches(given, config.student).train().requires_grad_(True)


def _with_branches(given: FusedStudent, wanted: FusedConfig) -> FusedStudent:
    """`given`, with a new branch for enlargement if one is wanted and it has none."""
    if given.config.enlarger_layers or not wanted.enlarger_layers:
        return given
    size = replace(
        given.config,
        enlarger_layers=wanted.enlarger_layers,
        enlarger_channels=wanted.enlarger_channels,
    )
    grown: FusedStudent = FusedStudent(size).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    grown.load_state_dict(given.state_dict(), strict=False)
    return grown


def _frames(start: Start, frames: slice) -> Start:
    return Start(**{name: value[frames] for name, value in _present(start).items()})


def _joined(starts: list[Start]) -> Start:
    return Start(
        **{
            name: torch.cat([getattr(start, name) for start in starts])
            for name in _present(starts[0])
        }
    )


def _present(start: Start) -> dict[str, Tensor]:
    return {name: value for name, value in vars(start).items() if value is not None}


def _during(measurement: Measurement, frames: slice) -> Measurement:
    """The part of `measurement` inside `frames`."""
    return Measurement(
        measurement.y[:, frames], measurement.degradation.at_frame(int(frames.start))
    )


def run_worker(
    config: DistillConfig,
    clips: list[Clip],
    folder: Path,
    *,
    rank: int,
    photos: Sequence[Photo] = (),
) -> None:
    """The body of worker `rank`: single-threaded, joined to the others through gloo."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    folder.mkdir(parents=True, exist_ok=True)
    if config.workers > 1:
        store = torch.distributed.FileStore(  # type: ignore[attr-defined]
            str(folder / f"rendezvous-{os.getppid()}"), config.workers
        )
        dist.init_process_group("gloo", store=store, rank=rank, world_size=config.workers)
    Trainer(config, clips, folder, rank=rank, photos=photos).run()
    if dist.is_initialized():
        dist.destroy_process_group()
