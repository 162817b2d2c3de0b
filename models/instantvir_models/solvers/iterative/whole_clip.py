"""What solvers have in common that see the whole clip at once."""

from abc import abstractmethod

from torch import Tensor

from instantvir_models.operators.measurement import Measurement
from instantvir_models.solvers.base import WHOLE_CLIP, Restored, Solver, Window
from instantvir_models.solvers.classical.frames import restored


class WholeClipSolver(Solver[None]):
    """Restores a clip in one piece, without memory; only `solved` has to be written."""

    @property
    def frames_per_block(self) -> int:
        return WHOLE_CLIP

    def restore_block(self, window: Window, state: None) -> Restored:
        return restored(self.solved(window.measurement))

    @abstractmethod
    def solved(self, measurement: Measurement) -> Tensor:
        """Frames [B, T, 3, H, W]."""
