"""Losses are the equations they say: gradients in float64 and closed-form minimisers."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from instantvir_distill.losses import (
    denoising_error,
    discrepancy,
    fisher,
    hidden_error,
    hinge,
    likelihood,
    miscalibration,
    recorrupted,
    relative_error,
    score_difference,
    sure,
    unit_difference,
    unnaturalness,
    with_gradient,
)
from instantvir_models.operators.blur import GaussianBlur
from instantvir_models.operators.compose import Identity
from instantvir_models.operators.mask import Mask
from instantvir_models.operators.measurement import Degradation, Measurement

SHAPE = (2, 1, 1, 3, 4)


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def signal(seed=0):
    return normal(*SHAPE, seed=seed).requires_grad_()


def test_every_loss_has_the_gradient_of_its_value():
    a, x, b = signal(), normal(*SHAPE, seed=1), normal(*SHAPE, seed=2)
    r = torch.tensor([0.3, 0.7], dtype=torch.float64)
    measurement = Measurement(x, Degradation(operator=GaussianBlur(0.7), noise_std=0.1))
    hidden = (normal(1, 1, 1, 3, 4, seed=3) > 0).double()
    variance = torch.full((1, 1, 1, 3, 4), 0.2, dtype=torch.float64)
    losses = [
        lambda v: relative_error(v, x, variance=0.3, power=0.25),
        lambda v: miscalibration(x.square(), v.square() + 0.1),
        lambda v: denoising_error(v, x, r, signal_std=0.5),
        lambda v: likelihood(v, measurement, variance=0.01),
        lambda v: sure(v, 0.9 * v + 0.1, x, b, noise_std=0.2, step=0.5),
        lambda v: hidden_error(v, x, hidden, variance=variance, power=0.5),
        lambda v: fisher(v, x, b, r),
        lambda v: fisher(x, v, b, r),
        lambda v: hinge(v, x),
        lambda v: hinge(x, v),
        unnaturalness,
    ]
    for loss in losses:
        assert gradcheck(loss, (a,))


def test_a_wanted_gradient_is_the_gradient():
    z, wanted = signal(), normal(*SHAPE, seed=1)
    with_gradient(z, wanted).backward()
    torch.testing.assert_close(z.grad, wanted / wanted.numel())


def test_a_gradient_is_followed_through_a_decoder_and_another_encoder():
    """x = D'(z'), z = E(x): what the teacher wants of z reaches the student's own latent."""
    latent = normal(6, seed=4).requires_grad_()
    decoder, encoder = normal(12, 6, seed=5), normal(12, 12, seed=6)
    z = (encoder @ torch.tanh(decoder @ latent)).view(1, 1, 1, 3, 4)
    wanted = normal(1, 1, 1, 3, 4, seed=7)
    with_gradient(z, wanted).backward()
    (expected,) = torch.autograd.grad(
        ((encoder @ torch.tanh(decoder @ latent)) * wanted.flatten()).sum() / 12, latent
    )
    torch.testing.assert_close(latent.grad, expected)


def gaussian_kl(mean, variance, r):
    """KL(N(mean, variance + r^2) || N(0, 1 + r^2))."""
    a, b = variance + r**2, 1 + r**2
    return 0.5 * (math.log(b / a) + (a + mean**2) / b - 1)


def test_a_score_difference_is_the_gradient_of_the_divergence_of_noisy_marginals():
    """By the mean of a Gaussian student, against finite differences of the closed form."""
    mean, variance, r, step = 0.4, 0.3, 0.5, 1e-5
    z = mean + variance**0.5 * normal(400_000, 1, 1, 1, 1)
    z_r = z + r * normal(*z.shape, seed=1)
    f = mean + variance / (variance + r**2) * (z_r - mean)
    p = z_r / (1 + r**2)
    found = score_difference(f, p, torch.tensor([r], dtype=torch.float64)).mean()
    exact = (gaussian_kl(mean + step, variance, r) - gaussian_kl(mean - step, variance, r)) / (
        2 * step
    )
    assert float(found) == pytest.approx(exact, rel=0.01)


def test_half_of_the_fisher_gradient_is_exact():
    """By the standard deviation l of a student, at one level: half of d E|f - p|^2 / r^2."""
    r, e, noise = 0.6, normal(400_000, 1, 1, 1, 1), normal(400_000, 1, 1, 1, 1, seed=1)
    level = torch.tensor([r], dtype=torch.float64)
    spread = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)

    def outputs(frozen):
        z = spread * e
        z_r = z + r * noise
        return z, frozen**2 / (frozen**2 + r**2) * z_r, z_r / (1 + r**2)

    z, f, p = outputs(spread.detach())
    fisher(f, p, z, level).backward()
    exact = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    gap = exact**2 / (exact**2 + r**2) - 1 / (1 + r**2)
    (gap.square() * (exact**2 + r**2) / r**2).backward()
    assert float(spread.grad) == pytest.approx(0.5 * float(exact.grad), rel=0.02)


def test_a_unit_difference_is_of_one_size_and_zero_where_nothing_differs():
    f, p, z = normal(*SHAPE), normal(*SHAPE, seed=1), normal(*SHAPE, seed=2)
    out = unit_difference(f, p, z)
    expected = (f - p)[1] / (z - p)[1].abs().mean()
    torch.testing.assert_close(out[1], expected)
    assert unit_difference(p, p, p).abs().max() == 0


def test_a_likelihood_is_that_of_gaussian_noise():
    x, y = normal(1, 1, 3, 4, 4), normal(1, 1, 3, 4, 4, seed=1)
    measurement = Measurement(y, Degradation(operator=Identity(), noise_std=0.5))
    exact = -torch.distributions.Normal(x, 0.5).log_prob(y) - math.log(0.5 * (2 * math.pi) ** 0.5)
    torch.testing.assert_close(likelihood(x, measurement, variance=0.25), exact.mean())


def test_what_stands_in_a_hole_is_no_measurement():
    """Mid-grey is none of the 8-bit levels, so a stored hole is off by half of one."""
    mask = (normal(1, 1, 3, 4) > 0).double()
    x = signal().detach()
    clean = Measurement(mask * x, Degradation(operator=Mask(mask), noise_std=0.1))
    stored = Measurement(mask * x + (1 - mask) / 255, clean.degradation)
    assert likelihood(x, stored, variance=1e-8) == likelihood(x, clean, variance=1e-8) == 0


@pytest.mark.parametrize(("power", "factor"), [(4.0, 0.75), (1.0, 0.0), (0.5, 0.0)])
def test_discrepancy_is_none_where_noise_explains_the_residual(power, factor):
    assert float(discrepancy(torch.tensor(power), variance=1.0)) == factor


def minimiser(loss):
    """k in (0, 1) where `loss` is least."""
    ks = torch.linspace(0.05, 0.95, 181, dtype=torch.float64)
    return float(ks[torch.stack([loss(k) for k in ks]).argmin()])


@pytest.mark.parametrize("noise_std", [0.5, 1.0])
def test_steins_estimate_is_least_at_the_posterior_mean_and_is_the_error(noise_std):
    x = normal(1, 1, 1, 300, 300)
    y = x + noise_std * normal(*x.shape, seed=1)
    probe = normal(*x.shape, seed=2).sign()

    def loss(k):
        return sure(k * y, k * (y + 0.01 * probe), y, probe, noise_std=noise_std, step=0.01)

    assert minimiser(loss) == pytest.approx(1 / (1 + noise_std**2), abs=0.02)
    assert float(loss(0.4)) == pytest.approx(float((0.4 * y - x).square().mean()), rel=0.02)
    plain = minimiser(lambda k: (k * y - y).square().mean())
    assert plain == pytest.approx(0.95)  # the end of the range: copying


@pytest.mark.parametrize("gain", [0.5, 1.0])
def test_recorruption_is_least_at_the_posterior_mean_of_the_noisier_measurement(gain):
    x, noise_std = normal(1, 1, 1, 400, 400), 0.8
    y = x + noise_std * normal(*x.shape, seed=1)
    noisier, target = recorrupted(y.float(), noise_std, gain, torch.Generator().manual_seed(2))
    covariance = ((noisier - x) * (target - x)).mean()
    assert abs(float(covariance)) < 0.02 * noise_std**2 * (1 + 1 / gain)
    found = minimiser(lambda k: (k * noisier - target).square().mean().double())
    assert found == pytest.approx(1 / (1 + noise_std**2 * (1 + gain**2)), abs=0.02)


def test_hidden_pixels_alone_count():
    x_hat, y = normal(1, 2, 3, 4, 4), normal(1, 2, 3, 4, 4, seed=1)
    hidden = torch.zeros(1, 2, 1, 4, 4, dtype=torch.float64)
    hidden[0, 1, 0, 2, 3] = 1
    variance = torch.full_like(hidden, 0.5)
    found = hidden_error(x_hat, y, hidden, variance=variance, power=1.0)
    exact = (x_hat - y)[0, 1, :, 2, 3].square().mean() / 0.5 + 1e-4
    torch.testing.assert_close(found, exact)
