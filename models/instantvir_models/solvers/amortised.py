"""A student and data consistency: the cost of solving was paid once, in training."""

from dataclasses import dataclass, replace
from typing import Any, Generic

import torch

from instantvir_models.clock import Step, timed
from instantvir_models.cpu import fastest_dtype
from instantvir_models.operators.consistency import data_consistency
from instantvir_models.solvers.base import Restored, Solver, SolverNeeds, StateT, Window
from instantvir_models.students.base import Conditioning, Estimate, Student, condition
from instantvir_models.students.text import TextRows


@dataclass(frozen=True)
class Amortised(Solver[StateT], Generic[StateT]):
    """Conditioning, one pass of the student, and the correction towards the measurement.

    Args:
        student: any `Student`; may serve many sessions, all in one thread where its weights can
            rest in CPU memory.
        dtype: of the student's arithmetic; None takes bfloat16 where the CPU computes in it.
    """

    student: Student[StateT]
    dtype: torch.dtype | None = None

    @property
    def frames_per_block(self) -> int:
        return self.student.frames_per_block

    @property
    def first_block_frames(self) -> int:
        return self.student.first_block_frames

    @property
    def needs(self) -> SolverNeeds:
        return SolverNeeds(tile_above_pixels=self.student.tile_above_pixels)

    def new_state(self) -> StateT:
        return self.student.new_state()

    def in_tiles(self, tile_pixels: int) -> "Amortised[Any]":
        return replace(self, student=self.student.in_tiles(tile_pixels))

    def with_text(self, text: TextRows) -> "Amortised[StateT]":
        return replace(self, student=self.student.with_text(text))

    def no_larger_than(self, state: StateT) -> "Amortised[StateT]":
        return replace(self, student=self.student.no_larger_than(state))

    def restore_block(self, window: Window, state: StateT) -> Restored:
        with timed(Step.ESTIMATE):
            whole = condition(window.measurement)
            block = whole.during(window.inside)
        with timed(Step.STUDENT):
            estimate = self._student_estimate(block, state)
        with timed(Step.CONSISTENCY):
            x_hat = window.joined(estimate.x_hat, whole.x_init)
            std = float(estimate.std[0])
            x = data_consistency(x_hat, window.measurement, estimate_std=std)
        return Restored(x, estimate.std)

    def _student_estimate(self, block: Conditioning, state: StateT) -> Estimate:
        dtype = fastest_dtype() if self.dtype is None else self.dtype
        device_type, is_bfloat16 = block.x_init.device.type, dtype == torch.bfloat16
        with torch.autocast(device_type, dtype=torch.bfloat16, enabled=is_bfloat16):
            return self.student.restore_block(block, state)
