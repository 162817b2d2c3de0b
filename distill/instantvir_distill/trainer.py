"""Trains a student: one process per core, gradients averaged, resumes after a kill."""

import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import cv2
import torch
import torch.distributed as dist
from torch import Tensor, nn

from instantvir_distill.config import DistillConfig
from instantvir_distill.data import Clip, Sample, Sampler
from instantvir_distill.losses import regression
from instantvir_distill.optimizer import Muon, is_matrix
from instantvir_models.checkpoints.load import load_student, save_student
from instantvir_models.cpu import fastest_dtype
from instantvir_models.errors import UsageError
from instantvir_models.operators.consistency import data_consistency
from instantvir_models.students.base import Conditioning, condition
from instantvir_models.students.tiny import TinyStudent
from instantvir_models.tasks import TASKS

SAVE_EVERY_SECONDS = 120
LOG_EVERY_STEPS = 50


class Trainer:
    """One worker of a training run. Owns the student, its average, the optimisers and the data."""

    def __init__(
        self, config: DistillConfig, clips: list[Clip], folder: Path, *, rank: int
    ) -> None:
        torch.manual_seed(config.seed)
        self.config, self.folder, self.rank = config, folder, rank
        self.student = _first_student(config)
        self.average = {k: v.detach().clone() for k, v in self.student.state_dict().items()}
        named = list(self.student.named_parameters())
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon([p for n, p in named if is_matrix(n, p)], lr=config.muon_lr),
            torch.optim.AdamW(
                [p for n, p in named if not is_matrix(n, p)], lr=config.adam_lr, weight_decay=0.0
            ),
        ]
        self.sampler = Sampler(clips, lossy_fraction=config.lossy_fraction)
        self.step = 0

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def run(self) -> None:
        """Train from the last checkpoint, if there is one, to the end of the recipe."""
        self._resume()
        saved = time.monotonic()
        losses: dict[str, list[float]] = {task: [] for task in TASKS}
        while self.step < self.config.steps:
            for task, loss in self._update(self._samples()).items():
                losses[task].append(loss)
            self.step += 1
            if self.rank == 0 and self.step % LOG_EVERY_STEPS == 0:
                self._log(losses)
                losses = {task: [] for task in TASKS}
            if self.rank == 0 and (
                time.monotonic() - saved > SAVE_EVERY_SECONDS or self.step == self.config.steps
            ):
                self._save()
                saved = time.monotonic()

    def _samples(self) -> list[Sample]:
        """The examples of this worker at this step."""
        phase, _ = self.config.phase_at(self.step)
        self.sampler.seed(self.config.seed, self.rank, self.step)
        first = (self.step * self.config.workers + self.rank) * phase.clips_per_worker
        tasks = [
            phase.mix[i % len(phase.mix)] for i in range(first, first + phase.clips_per_worker)
        ]
        return [self.sampler.sample(task, crop=phase.crop, frames=phase.frames) for task in tasks]

    def _update(self, samples: list[Sample]) -> dict[str, float]:
        """One optimiser step; the loss of each task."""
        traits = self.student.config.traits
        batch = _joined([condition(sample.measurement, traits) for sample in samples])
        # as it will run: weights stay float32, products are bfloat16 where the CPU computes in it
        with torch.autocast(
            "cpu", dtype=fastest_dtype(), enabled=fastest_dtype() == torch.bfloat16
        ):
            estimate = self.student.restore_sequence(batch)
        each = []
        for i, sample in enumerate(samples):
            x_hat = data_consistency(
                estimate.x_hat[i : i + 1], sample.measurement, estimate_std=estimate.std[i]
            )
            each.append(regression(x_hat, sample.x, temporal_weight=self.config.temporal_weight))
        torch.stack(each).mean().backward()
        self._average_gradients()
        nn.utils.clip_grad_norm_(self.student.parameters(), self.config.max_gradient_norm)
        rate = self._rate()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("base_lr", group["lr"]) * rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self._update_average()
        return {s.task: float(loss.detach()) for s, loss in zip(samples, each, strict=True)}

    def _rate(self) -> float:
        """Learning rate factor: linear warm-up, then what the phase says."""
        phase, passed = self.config.phase_at(self.step)
        first, last = phase.rates
        warm = (self.step + 1) / self.config.warmup_steps
        return min(warm, first + (last - first) * passed)

    def _average_gradients(self) -> None:
        if not dist.is_initialized():
            return
        gradients = [p.grad for p in self.student.parameters() if p.grad is not None]
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
        row = {"step": self.step, "time": round(time.time(), 1), "rate": round(self._rate(), 4)}
        # this worker's share of the mix may lack a task
        row |= {task: round(sum(v) / len(v), 5) for task, v in losses.items() if v}
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")

    def _save(self) -> None:
        """Write the checkpoint and the averaged weights, each complete or not at all."""
        state = {
            "step": self.step,
            "student": self.student.state_dict(),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        partial = self._checkpoint.with_suffix(".part")
        torch.save(state, partial)
        os.replace(partial, self._checkpoint)
        averaged = TinyStudent(self.student.config, seen=self.student.seen)
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
        for optimizer, stored in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)


def _first_student(config: DistillConfig) -> TinyStudent:
    """The student at step 0, channels last."""
    if config.initial_weights is None:
        student: TinyStudent = TinyStudent(config.student).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return student
    given = load_student(config.initial_weights).student
    if not isinstance(given, TinyStudent):
        raise UsageError(
            f"`{config.initial_weights}` is a full-size student; recipes train embedded ones",
            hint="start from `tiny` or from a file that `instantvir distill` wrote",
        )
    return given.train().requires_grad_(True)


def _joined(blocks: list[Conditioning]) -> Conditioning:
    def cat(name: str) -> Tensor:
        return torch.cat([getattr(block, name) for block in blocks])

    return Conditioning(cat("x_init"), cat("y_view"), cat("known"), cat("traits"))


def run_worker(config: DistillConfig, clips: list[Clip], folder: Path, *, rank: int) -> None:
    """The body of worker `rank`: single-threaded, joined to the others through gloo."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    folder.mkdir(parents=True, exist_ok=True)
    if config.workers > 1:
        store = torch.distributed.FileStore(  # type: ignore[attr-defined]
            str(folder / f"rendezvous-{os.getppid()}"), config.workers
        )
        dist.init_process_group("gloo", store=store, rank=rank, world_size=config.workers)
    Trainer(config, clips, folder, rank=rank).run()
    if dist.is_initialized():
        dist.destroy_process_group()
