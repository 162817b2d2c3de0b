"""The loop: steps, rates, checkpoints, the log. It knows neither a loss nor a network."""

import json
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from instantvir_distill.config import RunConfig
from instantvir_distill.learner import Learner
from instantvir_distill.parallel import rank
from instantvir_distill.saved import (
    SavesBeside,
    claim,
    last_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from instantvir_models.errors import InstantVIRError
from instantvir_models.outputs.claim import write_whole
from instantvir_models.outputs.lines import add_line
from instantvir_models.speed.meters import MemoryMeter

SAVE_EVERY_SECONDS = 120
USUAL_SAVE_SECONDS = 6.0
"""A checkpoint that takes longer to write comes more rarely in proportion: saving takes a twentieth of
the time at most. That of a full-size student and its critic has seven numbers for each weight, 36 GB."""
LONGEST_LAST_SAVE_SECONDS = 15.0
"""Workers that are asked to stop are killed after 30: a checkpoint that takes longer is not begun then."""
LOG_EVERY_STEPS = 50
FIRST_LOGGED_STEP = 10
"""Logged besides, as the last step is: from the second row on it can be told how long a run takes."""


class TrainingError(InstantVIRError):
    """Training went wrong in a way that going on would not mend."""


class Objective(Protocol):
    """What is learned: networks, and the loss of each."""

    @property
    def learners(self) -> Mapping[str, Learner]:
        """Networks by name, in the order in which they learn at each step."""

    def prepare(self, step: int) -> None:
        """Called once at the start of each step."""

    def ask(self, name: str, step: int, update: int, part: int) -> tuple[Tensor, ...]:
        """The loss of network `name` at its update number `update` of a step, and more to remember.

        Args:
            part: of the step's samples, one of `RunConfig.accumulate` equal ones.
        """

    def shown(self, name: str, asked: tuple[Tensor, ...]) -> dict[str, float]:
        """What of it goes into the log, by name."""

    def state_dict(self) -> dict[str, Tensor]:
        """What a run that goes on needs beside networks and step; every worker calls this."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict` that was read, whatever else is in it."""

    def write(self, folder: Path) -> None:
        """Write what is made, complete or not at all; every worker calls this."""


Due = Literal["nothing", "checkpoint", "stop", "leave"]
"""What comes after a step. Who stops saves, who leaves does not; of several the last one counts."""
DUE: tuple[Due, ...] = get_args(Due)


def never() -> bool:
    """Nobody asks for an early end."""
    return False


class Trainer:
    """One worker of a training run.

    Args:
        is_asked_to_stop: looked at after each step; what one worker is told counts for all.
    """

    def __init__(
        self,
        config: RunConfig,
        objective: Objective,
        folder: Path,
        *,
        is_asked_to_stop: Callable[[], bool] = never,
    ) -> None:
        self.config, self.objective, self.folder = config, objective, folder
        self._is_asked_to_stop = is_asked_to_stop
        folder.mkdir(parents=True, exist_ok=True)
        self.step = 0
        self.steps_made = 0
        """By this process."""
        self._beside = SavesBeside(folder) if config.saves == "beside" else None
        self._memory = MemoryMeter(config.own_device)

    def run(self) -> bool:
        """Train from the last checkpoint, if there is one; whether the recipe came to its end.

        Where it was asked to stop before, all steps so far are kept, or those of the last checkpoint
        where one takes long to write.

        Raises:
            UsageError: if the folder holds a run with other settings.
            TrainingError: if a loss is not a number; names the last good checkpoint.
            VideoWriteError: if a checkpoint cannot be written.
        """
        if rank() == 0:
            claim(self.config, self.folder)
        self.resume()
        saved, took = time.monotonic(), 0.0
        losses: dict[str, list[float]] = {}
        while self.step < self.config.steps:
            for name, loss in self.update().items():
                losses.setdefault(name, []).append(loss)
            if self._is_logged():
                self._log(losses)
                losses = {}
            if self._beside is not None:
                self._beside.look()
            due = self._due(saved, took) if self.step < self.config.steps else "nothing"
            if due in ("checkpoint", "stop"):
                began = time.monotonic()
                self.save()
                saved = time.monotonic()
                took = saved - began
            if due in ("stop", "leave"):
                self._wait_for_what_is_written()
                return False
        self.save()
        return True

    def update(self) -> dict[str, float]:
        """One step of every network; what the log says of it."""
        rate = self.config.rate_at(self.step)
        self.objective.prepare(self.step)
        shown: dict[str, float] = {}
        for name, learner in self.objective.learners.items():
            for update in range(learner.rates.updates_per_step):
                shown |= self._learned(name, learner, update, rate)
        self.step += 1
        self.steps_made += 1
        return shown

    def _learned(self, name: str, learner: Learner, update: int, rate: float) -> dict[str, float]:
        try:
            asks = [
                partial(self.objective.ask, name, self.step, update, part)
                for part in range(self.config.accumulate)
            ]
            asked = learner.learn(asks, rate=rate, step=self.step)
        except FloatingPointError as error:
            good = last_checkpoint(self.folder)
            kept = f"the last good checkpoint is {good}" if good else "nothing was saved so far"
            raise TrainingError(
                f"training of the {name} stopped at step {self.step}: {error}",
                hint=f"{kept}; with a smaller `muon_lr` and `adam_lr` and another `-o` it may go better"
                + (", with what was made so far as `--init`" if good else ""),
            ) from error
        return self.objective.shown(name, asked)

    def _is_logged(self) -> bool:
        return self.step % LOG_EVERY_STEPS == 0 or self.step in (
            FIRST_LOGGED_STEP,
            self.config.steps,
        )

    def _due(self, saved: float, took: float) -> Due:
        """What to do now: save by the clock of worker 0, stop as soon as one is asked to."""
        pause = SAVE_EVERY_SECONDS * max(1.0, took / USUAL_SAVE_SECONDS)
        due: Due = "nothing"
        if rank() == 0 and time.monotonic() - saved > pause:
            due = "checkpoint"
        if self._is_asked_to_stop():
            is_quick = self._beside is None and took < LONGEST_LAST_SAVE_SECONDS
            due = "stop" if is_quick else "leave"
        said = torch.tensor(float(DUE.index(due)))
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(said, torch.distributed.ReduceOp.MAX)
        return DUE[int(said)]

    def _log(self, losses: dict[str, list[float]]) -> None:
        if rank() != 0:
            return
        row: dict[str, Any] = {
            "step": self.step,
            "time": round(time.time(), 1),
            "rate": round(self.config.rate_at(self.step), 4),
            "cpu_seconds": round(time.process_time()),
        }
        memory = self._memory.peak_device_mb or self._memory.peak_mb
        if memory is not None:
            row["memory_mb"] = round(memory)
        for name, learner in self.objective.learners.items():
            prefix = "" if len(self.objective.learners) == 1 else f"{name}_"
            row[f"{prefix}spikes"] = learner.spikes
            row[f"{prefix}norm"] = round(statistics.median(learner.norms or [0.0]), 4)
        row |= {name: round(sum(v) / len(v), 5) for name, v in losses.items()}
        add_line(self.folder / "log.jsonl", json.dumps(row))

    def save(self) -> None:
        """Write what is made, then the checkpoint: a stop between them repeats a few steps.

        The last checkpoint of a run is complete when this returns, others may be on their way.
        """
        self.objective.write(self.folder)
        if self._beside is not None and self.step < self.config.steps:
            self._beside.start(self._state(), step=self.step)
            return
        self._wait_for_what_is_written()
        save_checkpoint(self._state(), self.folder, step=self.step)

    def _wait_for_what_is_written(self) -> None:
        if self._beside is not None:
            self._beside.finish()

    def resume(self) -> None:
        """Go on from the last checkpoint, if there is one; else from the beginning."""
        if last_checkpoint(self.folder) is None:
            self._forget_later_rows()
            return
        state = self._state()
        load_checkpoint(state, self.folder)
        for name, learner in self.objective.learners.items():
            learner.load_state_dict(state[name])
        self.objective.load_state_dict(state)
        self.step = int(state["step"])
        self._forget_later_rows()

    def _state(self) -> dict[str, Any]:
        learners = self.objective.learners.items()
        networks = {name: learner.state_dict() for name, learner in learners}
        return networks | {"step": torch.tensor(self.step)} | self.objective.state_dict()

    def _forget_later_rows(self) -> None:
        """Rows of the log after the checkpoint will be written again."""
        log = self.folder / "log.jsonl"
        if rank() != 0 or not log.exists():
            return
        rows = [row for row in log.read_text().splitlines() if row.endswith("}")]
        kept = [row for row in rows if json.loads(row)["step"] <= self.step]
        write_whole(log, "".join(row + "\n" for row in kept), may_replace=True)
