"""Regression on what a teacher makes of the measurement: its estimate, paid once, kept in a student."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from instantvir_distill.losses import relative_error
from instantvir_distill.methods.base import Balance, Example, Loss, Method, Networks, mean_of
from instantvir_models.operators.measurement import Measurement
from instantvir_models.priors.base import Prior
from instantvir_models.priors.posterior import annealed_estimate, posterior_mean


@dataclass(frozen=True, kw_only=True)
class Amortise(Balance, Method):
    """The distance from what the teacher makes of y.

    For denoising that is D(y), the posterior mean; for anything else a short solver run from the
    initial estimate.
    """

    name: ClassVar[str] = "amortise"

    known_parts: Literal["solver_run", "one_look"] = "solver_run"
    """How holes and box means are filled in: by the solver run, or by one evaluation with a noise level
    for each coefficient, exact for a teacher that has learned such maps well. The tiny one has not."""
    levels: tuple[float, ...] = (0.12, 0.08, 0.055, 0.04)
    """Of the solver run, falling, [-1, 1] range."""

    def __post_init__(self) -> None:
        if self.known_parts not in ("solver_run", "one_look"):
            raise ValueError(
                f"`known_parts` is `solver_run` or `one_look`, got `{self.known_parts}`"
            )
        if not self.levels or min(self.levels) <= 0:
            raise ValueError(f"`levels` are noise levels above 0, got {self.levels}")

    @property
    def needs_prior(self) -> bool:
        return True

    @property
    def keeps_targets(self) -> bool:
        return True

    def loss(
        self, examples: Sequence[Example], networks: Networks, generator: torch.Generator
    ) -> Loss:
        each = []
        how = f"{self.name} {self.known_parts} {self.levels}"
        for example, made in zip(examples, networks.restore(examples), strict=True):
            y = example.measurement
            whole = networks.kept(how, y, partial(self.target, networks.prior, y))
            target = whole[:, example.frames]
            variance, power = made.start_variance.mean(), self.power(example.task)
            each.append(relative_error(made.x_hat, target, variance=variance, power=power))
        return mean_of(each)

    def target(self, prior: Prior, measurement: Measurement) -> Tensor:
        """What stands for the clean frames [B, T, 3, H, W]."""
        operator = measurement.operator
        has_known_parts = not operator.is_identity and prior.accepts_maps
        if has_known_parts and self.known_parts == "solver_run":
            return annealed_estimate(prior, measurement, self.levels)
        return posterior_mean(prior, measurement, self.levels)
