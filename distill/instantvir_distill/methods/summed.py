"""Several objectives at once, such as one for the mean and one for sharpness."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from instantvir_distill.methods.adversarial import Adversarial
from instantvir_distill.methods.amortise import Amortise
from instantvir_distill.methods.base import CriticSees, Example, Loss, Method, Networks
from instantvir_distill.methods.posterior_teacher import PosteriorTeacher
from instantvir_distill.methods.regression import Regression
from instantvir_distill.methods.variational import Variational

Term = Regression | Amortise | PosteriorTeacher | Variational | Adversarial
"""What looks at one reconstruction of what was measured. `self_supervised` asks the student something
else, and `released` is a sum itself."""


@dataclass(frozen=True, kw_only=True)
class Summed(Method):
    """The weighted sum of losses on the same reconstructions, at most one of them with a critic."""

    name: ClassVar[str] = "sum"

    terms: tuple[Term, ...] = (Amortise(), Adversarial(anchor_weight=0.0))
    weights: tuple[float, ...] = (1.0, 1.0)
    """One for each term."""

    def __post_init__(self) -> None:
        if len(self.terms) != len(self.weights) or len(self.terms) < 2:
            raise ValueError(
                f"a sum has two terms or more and a weight for each, got {len(self.terms)} terms and "
                f"{len(self.weights)} weights"
            )
        if sum(term.critic_sees != "none" for term in self.terms) > 1:
            raise ValueError("of the terms of a sum only one may learn a critic")

    @property
    def reads_clean(self) -> bool:
        return any(term.reads_clean for term in self.terms)

    @property
    def needs_natural(self) -> bool:
        return any(term.needs_natural for term in self.terms)

    @property
    def needs_prior(self) -> bool:
        return any(term.needs_prior for term in self.terms)

    @property
    def keeps_targets(self) -> bool:
        return any(term.keeps_targets for term in self.terms)

    @property
    def needs_anchor(self) -> bool:
        return any(term.needs_anchor for term in self.terms)

    @property
    def critic_sees(self) -> CriticSees:
        return next((sees for t in self.terms if (sees := t.critic_sees) != "none"), "none")

    def loss(
        self, examples: Sequence[Example], networks: Networks, generator: torch.Generator
    ) -> Loss:
        made = networks.restore(examples)
        shared = replace(networks, restore=lambda _: made)
        losses = [term.loss(examples, shared, generator) for term in self.terms]
        by_example = zip(*(loss.by_example for loss in losses), strict=True)
        return Loss(
            self._weighed([loss.total for loss in losses]), tuple(map(self._weighed, by_example))
        )

    def _weighed(self, each: Sequence[Tensor]) -> Tensor:
        return torch.stack([w * one for w, one in zip(self.weights, each, strict=True)]).sum()

    def critic_loss(
        self, examples: Sequence[Example], networks: Networks, generator: torch.Generator
    ) -> Loss:
        (learns,) = [term for term in self.terms if term.critic_sees != "none"]
        return learns.critic_loss(examples, networks, generator)
