"""One evaluation of the prior and one closed-form step: what distillation has to beat."""

from dataclasses import dataclass

from torch import Tensor

from instantvir_models.operators.consistency import data_consistency
from instantvir_models.operators.measurement import Measurement
from instantvir_models.operators.prior import initial_estimate
from instantvir_models.priors.base import Prior
from instantvir_models.priors.noise import white
from instantvir_models.priors.posterior import combined_look
from instantvir_models.solvers.iterative.whole_clip import WholeClipSolver


@dataclass(frozen=True, kw_only=True)
class OneEvaluation(WholeClipSolver):
    """E[x | y] in one evaluation where y is x with noise. Elsewhere the initial estimate, taken for x with
    white errors, is denoised: known better where y is a look at coefficients, made consistent with y after
    it where it is not."""

    prior: Prior
    noise_std: float = 0.06
    """What the initial estimate is off, in the [-1, 1] range, about."""

    def solved(self, measurement: Measurement) -> Tensor:
        prior, x = self.prior, initial_estimate(measurement)
        is_seen_once = measurement.operator.is_identity  # the initial estimate is y
        std = x.new_full((len(x),), prior.largest_std if is_seen_once else self.noise_std)
        look = combined_look(x, std, measurement) if prior.accepts_maps else None
        if look is not None:
            return prior.decode(prior.denoise(look.z, look.noise))
        z = prior.encode(x)
        x = prior.decode(prior.denoise(z, white(self.noise_std, dtype=z.dtype)))
        return data_consistency(x, measurement, estimate_std=prior.error_std(self.noise_std))
