"""What stands beside a prior term: fidelity to the measurement, and an anchor."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from instantvir_distill.losses import discrepancy, likelihood, relative_error
from instantvir_distill.methods.base import Example, Networks, Reconstruction
from instantvir_models.operators.measurement import Measurement
from instantvir_models.operators.prior import noise_variance


@dataclass(frozen=True, kw_only=True)
class Faithful:
    """Likelihood of the measurement, and the distance from the student as it was at the start."""

    fidelity: Literal["likelihood", "discrepancy"] = "discrepancy"
    """`discrepancy` stops at the noise: for students without a noise input."""
    fidelity_weight: float = 1.0
    anchor_weight: float = 0.0
    """Of the squared distance from the student as it was at the start, over the squared error that
    that started from."""

    @property
    def needs_anchor(self) -> bool:
        """Whether it asks the student as it was at the start."""
        return self.anchor_weight > 0

    def faithful(self, made: Reconstruction, measurement: Measurement) -> Tensor:
        """What one reconstruction owes to its measurement, a scalar."""
        variance = noise_variance(measurement)
        loss = self.fidelity_weight * likelihood(made.x_hat, measurement, variance=variance)
        if self.fidelity == "likelihood":
            return loss
        residual = measurement.operator.A(made.x_hat.detach()) - measurement.selected
        return discrepancy(residual.square().mean(), variance=variance) * loss

    def anchored(
        self,
        each: Sequence[Tensor],
        restored: Sequence[Reconstruction],
        examples: Sequence[Example],
        networks: Networks,
    ) -> list[Tensor]:
        """`each` loss with the anchor added, if there is one."""
        if not self.needs_anchor:
            return list(each)
        with torch.no_grad():
            before = networks.anchor(examples)
        return [
            one + self.anchor_weight * _distance(made, then)
            for one, made, then in zip(each, restored, before, strict=True)
        ]


def _distance(made: Reconstruction, before: Reconstruction) -> Tensor:
    """Not its root, whose gradient is large however near the student is, so that it would not move."""
    variance = made.start_variance.mean()
    return relative_error(made.x_hat, before.x_hat, variance=variance, power=1.0)
