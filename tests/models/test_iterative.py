"""Solvers by a prior: on a Gaussian prior every answer is known."""

from dataclasses import dataclass, replace

import pytest
import torch

from instantvir_models.operators.base import Operator, OperatorTraits
from instantvir_models.operators.blur import GaussianBlur
from instantvir_models.operators.compose import Identity
from instantvir_models.operators.downsample import Downsample
from instantvir_models.operators.mask import Mask
from instantvir_models.operators.measurement import Degradation, Measurement, degrade
from instantvir_models.operators.prior import noise_variance
from instantvir_models.operators.spec import parse_degradation
from instantvir_models.priors.gaussian import GaussianPrior, matrix_of
from instantvir_models.priors.noise import white
from instantvir_models.solvers.base import Window
from instantvir_models.solvers.iterative import diffir2vr
from instantvir_models.solvers.iterative.corrections import (
    Conjugate,
    Descent,
    Guidance,
    NoCorrection,
    NormGuidance,
    Projection,
    Prox,
)
from instantvir_models.solvers.iterative.diffir2vr import DiffIR2VR, Look, nearest
from instantvir_models.solvers.iterative.levels import noise_std, spaced, strided, uniform
from instantvir_models.solvers.iterative.loop import (
    Draws,
    Iterative,
    Prediction,
    Renoising,
    Start,
    Step,
    _detached,
    sampled,
)
from instantvir_models.solvers.iterative.one_step import OneEvaluation
from instantvir_models.solvers.iterative.red_diff import RedDiff
from instantvir_models.solvers.iterative.systems import (
    InvertedStart,
    ddnm,
    diffpir,
    dps,
    flowdps,
    lvtino,
    pigdm,
    svi,
    vision_xl,
)

SHAPE = (1, 1, 2, 3)
SIZE = 6
NOISE_STD = 0.3
KNOWN = torch.tensor([[[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]]])


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass(frozen=True)
class Exact(GaussianPrior):
    """The Gaussian prior at one noise level for all, quick for many videos at once."""

    def denoise(self, z, noise):
        std = float(noise.std.flatten()[0])
        gain = self.covariance @ torch.linalg.inv(
            self.covariance + std**2 * torch.eye(len(self.covariance), dtype=z.dtype)
        )
        return self.mean + ((z - self.mean).flatten(1) @ gain.mT).view_as(z)


def correlated():
    root = 0.35 * drawn(SIZE, SIZE, seed=1) / SIZE**0.5 + 0.3 * torch.eye(SIZE)
    return Exact(0.2 * drawn(*SHAPE, seed=2), root @ root.mT)


def measured(operator, prior, noise_std=NOISE_STD):
    root = torch.linalg.cholesky(prior.covariance)
    x = prior.mean + (root @ drawn(len(root), seed=3)).view_as(prior.mean)
    degradation = Degradation(operator=operator, noise_std=noise_std)
    return degrade(x[None], degradation, generator=torch.Generator().manual_seed(4))


def many(measurement, count):
    return replace(measurement, y=measurement.y.expand(count, -1, -1, -1, -1))


def moments(x):
    flat = x.flatten(1)
    return flat.mean(0), flat.mT.cov()


def distance(found, expected):
    """Relative, of vectors or matrices."""
    return float((found - expected).norm() / expected.norm())


# ---------------------------------------------------------------------- the matrix recursion


def recursion(solver, measurement, corrected):
    """Mean and covariance of what an affine solver returns, by matrices.

    Args:
        corrected: (level, next level, A, K) -> (G, h): x_c = G x_0 + h, where x_0 = K x_t + k.
    """
    prior, eye = solver.prior, torch.eye(SIZE, dtype=torch.float64)
    m, C = prior.mean.flatten(), prior.covariance
    A = matrix_of(measurement.operator.A, prior.mean)
    s = solver.levels[0]
    mean, covariance = torch.zeros(SIZE, dtype=torch.float64), s**2 * eye
    for s, after in zip(solver.levels, (*solver.levels[1:], 0.0), strict=True):
        a = 1 - s
        K = a * C @ torch.linalg.inv(a**2 * C + s**2 * eye)
        k = m - a * K @ m
        G, h = corrected(s, after, A, K)
        into_x, into_0 = G @ K, G @ k + h
        if solver.renoising.kind == "keep":
            into_noise, noise_0 = (eye - a * K) / s, -a * k / s
        else:
            into_noise, noise_0 = (eye - a * into_x) / s, -a * into_0 / s
        eta = solver.renoising.fresh_share(s, after)
        kept = after * (1 - eta**2) ** 0.5
        F = (1 - after) * into_x + kept * into_noise
        f = (1 - after) * into_0 + kept * noise_0
        mean, covariance = F @ mean + f, F @ covariance @ F.mT + (after * eta) ** 2 * eye
    return mean, covariance


def projecting(measurement):
    y = measurement.y.flatten()

    def corrected(s, after, A, K):
        inverse = torch.linalg.pinv(A)
        return torch.eye(SIZE, dtype=torch.float64) - inverse @ A, inverse @ y

    return corrected


def weighing(measurement, std):
    y, q2 = measurement.y.flatten(), noise_variance(measurement)

    def corrected(s, after, A, K):
        weight = std(s, after) ** 2 / q2
        G = torch.linalg.inv(torch.eye(SIZE, dtype=torch.float64) + weight * A.mT @ A)
        return G, weight * G @ A.mT @ y

    return corrected


def guiding(measurement, correction):
    y, q2 = measurement.y.flatten(), noise_variance(measurement)

    def corrected(s, after, A, K):
        r2 = noise_std(s) ** 2
        c = correction.signal_std
        R = 0.0 if c is None else r2 * c**2 / (r2 + c**2)
        inner = torch.linalg.inv(R * A @ A.mT + q2 * torch.eye(len(A), dtype=torch.float64))
        weight = 1 / (1 + r2) if correction.falls_off else correction.weight
        pull = weight * s**2 / (1 - s) * K.mT @ A.mT @ inner
        return torch.eye(SIZE, dtype=torch.float64) - pull @ A, pull @ y

    return corrected


@dataclass(frozen=True)
class SquaredDescent(Descent):
    """Down |B (y - A x)|^2 / 2, which is affine."""

    def loss(self, missed):
        return missed.square().sum() / 2


def descending(measurement, correction):
    y, eye = measurement.y.flatten(), torch.eye(SIZE, dtype=torch.float64)
    size = correction.step_size * (SIZE / correction.REFERENCE_VALUES) ** 0.5

    def corrected(s, after, A, K):
        B = A.mT  # of a blur
        G, h = eye, torch.zeros(SIZE, dtype=torch.float64)
        for _ in range(correction.steps):
            M = eye - size * (B @ A).mT @ B @ A
            G, h = M @ G, M @ h + size * (B @ A).mT @ B @ y
        return (1 - s) * eye + s * G, s * h

    return corrected


def affine_cases():
    prior = correlated()
    mask, blur = Mask(KNOWN), GaussianBlur(0.6)
    exact, noisy, blurred = (
        measured(mask, prior, 0.0), measured(mask, prior), measured(blur, prior)
    )  # fmt: skip
    few = {"levels": strided(20)}
    dps_squared = Iterative(
        prior=prior, levels=spaced(20), correction=Guidance(None, 0.3),
        renoising=Renoising("keep", "ancestral"),
    )  # fmt: skip
    squared = SquaredDescent(50.0)
    return {
        "DDNM": (replace(ddnm(prior), **few), exact, projecting(exact)),
        "DDNM, noise": (
            replace(ddnm(prior), **few), noisy, weighing(noisy, lambda s, after: noise_std(after))
        ),
        "DiffPIR": (
            replace(diffpir(prior, blurred.degradation, levels=20), correction=Prox(skips_last=False)),
            blurred, weighing(blurred, lambda s, after: noise_std(s)),
        ),
        "SVI": (svi(prior), exact, projecting(exact)),
        "PiGDM": (pigdm(prior, levels=20), blurred, guiding(blurred, Guidance(1.0, falls_off=True))),
        "FlowDPS, squared": (
            replace(flowdps(prior), correction=squared), blurred, descending(blurred, squared)
        ),
        "DPS, squared": (dps_squared, noisy, guiding(noisy, Guidance(None, 0.3))),
    }  # fmt: skip


def agreement(name, count):
    solver, measurement, corrected = affine_cases()[name]
    expected = recursion(solver, measurement, corrected)
    found = moments(solver.solved(many(measurement, count)))
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))


AFFINE = ["DDNM", "DDNM, noise", "DiffPIR", "SVI", "PiGDM", "FlowDPS, squared", "DPS, squared"]


@pytest.mark.parametrize("name", AFFINE)
def test_an_affine_solver_equals_its_matrix_recursion(name):
    assert agreement(name, 20_000) < 3e-3 * 10**0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", AFFINE)
def test_an_affine_solver_equals_its_matrix_recursion_closely(name):
    assert agreement(name, 200_000) < 3e-3


# ---------------------------------------------------------------------- samples for means: LVTINO


def down_the_flow(prior, level, steps):
    """(G, g): what `sampled` makes of x_t is G x_t + g."""
    m, C, eye = prior.mean.flatten(), prior.covariance, torch.eye(SIZE, dtype=torch.float64)
    G, g = eye, torch.zeros(SIZE, dtype=torch.float64)
    for index in range(steps):
        s, below = (level * (steps - i) / steps for i in (index, index + 1))
        a = 1 - s
        K = a * C @ torch.linalg.inv(a**2 * C + s**2 * eye)
        k = m - a * K @ m
        F = (1 - below) * K + below * (eye - a * K) / s
        f = (1 - below) * k - below * a * k / s
        G, g = F @ G, F @ g + f
    return G, g


def lvtino_recursion(solver, measurement):
    """Mean and covariance of what it returns, by matrices."""
    A = matrix_of(measurement.operator.A, solver.prior.mean)
    y, q2 = measurement.y.flatten(), noise_variance(measurement)
    eye = torch.eye(SIZE, dtype=torch.float64)

    def nearest_to(weight):
        inverse = torch.linalg.inv(eye + weight * A.mT @ A)
        return inverse, weight * inverse @ A.mT @ y

    s = solver.levels[0]
    mean = (1 - s) * nearest_to(solver.start.weight)[1]
    covariance = s**2 * eye
    for s, after in zip(solver.levels, (*solver.levels[1:], 0.0), strict=True):
        G, g = down_the_flow(solver.prior, s, solver.flow_steps)
        mean, covariance = G @ mean + g, G @ covariance @ G.mT
        if after == 0:
            return mean, covariance
        P, p = nearest_to(2 * solver.prior.error_std(noise_std(s)) ** 2 / q2)
        P, p = (1 - after) * P, (1 - after) * p
        mean, covariance = P @ mean + p, P @ covariance @ P.mT + after**2 * eye
    raise AssertionError("no levels")


def lvtino_agreement(count):
    prior = correlated()
    measurement = measured(GaussianBlur(0.6), prior)
    solver = lvtino(prior)
    found = moments(solver.solved(many(measurement, count)))
    expected = lvtino_recursion(solver, measurement)
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))


def test_lvtino_equals_its_matrix_recursion():
    assert lvtino_agreement(20_000) < 3e-3 * 10**0.5


@pytest.mark.slow
def test_lvtino_equals_its_matrix_recursion_closely():
    assert lvtino_agreement(200_000) < 3e-3


def test_lvtino_of_an_exact_measurement_samples_around_it():
    """A = I without noise: what comes out is what the flow makes of the noised measurement."""
    prior = correlated()
    measurement = measured(Identity(), prior, 0.0)
    solver = lvtino(prior)
    draws = Draws(solver.seed, is_shared=False)
    noise = [draws.fresh(measurement.y) for _ in solver.levels][-1]
    x_t = (1 - solver.levels[-1]) * measurement.y + solver.levels[-1] * noise
    expected = sampled(prior, x_t, solver.levels[-1], solver.flow_steps).z_0
    torch.testing.assert_close(solver.solved(measurement), expected, atol=1e-3, rtol=0)


def test_a_sample_down_the_flow_has_the_spread_that_a_mean_lacks():
    prior = correlated()
    x_t = 0.1 * prior.mean + 0.9 * drawn(20_000, *SHAPE, seed=7) + 0.1 * (
        torch.linalg.cholesky(prior.covariance) @ drawn(SIZE, 20_000, seed=8)
    ).mT.reshape(20_000, *SHAPE)  # fmt: skip
    spread = {n: moments(sampled(prior, x_t, 0.9, n).z_0)[1].trace() for n in (1, 40)}
    wanted = prior.covariance.trace()
    assert spread[1] < 0.2 * wanted
    assert 0.9 * wanted < spread[40] < 1.02 * wanted


def test_flowdps_goes_a_fixed_way_towards_an_exact_measurement():
    """A = I: the slope of a norm is 1 long, and three steps are three lengths, however far y is."""
    prior = correlated()
    measurement = measured(Identity(), prior, 0.0)
    correction, level = Descent(step_size=2.0), 0.6
    z_0 = measurement.y + drawn(1, *SHAPE, seed=5)
    step = Step(Prediction(z_0, z_0, level), measurement, prior, 0.5)
    moved = correction.corrected(step) - z_0
    length = 3 * 2.0 * (SIZE / correction.REFERENCE_VALUES) ** 0.5
    towards = (measurement.y - z_0) / (measurement.y - z_0).norm()
    torch.testing.assert_close(moved, level * length * towards, atol=1e-9, rtol=0)


# ---------------------------------------------------------------------- who reaches the posterior


@dataclass(frozen=True)
class ExactGuidance(Guidance):
    """Guidance with the whole conditional covariance of x given x_t, which only a Gaussian tells."""

    prior: Exact | None = None

    def _pull(self, x_0, step):
        operator = step.measurement.operator
        A = matrix_of(operator.A, self.prior.mean)
        inner = self.inner(A, step.prediction.std, step.measurement)
        error = (step.measurement.y - operator.A(x_0)).flatten(1)
        return (error @ torch.linalg.inv(inner).mT @ A).view_as(x_0)

    def inner(self, A, std, measurement):
        """A R A^T + q^2."""
        left = self.prior.covariance.inverse() + torch.eye(SIZE) / std**2
        return A @ left.inverse() @ A.mT + noise_variance(measurement) * torch.eye(len(A))


def exactly_guiding(measurement, correction):
    y = measurement.y.flatten()

    def corrected(s, after, A, K):
        inner = torch.linalg.inv(correction.inner(A, noise_std(s), measurement))
        pull = s**2 / (1 - s) * K.mT @ A.mT @ inner
        return torch.eye(SIZE, dtype=torch.float64) - pull @ A, pull @ y

    return corrected


def departure(solver, measurement, corrected):
    """How far mean and covariance are from the posterior's, relative."""
    posterior = solver.prior.posterior(measurement)
    mean, covariance = recursion(solver, measurement, corrected)
    return (
        distance(mean, posterior.mean.flatten()),
        distance(covariance, posterior.covariance),
    )


def exactly_guided(prior, steps):
    return Iterative(
        prior=prior, levels=uniform(steps), correction=ExactGuidance(prior=prior),
        renoising=Renoising("refit"),
    )  # fmt: skip


@pytest.mark.parametrize(("steps", "off"), [(20, 0.24), (50, 0.10), (400, 0.028)])
def test_exact_guidance_reaches_the_posterior(steps, off):
    prior = correlated()
    measurement, solver = measured(Mask(KNOWN), prior), exactly_guided(prior, steps)
    mean, covariance = departure(
        solver, measurement, exactly_guiding(measurement, solver.correction)
    )
    assert mean < 0.02
    assert covariance < off


def test_exact_guidance_equals_its_matrix_recursion():
    prior = correlated()
    measurement, solver = measured(Mask(KNOWN), prior), exactly_guided(prior, 10)
    expected = recursion(solver, measurement, exactly_guiding(measurement, solver.correction))
    found = moments(solver.solved(many(measurement, 20_000)))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-2, rtol=0)


def test_pigdm_reaches_the_posterior_of_white_video_and_no_other():
    simple = Exact(torch.zeros(SHAPE, dtype=torch.float64), torch.eye(SIZE, dtype=torch.float64))
    off = {}
    for prior in (simple, correlated()):
        measurement, solver = (
            measured(GaussianBlur(0.6), prior),
            pigdm(prior, levels=400, as_released=False),
        )
        off[prior is simple] = departure(solver, measurement, guiding(measurement, Guidance(1.0)))
    assert off[True][0] < 0.02
    assert off[True][1] < 0.04
    assert max(off[False]) > 0.05


@pytest.mark.parametrize("weight", [1.0, 0.3, 0.1])
def test_dps_does_not_reach_the_posterior(weight):
    """By tens of per cent, whatever the weight: it takes the prediction for exact."""
    prior = correlated()
    measurement = measured(Mask(KNOWN), prior)
    solver = Iterative(
        prior=prior, levels=spaced(1000), correction=Guidance(None, weight),
        renoising=Renoising("keep", "ancestral"),
    )  # fmt: skip
    mean, covariance = departure(solver, measurement, guiding(measurement, solver.correction))
    assert mean > 0.3
    assert covariance > 0.2


# ---------------------------------------------------------------------- nothing measured, all measured


@dataclass(frozen=True)
class Nothing(Operator):
    """A = 0."""

    spec = "nothing"

    def A(self, x):
        return 0 * x

    def A_adjoint(self, y):
        return 0 * y

    def A_dagger(self, y):
        return 0 * y

    def solve(self, b, weight):
        return b

    @property
    def traits(self):
        return OperatorTraits()


def all_solvers(prior, degradation):
    return {
        "DPS": dps(prior, degradation, levels=100),
        "SVI": svi(prior),
        "DDNM": ddnm(prior),
        "DiffPIR": diffpir(prior, degradation),
        "PiGDM": pigdm(prior),
        "FlowDPS": flowdps(prior),
        "LVTINO": lvtino(prior),
    }


@pytest.mark.parametrize("name", ["DPS", "SVI", "DDNM", "DiffPIR", "PiGDM", "FlowDPS", "LVTINO"])
def test_without_a_measurement_the_prior_is_sampled(name):
    prior = correlated()
    measurement = measured(Nothing(), prior, 0.1)
    solver = replace(all_solvers(prior, measurement.degradation)[name], is_clipped=False)
    mean, covariance = moments(solver.solved(many(measurement, 4000)))
    assert distance(mean, prior.mean.flatten()) < 0.15
    shrinks = (
        0.5 if name in {"DDNM", "DiffPIR", "FlowDPS"} else 0.3
    )  # eta re-noises means: solvers.md, 0.2
    assert distance(covariance, prior.covariance) < shrinks


@pytest.mark.parametrize("name", ["SVI", "DDNM", "DiffPIR"])
def test_the_identity_without_noise_returns_the_measurement(name):
    prior = correlated()
    measurement = measured(Identity(), prior, 0.0)
    solver = all_solvers(prior, measurement.degradation)[name]
    if name == "DiffPIR":
        solver = replace(solver, correction=Prox(skips_last=False))
    torch.testing.assert_close(solver.solved(measurement), measurement.y, atol=1e-5, rtol=0)


def test_ddnm_explains_the_measurement_exactly():
    prior = correlated()
    measurement = measured(Mask(KNOWN), prior, 0.0)
    x = ddnm(prior).solved(measurement)
    assert float((measurement.operator.A(x) - measurement.y).abs().max()) < 1e-12


def test_vision_xl_smooths_what_needs_no_restoration():
    """It returns the frames before its last correction: near y, not y."""
    prior = correlated()
    measurement = measured(Identity(), prior, 0.0)
    x = vision_xl(prior).solved(measurement)
    assert 1e-6 < float((x - measurement.y).abs().max()) < 0.3


# ---------------------------------------------------------------------- video


def video_prior(frames=1, seed=1, side=4):
    """Each frame by itself: an image prior."""
    size = side * side
    root = 0.3 * drawn(size, size, seed=seed) / size**0.5 + 0.2 * torch.eye(size)
    return FrameByFrame(Exact(torch.zeros(1, 1, side, side, dtype=torch.float64), root @ root.mT))


@dataclass(frozen=True)
class FrameByFrame:
    """An image prior."""

    inner: Exact

    accepts_maps = False
    largest_std = 1e6

    def encode(self, x):
        return x

    def decode(self, z):
        return z

    def denoise(self, z, noise):
        return self.inner.denoise(z.flatten(0, 1)[:, None], noise).view_as(z)

    def error_std(self, noise_std):
        return self.inner.error_std(noise_std)


def static(operator, frames=4, noise_std=0.0):
    x = 0.4 * drawn(1, 1, 1, 4, 4, seed=6).expand(-1, frames, -1, -1, -1)
    return Measurement(operator.A(x), Degradation(operator=operator, noise_std=noise_std))


@pytest.mark.parametrize("make", [svi, vision_xl])
@pytest.mark.parametrize("operator", [GaussianBlur(0.7), Downsample(2, "area")])
def test_a_static_clip_stays_static_to_the_bit(make, operator):
    x = make(video_prior()).solved(static(operator))
    assert float((x - x[:, :1]).abs().max()) == 0


@pytest.mark.parametrize("operator", [GaussianBlur(0.7), Downsample(2, "area")])
def test_frames_of_svi_do_not_depend_on_how_often_they_are_repeated(operator):
    once = svi(video_prior()).solved(static(operator, 2))
    twice = svi(video_prior()).solved(static(operator, 4))
    torch.testing.assert_close(twice[:, :2], once, atol=1e-12, rtol=0)


def test_vision_xl_equals_svi_with_a_lossless_codec_and_the_full_range():
    """Same start, same levels, no low pass: the frames before the last correction are its prediction."""
    prior, measurement = video_prior(), static(GaussianBlur(0.7))
    measurement = replace(measurement, y=measurement.y + 0.1 * drawn(1, 4, 1, 4, 4, seed=8))
    one = svi(prior)
    same = replace(
        vision_xl(prior), levels=one.levels, start=Start(), correction=one.correction,
        renoising=one.renoising, returns_prediction=False,
    )  # fmt: skip
    assert torch.equal(same.solved(measurement), one.solved(measurement))
    before = replace(same, returns_prediction=True).solved(measurement)
    corrected = one.correction.corrected_frames(
        before, Step(shown(before), measurement, prior, 0.0)
    )
    torch.testing.assert_close(corrected, one.solved(measurement), atol=1e-12, rtol=0)


def shown(x):
    return Prediction(x, x, 0.5)


def test_without_steps_vision_xl_shows_the_first_frame():
    measurement = static(GaussianBlur(0.7))
    moving = replace(measurement, y=measurement.y + drawn(1, 4, 1, 4, 4, seed=9))
    x = replace(vision_xl(video_prior()), levels=(), start=InvertedStart(())).solved(moving)
    torch.testing.assert_close(x, moving.y[:, :1].expand_as(x))


def test_an_average_over_time_is_explained_by_svi():
    operator = parse_degradation("temporal:kernel=uniform,size=7").operator
    x = 0.3 * drawn(1, 4, 1, 4, 4, seed=5)
    measurement = Measurement(operator.A(x), Degradation(operator=operator, noise_std=0.0))
    solver = replace(svi(video_prior()), correction=Conjugate(40))
    left = operator.A(solver.solved(measurement)) - measurement.y
    assert float(left.norm() / measurement.y.norm()) < 1e-4


# ---------------------------------------------------------------------- DiffIR2VR-Zero


def moving_clean():
    return 0.4 * drawn(1, 5, 3, 4, 4, seed=11)


def colour_prior():
    size = 48
    root = 0.3 * drawn(size, size, seed=1) / size**0.5 + 0.2 * torch.eye(size)
    return FrameByFrame(Exact(torch.zeros(1, 3, 4, 4, dtype=torch.float64), root @ root.mT))


def denoising():
    return Measurement(moving_clean(), Degradation(operator=Identity(), noise_std=0.2))


def test_zero_flow_everywhere_makes_every_estimate_the_key_frames():
    """Tiny frames are taken as not moving: the flow is zero, nothing is hidden."""
    solver = DiffIR2VR(prior=colour_prior(), levels=spaced(20), warped_share=1.0)
    x = solver.solved(denoising())
    assert float((x - x[:, 2:3]).abs().max()) == 0


def test_without_warping_frames_are_sampled_by_themselves():
    solver = DiffIR2VR(prior=colour_prior(), levels=spaced(20), warped_share=0.0)
    whole = denoising()
    x = solver.solved(whole)
    draws = Draws(0, is_shared=False)
    noise = [draws.fresh(moving_clean()) for _ in range(20)]
    x_t, renoising = solver.levels[0] * noise[0], Renoising("keep", "ancestral")
    for index, level in enumerate(solver.levels):
        x_0 = diffir2vr.given(solver.prior, x_t, level, whole.y, 0.2)
        after = (*solver.levels, 0.0)[index + 1]

        class Fixed:
            def fresh(self, like, index=index):
                return noise[index + 1]

        x_t = renoising.noisy(x_0, Prediction(x_t, x_0, level), after, Fixed())
    assert torch.equal(x, x_t)


def test_a_translation_is_a_roll_inside_the_frame():
    frame = drawn(1, 3, 8, 12)
    flow = torch.zeros(8, 12, 2)
    flow[..., 0] = 3
    rolled = nearest(frame, flow)
    assert torch.equal(rolled[..., :9], frame.roll(-3, -1)[..., :9])
    assert not rolled[..., 9:].any()
    seen = Look(flow, torch.zeros(8, 12))
    assert torch.equal(diffir2vr.taken(frame, frame + 1, seen), frame)


def test_batches_share_their_noise_and_a_short_tail_joins():
    assert [len(range(40)[part]) for part in diffir2vr.batches(32)] == [10, 10, 12]
    assert [len(range(40)[part]) for part in diffir2vr.batches(33)] == [10, 10, 10, 3]
    assert [len(range(40)[part]) for part in diffir2vr.batches(2)] == [2]


# ---------------------------------------------------------------------- the rest


def test_red_diff_finds_the_fixed_point_of_a_gaussian():
    """[A^T A + weight Q] mu = A^T y + weight Q m with Q the mean of I - a^2 C (a^2 C + s^2)^-1."""
    prior = correlated()
    measurement = measured(Mask(KNOWN), prior)
    level = 0.5
    solver = RedDiff(prior=prior, levels=(level,) * 600, learning_rate=4e-3)
    A = matrix_of(measurement.operator.A, prior.mean)
    C, eye = prior.covariance, torch.eye(SIZE, dtype=torch.float64)
    Q = eye - 0.25 * C @ torch.linalg.inv(0.25 * C + 0.25 * eye)
    weight = solver.weight
    expected = torch.linalg.solve(
        A.mT @ A + weight * Q,
        A.mT @ measurement.y.flatten() + weight * Q @ prior.mean.flatten(),
    )
    found = solver.solved(measurement)
    assert distance(found.flatten(), expected) < 0.15


def test_one_evaluation_is_the_posterior_mean_of_noise():
    prior = GaussianPrior(correlated().mean, correlated().covariance)
    measurement = measured(Identity(), prior)
    x = OneEvaluation(prior=prior).solved(measurement)
    torch.testing.assert_close(x[0], prior.posterior(measurement).mean, atol=1e-5, rtol=0)


def test_one_evaluation_keeps_what_is_known():
    prior = GaussianPrior(correlated().mean, correlated().covariance)
    measurement = measured(Mask(KNOWN), prior, 0.0)
    x = OneEvaluation(prior=prior).solved(measurement)
    torch.testing.assert_close(measurement.operator.A(x), measurement.y, atol=1e-4, rtol=0)


def test_the_step_of_dps_is_that_of_its_paper():
    """One ancestral step in the words of DDPM, then back along the gradient of the norm."""
    prior = correlated()
    measurement = measured(Mask(KNOWN), prior)
    solver = replace(
        dps(prior, measurement.degradation), levels=(0.6, 0.4), is_clipped=False,
        correction=NormGuidance(0.5, 1000),
    )  # fmt: skip
    draws = Draws(0, is_shared=False)
    e, f = draws.fresh(measurement.y), draws.fresh(measurement.y)
    r, after = noise_std(0.6), noise_std(0.4)
    x = (r / (1 + r**2) ** 0.5 * e).requires_grad_()
    abar, abar_after = 1 / (1 + r**2), 1 / (1 + after**2)
    with torch.enable_grad():
        z = x / abar**0.5
        x_0 = prior.denoise(z, white(r, dtype=torch.float64))
        norm = (measurement.selected - measurement.operator.A(x_0)).norm()
        gradient = torch.autograd.grad(norm, x)[0]
    alpha = abar / abar_after
    mean = (
        abar_after**0.5 * (1 - alpha) / (1 - abar) * x_0
        + alpha**0.5 * (1 - abar_after) / (1 - abar) * x
    )
    std = ((1 - abar_after) / (1 - abar) * (1 - alpha)) ** 0.5
    zeta = 0.5 * (SIZE / 256**2) ** 0.5
    expected = (mean + std * f - zeta * gradient).detach() * (1 + after**2) ** 0.5 * 0.6
    first = replace(solver, levels=(0.6, 0.4))
    prediction = first._predicted(0.6 * e, 0.6)
    z_c = first.correction.corrected(Step(prediction, measurement, prior, 0.4)).detach()

    class Fixed:
        def fresh(self, like):
            return f

    found = first.renoising.noisy(z_c, _detached(prediction), 0.4, Fixed())
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_published_levels():
    assert [round(s, 3) for s in svi(correlated()).levels][:3] == [0.990, 0.984, 0.975]
    assert [round(s, 3) for s in svi(correlated()).levels][-3:] == [0.255, 0.150, 0.010]
    levels = [0.437, 0.401, 0.364, 0.324, 0.280, 0.230, 0.166, 0.028]
    assert [round(s, 3) for s in vision_xl(correlated()).levels] == levels


def test_where_nothing_is_seen_the_prior_is_not_asked():
    @dataclass(frozen=True)
    class Asked(Exact):
        @property
        def largest_std(self):
            return 10.0

        def denoise(self, z, noise):
            asked.append(float(noise.std.flatten()[0]))
            return super().denoise(z, noise)

    asked: list[float] = []
    prior = Asked(correlated().mean, correlated().covariance)
    measurement = measured(Mask(KNOWN), prior)
    svi(prior).solved(measurement)
    assert len(asked) == 14
    assert max(asked) < 10
    dps(prior, measurement.degradation, levels=30).solved(measurement)  # gradients of nothing are 0


@pytest.mark.parametrize("name", ["DPS", "SVI", "DDNM", "DiffPIR", "PiGDM", "FlowDPS", "LVTINO"])
def test_the_same_seed_gives_the_same_video(name):
    prior = correlated()
    window = Window.whole(measured(Mask(KNOWN), prior))
    solver = all_solvers(prior, window.measurement.degradation)[name]
    first, again = (solver.solved(window.measurement) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(replace(solver, seed=1).solved(window.measurement), first)


def test_a_solver_does_not_draw_the_noise_of_the_measurement_again():
    """Both had seed 0 once: the video began at the very noise that was to be taken away."""
    shape = (1, 2, 3, 8, 8)
    theirs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ours = Draws(0, is_shared=False).fresh(torch.zeros(shape))
    assert abs(float((ours * theirs).mean())) < 0.2


def test_no_correction_leaves_the_prediction():
    prior = correlated()
    solver = Iterative(
        prior=prior, levels=uniform(5), correction=NoCorrection(), renoising=Renoising("refit")
    )
    kept = replace(solver, renoising=Renoising("keep"))
    measurement = measured(Mask(KNOWN), prior)
    torch.testing.assert_close(solver.solved(measurement), kept.solved(measurement))


def test_projection_and_conjugate_gradients_agree_on_a_mask():
    prior = correlated()
    measurement = measured(Mask(KNOWN), prior, 0.0)
    x = drawn(1, *SHAPE, seed=12)
    step = Step(shown(x), measurement, prior, 0.1)
    torch.testing.assert_close(
        Projection().corrected_frames(x, step), Conjugate(3).corrected_frames(x, step)
    )
