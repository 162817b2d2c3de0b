"""One evaluation of the prior and one closed-form step: what distillation has to beat."""

from dataclasses import dataclass

from torch import Tensor

from instantvir_models.operators.consistency import data_consistency
from instantvir_models.operators.measurement import Measurement
from instantvir_models.operators.prior import initial_estimate
from instantvir_models.priors.base import Prior
from instantvir_models.priors.noise import white
from instantvir_models.priors.posterior import combined_look
from instantvir_models.solvers.base import WHOLE_CLIP, Restored, Solver, Window
from instantvir_models.solvers.classical.frames import restored


@dataclass(frozen=True, kw_only=True)
class OneEvaluation(Solver[None]):
    """E[x | y] in one evaluation where the measurement is a look at coefficients; elsewhere the initial
    estimate, denoised at `noise_std` and made consistent with y."""

    prior: Prior
    noise_std: float = 0.06
    """What the initial estimate of a blurred video is off, in the [-1, 1] range, about."""

    @property
    def frames_per_block(self) -> int:
        return WHOLE_CLIP

    def restore_block(self, window: Window, state: None) -> Restored:
        return restored(self.solved(window.measurement))

    def solved(self, measurement: Measurement) -> Tensor:
        """Frames [B, T, 3, H, W]."""
        prior, x = self.prior, initial_estimate(measurement)
        nothing = x.new_full((len(x),), prior.largest_std)
        look = combined_look(0 * x, nothing, measurement) if prior.accepts_maps else None
        if look is not None:
            return prior.decode(prior.denoise(look.z, look.noise))
        z = prior.encode(x)
        x = prior.decode(prior.denoise(z, white(self.noise_std, dtype=z.dtype)))
        return data_consistency(x, measurement, estimate_std=prior.error_std(self.noise_std))
