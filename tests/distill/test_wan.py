"""The same methods with a small Wan-shaped student, and a teacher in another latent space."""

import pytest
import torch

from instantvir_distill.levels import NoiseLaw
from instantvir_distill.methods.base import Example, Networks
from instantvir_distill.methods.posterior_teacher import PosteriorTeacher
from instantvir_distill.methods.self_supervised import SelfSupervised
from instantvir_distill.methods.variational import red_diff
from instantvir_distill.restorers import SequenceRestorer
from instantvir_models.operators.blur import GaussianBlur
from instantvir_models.operators.measurement import Degradation, Measurement
from instantvir_models.priors.base import ErrorTable
from instantvir_models.priors.wan import WanPrior
from instantvir_models.students.wan.transformer import WanTransformer
from tests.wan_small import TRANSFORMER, drawn, small_autoencoder, small_student, small_text

LAW = NoiseLaw(low=0.1, high=1.0)


@pytest.mark.parametrize(
    "method", [PosteriorTeacher(levels=LAW), red_diff(), SelfSupervised()],
    ids=lambda method: method.name,
)  # fmt: skip
def test_a_method_knows_no_network(method):
    """Student's latent by LeanVAE, teacher's by Wan's: the gradient goes through both."""
    student = small_student("lean")
    student.transformer.requires_grad_(True)
    teacher = WanPrior(
        drawn(WanTransformer(TRANSFORMER), seed=7), small_autoencoder("wan"), small_text(),
        small_text(seed=5, rows=0), ErrorTable((0.1, 1.0), (0.05, 0.3)), guidance=2.0,
    )  # fmt: skip
    y = 0.3 * torch.randn(1, 9, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    given = Degradation(operator=GaussianBlur(1.0), noise_std=0.1)
    example = Example(Measurement(y, given), slice(0, 9), "deblur")
    networks = Networks(SequenceRestorer(student), _prior=teacher)
    loss = method.loss([example], networks, torch.Generator().manual_seed(0))
    loss.total.backward()
    gradients = [weight.grad for weight in student.transformer.parameters()]
    assert loss.total.isfinite()
    assert sum(g is not None and bool(g.abs().sum() > 0) for g in gradients) > len(gradients) / 2
    assert all(weight.grad is None for weight in teacher.transformer.parameters())
