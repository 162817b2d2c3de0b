"""Regression on clean clips: the upper line of every table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional as F

from instantvir_distill.losses import miscalibration, relative_error
from instantvir_distill.methods.base import (
    Balance,
    CleanExample,
    Example,
    Loss,
    Method,
    Networks,
)


@dataclass(frozen=True, kw_only=True)
class Regression(Balance, Method):
    """The student's error against the truth, and its expectation of that error."""

    name: ClassVar[str] = "regression"

    calibration_weight: float = 0.02
    """Weight of the loss on the expected error."""

    @property
    def reads_clean(self) -> bool:
        return True

    def loss(
        self, examples: Sequence[Example], networks: Networks, generator: torch.Generator
    ) -> Loss:
        each, wrong = [], []
        for example, made in zip(examples, networks.restore(examples), strict=True):
            assert isinstance(example, CleanExample)
            squared = (made.x_hat.detach() - example.x)[0].square().mean(1, keepdim=True)
            squared = F.interpolate(squared, size=made.variance.shape[-2:], mode="area")
            wrong.append(miscalibration(squared, made.variance))
            power = self.power(example.task)
            variance = made.start_variance.mean()
            each.append(relative_error(made.x_hat, example.x, variance=variance, power=power))
        total = torch.stack(each).mean() + self.calibration_weight * torch.stack(wrong).mean()
        return Loss(total, tuple(each))
