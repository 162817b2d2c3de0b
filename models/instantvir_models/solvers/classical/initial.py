"""The initial estimate and nothing else: what every other solver has to beat."""

from dataclasses import dataclass

from torch import Tensor

from instantvir_models.clock import Step, timed
from instantvir_models.operators.consistency import data_consistency
from instantvir_models.solvers.base import Restored, Window
from instantvir_models.solvers.tiled import LocalSolver
from instantvir_models.students.base import bounded_estimate


@dataclass(frozen=True)
class InitialEstimate(LocalSolver[None]):
    """The closed-form estimate of each frame, corrected towards the measurement."""

    std: float = 0.06
    """How far the initial estimate is taken to be off, in the [-1, 1] range: the tiny student's own
    error before training."""

    @property
    def frames_per_block(self) -> int:
        return 3

    def restore_block(self, window: Window, state: None) -> Restored:
        with timed(Step.ESTIMATE):
            x_init = bounded_estimate(window.measurement)
        with timed(Step.CONSISTENCY):
            return self.corrected(x_init, window)

    def corrected(self, x_init: Tensor, window: Window) -> Restored:
        """The initial estimate of a window, given what was restored before it."""
        std = x_init.new_full((len(x_init),), self.std)
        x_hat = window.joined(x_init[:, window.inside], x_init)
        x = data_consistency(x_hat, window.measurement, estimate_std=float(std[0]))
        return Restored(x, std)
