"""A student and data consistency: the cost of solving was paid once, in training."""

from dataclasses import dataclass, replace
from typing import Any, Generic

import torch
from torch import Tensor
from torch.nn import functional as F

from instantvir_models.clock import Step, timed
from instantvir_models.cpu import fastest_dtype
from instantvir_models.operators.consistency import data_consistency
from instantvir_models.operators.mask import GuessedMask
from instantvir_models.operators.measurement import LEVEL, Degradation
from instantvir_models.operators.prior import noise_variance
from instantvir_models.solvers.base import Restored, Solver, SolverNeeds, StateT, Window
from instantvir_models.solvers.classical.initial import InitialEstimate
from instantvir_models.students.base import Conditioning, Estimate, Student, condition
from instantvir_models.students.fitting import FitRequest, Fitted
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
            f"the student was not trained on `{degradation.spec}`; frames that it makes "
            "contradict the measurement will be the initial estimate instead",
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

    def no_larger_than(self, state: StateT) -> "Amortised[StateT]":
        return replace(self, student=self.student.no_larger_than(state))

    def restore_block(self, window: Window, state: StateT) -> Restored:
        """The student's estimate, corrected towards the measurement.

        Of a degradation that it has not seen, the initial estimate where it explains y better.
        """
        with timed(Step.ESTIMATE):
            whole = condition(window.measurement, self.student.capabilities.traits)
            block = whole.during(window.inside)
        with timed(Step.STUDENT):
            estimate = self._student_estimate(block, state)
        with timed(Step.CONSISTENCY):
            x_hat = window.joined(estimate.x_hat, whole.x_init)
            if not estimate.is_final:
                std = float(estimate.std[0])
                x_hat = data_consistency(x_hat, window.measurement, estimate_std=std)
            operator = window.measurement.operator
            if isinstance(operator, GuessedMask):
                x_hat = corrected_guess(whole.x_init, x_hat, operator.guessed.to(x_hat))
            restored = Restored(x_hat, estimate.std)
            if self._has_seen(window.measurement.degradation):
                return restored
            return more_consistent(
                restored, InitialEstimate().corrected(whole.x_init, window), window
            )

    def _student_estimate(self, block: Conditioning, state: StateT) -> Estimate:
        device_type = block.x_init.device.type
        dtype = fastest_dtype(device_type) if self.dtype is None else self.dtype
        with torch.autocast(device_type, dtype=dtype, enabled=dtype != torch.float32):
            return self.student.restore_block(block, state)


GUESS_STD = 2 * LEVEL
"""Corrections of a guess that are smaller than this are rather the student's error than the guess's. Of a
still picture, which bwdif weaves exactly, the student's are about 0.1 levels."""

GUESS_WINDOW = 7
"""Side in pixels of the square over which corrections are judged."""


def corrected_guess(guess: Tensor, x: Tensor, guessed: Tensor) -> Tensor:
    """x, but where a pixel was guessed the guess, moved towards x as far as the corrections around it
    stand out, [B, T, 3, H, W].

    Args:
        guessed: [T, 1, H, W], 1 where a pixel was.
    """
    correction = x - guess
    squared = (correction.square().mean(2) * guessed[:, 0]).flatten(0, 1)[:, None]
    total, count = (
        F.avg_pool2d(values, GUESS_WINDOW, stride=1, padding=GUESS_WINDOW // 2)
        for values in (squared, guessed)
    )
    energy = total.unflatten(0, x.shape[:2]) / count.clamp_min(1e-6)
    return torch.where(guessed > 0, guess + energy / (energy + GUESS_STD**2) * correction, x)


RESIDUAL_MARGIN = 1.25
"""How much larger than noise, and than that of the initial estimate, a residual may be without
contradicting the measurement. Without a margin, `blur:sigma=2+mask:keep=0.5,seed=0` lost 2.3 dB of the
embedded student's 39.3 to a residual of 0.0074 instead of 0.0073 (six frames of a 224x160 part of
examples/flower.mp4); students that go wrong are off by a factor of ten and more."""


def more_consistent(restored: Restored, estimate: Restored, window: Window) -> Restored:
    """`restored`, or `estimate` where only that does not contradict the measurement.

    A residual that noise explains contradicts nothing, however much smaller the other one is:
    who explains the noise too has not restored better.
    """
    noise_std = noise_variance(window.measurement) ** 0.5
    explained = max(_residual_std(estimate.x, window), noise_std)
    if _residual_std(restored.x, window) <= RESIDUAL_MARGIN * explained:
        return restored
    return replace(estimate, num_replaced=window.num_frames)


def _residual_std(x: Tensor, window: Window) -> float:
    """Root mean square of A x - y, over the frames inside."""
    error = window.measurement.error_of(x)
    return float(error[:, window.inside].square().mean().sqrt())
