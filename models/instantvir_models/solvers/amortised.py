"""A student and data consistency: the cost of solving was paid once, in training."""

from dataclasses import dataclass, replace
from typing import Any, Generic

import torch

from instantvir_models.clock import Step, timed
from instantvir_models.cpu import fastest_dtype
from instantvir_models.operators.measurement import Degradation
from instantvir_models.solvers.base import Restored, Solver, SolverNeeds, StateT, Window
from instantvir_models.solvers.guard import bounded, consistent, guarded, is_sound
from instantvir_models.solvers.guesses import beside_guesses
from instantvir_models.solvers.own_doubt import as_far_as_sure
from instantvir_models.solvers.sharpness import sharpened
from instantvir_models.students.base import Conditioning, Estimate, Student, condition
from instantvir_models.students.fitting import FitRequest, Fitted
from instantvir_models.students.text import TextRows
from instantvir_models.students.tiled import state_type_of


@dataclass(frozen=True)
class Amortised(Solver[StateT], Generic[StateT]):
    """Conditioning, one pass of the student, and the correction towards the measurement.

    Args:
        student: any `Student`; may serve many sessions, all in one thread where its weights can
            rest in CPU memory.
        dtype: of the student's arithmetic; None takes bfloat16 where the CPU computes in it.
        sharpness: as `with_sharpness` takes it.
    """

    student: Student[StateT]
    dtype: torch.dtype | None = None
    sharpness: float = 0.0

    @property
    def frames_per_block(self) -> int:
        return self.student.frames_per_block

    @property
    def first_block_frames(self) -> int:
        return self.student.first_block_frames

    @property
    def state_type(self) -> Any:
        return state_type_of(self.student)

    @property
    def needs(self) -> SolverNeeds:
        able = self.student.capabilities
        return SolverNeeds(
            devices=able.devices,
            text=able.text,
            tile_above_pixels=able.tile_above_pixels,
            dtype=able.weights_dtype or self._autocast_dtype,
        )

    @property
    def _autocast_dtype(self) -> torch.dtype:
        return fastest_dtype() if self.dtype is None else self.dtype

    def doubts(self, degradation: Degradation) -> tuple[str, ...]:
        if self._has_seen(degradation):
            return ()
        return (
            f"the student was not trained on `{degradation.spec}`; where what it makes of a frame "
            "contradicts the measurement, the initial estimate will be shown instead",
        )

    def _has_seen(self, degradation: Degradation) -> bool:
        """Whether the student may be trusted with it; yes, where nobody knows what it has seen."""
        seen = self.student.capabilities.seen
        return seen is None or seen.covers(degradation)

    def new_state(self) -> StateT:
        return self.student.new_state()

    def fitted(self, request: FitRequest) -> "Fitted[Solver[StateT]]":
        inner = self.student.fitted(request)
        return Fitted(replace(self, student=inner.value), inner.notices)

    def in_tiles(self, tile_pixels: int) -> "Amortised[Any]":
        return replace(self, student=self.student.in_tiles(tile_pixels))

    def with_text(self, text: TextRows) -> "Amortised[StateT]":
        return replace(self, student=self.student.with_text(text))

    @property
    def can_be_sharpened(self) -> bool:
        return True

    def with_sharpness(self, sharpness: float) -> "Amortised[StateT]":
        return replace(self, sharpness=sharpness)

    def no_larger_than(self, state: StateT) -> "Amortised[StateT]":
        return replace(self, student=self.student.no_larger_than(state))

    def restore_block(self, window: Window, state: StateT) -> Restored:
        """The student's estimate, corrected towards the measurement; the initial estimate where that
        cannot be right."""
        with timed(Step.ESTIMATE):
            whole = condition(window.measurement, self.student.capabilities.traits)
            block = whole.during(window.inside)
        with timed(Step.STUDENT):
            estimate = self._student_estimate(block, state)
        with timed(Step.CONSISTENCY):
            sound = is_sound(estimate)
            estimate = as_far_as_sure(bounded(estimate, block.x_init, is_sound=sound), window)
            estimate = sharpened(estimate, self.sharpness)
            held = consistent(estimate, whole.x_init, window)
            return beside_guesses(
                guarded(held, whole.x_init, window, is_sound=sound), whole.x_init, window
            )

    def _student_estimate(self, block: Conditioning, state: StateT) -> Estimate:
        device_type = block.x_init.device.type
        dtype = fastest_dtype(device_type) if self.dtype is None else self.dtype
        with torch.autocast(device_type, dtype=dtype, enabled=dtype != torch.float32):
            return self.student.restore_block(block, state)
