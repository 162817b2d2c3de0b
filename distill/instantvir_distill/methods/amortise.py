"""Regression on what a teacher makes of the measurement: its estimate, paid once, kept in a student."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from instantvir_distill.losses import relative_error
from instantvir_distill.methods.base import Balance, Example, Loss, Method, Networks, mean_of
from instantvir_models.priors.posterior import posterior_mean


@dataclass(frozen=True, kw_only=True)
class Amortise(Balance, Method):
    """The distance from the teacher's posterior mean.

    For denoising that is the teacher's D(y), for masks and box enlargement one evaluation with a
    level for each coefficient, for anything else a short solver run.
    """

    name: ClassVar[str] = "amortise"

    @property
    def needs_prior(self) -> bool:
        return True

    def loss(
        self, examples: Sequence[Example], networks: Networks, generator: torch.Generator
    ) -> Loss:
        each = []
        for example, made in zip(examples, networks.restore(examples), strict=True):
            with torch.no_grad():
                target = posterior_mean(networks.prior, example.measurement)[:, example.frames]
            variance, power = made.start_variance.mean(), self.power(example.task)
            each.append(relative_error(made.x_hat, target, variance=variance, power=power))
        return mean_of(each)
