"""RED-diff: one video that the prior finds likely at every noise level, by gradient descent."""

from dataclasses import dataclass

import torch
from torch import Tensor

from instantvir_models.operators.measurement import Measurement
from instantvir_models.operators.prior import initial_estimate
from instantvir_models.priors.base import Prior
from instantvir_models.solvers.iterative.corrections import left
from instantvir_models.solvers.iterative.levels import strided
from instantvir_models.solvers.iterative.loop import Draws, predicted
from instantvir_models.solvers.iterative.whole_clip import WholeClipSolver


@dataclass(frozen=True, kw_only=True)
class RedDiff(WholeClipSolver):
    """mean (y - A mu)^2 / 2 + weight mean(stopgrad(mu - x_0(x_t)) mu), x_t = (1 - s) mu + s e.

    Mardani et al., ICLR 2024 (arXiv 2305.04391): its "linear" weight of e_0 - e is exactly the
    residual mu - x_0. Adam of `learning_rate`, levels falling.
    """

    prior: Prior
    levels: tuple[float, ...] = strided(100)
    weight: float = 0.25
    learning_rate: float = 0.1
    seed: int = 0

    def solved(self, measurement: Measurement) -> Tensor:
        prior, draws = self.prior, Draws(self.seed, is_shared=False)
        mu = prior.encode(initial_estimate(measurement)).clone().requires_grad_()
        adam = torch.optim.Adam([mu], lr=self.learning_rate, betas=(0.9, 0.99))
        for level in self.levels:
            x_t = (1 - level) * mu.detach() + level * draws.fresh(mu)
            towards = mu.detach() - predicted(prior, x_t, level).z_0
            with torch.enable_grad():
                fidelity = left(prior.decode(mu), measurement).square().mean() / 2
                loss = fidelity + self.weight * (towards * mu).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
        return prior.decode(mu.detach())
