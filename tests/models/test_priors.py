"""Priors: every answer of the Gaussian is known; networks keep what is known exactly."""

import pytest
import torch

from instantvir_models.checkpoints.prior import load_prior, save_prior
from instantvir_models.errors import CheckpointError
from instantvir_models.operators.blur import GaussianBlur
from instantvir_models.operators.compose import Identity
from instantvir_models.operators.downsample import Downsample
from instantvir_models.operators.mask import Mask
from instantvir_models.operators.measurement import Degradation, Measurement, degrade
from instantvir_models.operators.prior import noise_variance
from instantvir_models.priors.base import ErrorTable
from instantvir_models.priors.flow import (
    BAND_STD,
    SIGNAL_STD,
    FlowConfig,
    FlowNetwork,
    FlowPrior,
    ImagePrior,
)
from instantvir_models.priors.gaussian import (
    GaussianPrior,
    matrices_of,
    matrix_of,
    white_prior,
)
from instantvir_models.priors.noise import PixelNoise, PooledNoise, white
from instantvir_models.priors.posterior import (
    annealed_estimate,
    combined_look,
    denoise_given,
    posterior_mean,
)
from instantvir_models.priors.wan import WanPrior
from instantvir_models.students.wan.transformer import WanTransformer
from tests.wan_small import TRANSFORMER, drawn, small_autoencoder, small_text

SHAPE = (2, 1, 6, 6)
ERRORS = ErrorTable((0.1, 1.0), (0.05, 0.2))
SMALL = FlowConfig(
    fine_channels=8, coarse_channels=16, bottom_channels=16, coarse_layers=1, bottom_layers=1
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def correlated_prior():
    """Pixels of two frames that have much to do with their neighbours."""
    size = torch.Size(SHAPE).numel()
    place = torch.cartesian_prod(*(torch.arange(n) for n in SHAPE)).double()
    distance = torch.cdist(place, place)
    covariance = 0.25 * 0.8**distance + 1e-3 * torch.eye(size, dtype=torch.float64)
    return GaussianPrior(0.1 * normal(*SHAPE, seed=3), covariance)


def operators():
    mask = (torch.rand(2, 1, 6, 6, generator=generator(5)) < 0.5).float()
    return [Identity(), Mask(mask), Downsample(2, "area"), Downsample(3, "area")]


def seen(operator, noise_std=0.3):
    x = normal(1, *SHAPE, seed=1)
    return degrade(x, Degradation(operator=operator, noise_std=noise_std), generator=generator(2))


@pytest.mark.parametrize(
    "noise",
    [
        white(0.4, dtype=torch.float64),
        PixelNoise(0.1 + normal(1, 2, 1, 6, 6).abs()),
        PooledNoise(white(0.7).std, white(0.2).std, 2),
        PooledNoise(white(0.7).std, white(0.2).std, 3),
    ],
)
def test_a_function_of_a_noise_level_is_that_function_of_its_matrix(noise):
    x = normal(1, *SHAPE)
    covariance = matrices_of(noise, torch.square, x)[0]
    torch.testing.assert_close(covariance, covariance.mT)
    std = matrix_of(lambda v: noise.apply(lambda s: s, v), x[0])
    torch.testing.assert_close(std @ std, covariance)
    inverse = matrix_of(lambda v: noise.apply(lambda s: 1 / s, v), x[0])
    torch.testing.assert_close(inverse @ std, torch.eye(len(std)).double(), atol=1e-7, rtol=0)
    torch.testing.assert_close(noise.variance(x).flatten(), covariance.diagonal())


def test_pooled_noise_of_one_level_is_white():
    x, level = normal(1, *SHAPE), white(0.3, dtype=torch.float64)
    pooled = PooledNoise(level.std, level.std, 2)
    torch.testing.assert_close(pooled.apply(torch.exp, x), level.apply(torch.exp, x))
    torch.testing.assert_close(pooled.band_variance(x), level.band_variance(x))
    torch.testing.assert_close(pooled.variance(x), level.variance(x))


def test_band_variances_are_those_of_drawn_noise():
    from instantvir_models.autoencoders.haar import haar

    like = torch.zeros(1, 400, 1, 8, 8)
    for factor in (2, 4):
        noise = PooledNoise(white(0.7).std, white(0.2).std, factor)
        drawn_bands = haar(noise.drawn(like, generator())[0])
        expected = noise.band_variance(like)[0].mean((0, 2, 3))
        torch.testing.assert_close(
            drawn_bands.square().mean((0, 2, 3)), expected, rtol=0.06, atol=0
        )


@pytest.mark.parametrize("operator", operators(), ids=repr)
def test_a_gaussian_posterior_teacher_is_exact(operator):
    """Noisy signal and measurement in one look: the Gaussian formula given both."""
    prior, measurement, r = correlated_prior(), seen(operator), 0.6
    z = normal(1, *SHAPE, seed=1) + r * normal(1, *SHAPE, seed=4)
    given = prior.posterior(measurement)
    exact = given.denoise(z, white(r, dtype=torch.float64))
    said = denoise_given(prior, z, torch.tensor([r]).double(), measurement)
    torch.testing.assert_close(said, exact, atol=1e-6, rtol=0)


@pytest.mark.parametrize("operator", operators(), ids=repr)
def test_a_gaussian_posterior_mean_is_exact(operator):
    prior, measurement = correlated_prior(), seen(operator)
    exact = prior.posterior(measurement).mean[None]
    torch.testing.assert_close(posterior_mean(prior, measurement), exact, atol=1e-6, rtol=0)


def test_two_videos_of_a_batch_have_looks_of_their_own():
    prior, measurement = correlated_prior(), seen(Downsample(2, "area"))
    both = Measurement(torch.cat([measurement.y, -measurement.y]), measurement.degradation)
    z, r = normal(2, *SHAPE, seed=6), torch.tensor([0.2, 0.9]).double()
    together = denoise_given(prior, z, r, both)
    for b, y in enumerate((measurement.y, -measurement.y)):
        one = Measurement(y, measurement.degradation)
        alone = denoise_given(prior, z[b : b + 1], r[b : b + 1], one)
        torch.testing.assert_close(together[b : b + 1], alone)


def test_with_independent_pixels_the_isotropic_correction_is_exact_too():
    """A blur is no look at pixels; errors of a white prior are white, so nothing is lost."""
    prior, measurement, r = white_prior(SHAPE, variance=0.5), seen(GaussianBlur(0.8)), 0.7
    z = normal(1, *SHAPE, seed=7)
    level = torch.tensor([r]).double()
    assert combined_look(z, level, measurement) is None
    exact = prior.posterior(measurement).denoise(z, white(r, dtype=torch.float64))
    said = denoise_given(prior, z, level, measurement)
    torch.testing.assert_close(said, exact, atol=1e-5, rtol=0)


class WithoutMaps(GaussianPrior):
    """One level for everything."""

    accepts_maps = False


def test_a_prior_can_be_asked_without_maps_as_one_that_knows_none():
    prior, level = correlated_prior(), torch.tensor([0.3]).double()
    plain = WithoutMaps(prior.mean, prior.covariance)
    z = normal(1, *SHAPE, seed=8)
    for operator, is_same in ((Mask((normal(1, 1, 6, 6) > 0).double()), False), (Identity(), True)):
        measurement = seen(operator)
        asked = denoise_given(prior, z, level, measurement, maps=False)
        with_maps = denoise_given(prior, z, level, measurement)
        expected = with_maps if is_same else denoise_given(plain, z, level, measurement)
        torch.testing.assert_close(asked, expected)
        assert torch.equal(asked, with_maps) == is_same


def test_the_error_of_a_gaussian_prior_is_that_of_its_answers():
    prior, r = correlated_prior(), 0.5
    root = torch.linalg.cholesky(prior.covariance)
    e = normal(4000, len(root), seed=8) @ root.mT
    x = prior.mean + e.view(-1, *SHAPE)
    z = x + r * normal(*x.shape, seed=9)
    error = (prior.denoise(z, white(r, dtype=torch.float64)) - x).square().mean().sqrt()
    assert prior.error_std(r) == pytest.approx(float(error), rel=0.02)


def test_an_annealed_estimate_is_nearer_than_where_it_started():
    prior = correlated_prior()
    root = torch.linalg.cholesky(prior.covariance)
    x = (prior.mean + (root @ normal(len(root), seed=11)).view(SHAPE))[None]
    given = Degradation(operator=GaussianBlur(1.0), noise_std=0.05)
    measurement = degrade(x, given, generator=generator(3))
    found = annealed_estimate(prior, measurement)
    assert (found - x).square().mean() < 0.8 * (measurement.y - x).square().mean()
    assert noise_variance(measurement) > 0


def test_errors_between_entries_lie_on_lines_of_logarithms():
    assert ERRORS.at(0.01) == pytest.approx(0.005)
    assert ERRORS.at(0.1**0.5) == pytest.approx(0.1)
    assert ERRORS.at(50.0) == 0.2
    with pytest.raises(ValueError, match="rising"):
        ErrorTable((1.0, 0.1), (0.1, 0.1))


def network(config=SMALL):
    torch.manual_seed(0)
    made = FlowNetwork(config)
    with torch.no_grad():
        for weight in made.parameters():
            weight += 0.02 * torch.randn_like(weight)
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize("factor", [2, 4])
def test_what_is_known_exactly_stays(factor):
    """Pixels, and means of boxes, that came without noise."""
    z = normal(1, 3, 3, 16, 16).float()
    prior = FlowPrior(network(), ERRORS)
    is_known = torch.rand(1, 3, 1, 16, 16, generator=generator()) < 0.5
    out = prior.denoise(z, PixelNoise(torch.where(is_known, 1e-4, 0.8)))
    assert (out - z).abs()[is_known.expand_as(z)].max() < 2e-3
    assert (out - z).abs()[~is_known.expand_as(z)].mean() > 0.05
    pooled = prior.denoise(z, PooledNoise(white(0.8).std, white(1e-4).std, factor))
    means = torch.nn.functional.avg_pool2d((pooled - z)[0], factor)
    assert means.abs().max() < 2e-3
    assert (pooled - z).abs().mean() > 0.05


def test_a_new_network_is_about_the_wiener_filter():
    torch.manual_seed(0)
    made, std = FlowNetwork(SMALL), 0.2
    with torch.no_grad():
        made.head.weight.zero_()
    z = normal(1, 1, 3, 16, 16).float()
    out = made(z, white(std))[0].detach()
    from instantvir_models.autoencoders.haar import haar

    powers = torch.tensor(BAND_STD).square().repeat_interleave(3)[:, None, None]
    torch.testing.assert_close(haar(out), haar(z[0]) * powers / (powers + std**2))
    assert SIGNAL_STD > 0


def test_frames_see_one_another_on_both_sides_and_an_image_prior_does_not():
    video = FlowPrior(network(), ERRORS)
    image = ImagePrior(video, ERRORS)
    z = normal(1, 3, 3, 16, 16).float()
    for frame, other in ((0, 1), (1, 0), (1, 2)):
        changed = z.clone()
        changed[:, other] += 1
        moved = (video.denoise(changed, white(0.5)) - video.denoise(z, white(0.5)))[:, frame]
        assert moved.abs().max() > 1e-5
        alone = (image.denoise(changed, white(0.5)) - image.denoise(z, white(0.5)))[:, frame]
        assert alone.abs().max() == 0
    single = video.denoise(z[:, 1:2], white(0.5))
    torch.testing.assert_close(image.denoise(z, white(0.5))[:, 1:2], single)


def test_any_size_and_maps_of_frames_go_through():
    z = normal(2, 2, 3, 13, 10).float()
    levels = 0.1 + normal(1, 2, 1, 13, 10).abs().float()
    image = ImagePrior(FlowPrior(network(), ERRORS), ERRORS)
    for prior in (image.video, image):
        assert prior.denoise(z, PixelNoise(levels)).shape == z.shape
        assert prior.denoise(z, white(torch.tensor([0.1, 0.5]))).shape == z.shape


def test_a_gradient_reaches_the_signal():
    z = normal(1, 2, 3, 8, 8).float().requires_grad_()
    network()(z, white(0.3)).square().sum().backward()
    assert z.grad.abs().min() > 0


def test_a_prior_comes_back_from_its_file(tmp_path):
    prior = FlowPrior(network(), ERRORS)
    save_prior(prior, tmp_path / "p.safetensors")
    read = load_prior(tmp_path / "p.safetensors")
    z = normal(1, 2, 3, 8, 8).float()
    torch.testing.assert_close(read.denoise(z, white(0.3)), prior.denoise(z, white(0.3)))
    assert read.errors == ERRORS


def test_a_student_is_no_prior():
    from instantvir_models.checkpoints.load import locate

    with pytest.raises(CheckpointError, match="holds no prior"):
        load_prior(locate("tiny").path)


def wan_prior(**settings):
    return WanPrior(
        drawn(WanTransformer(TRANSFORMER)), small_autoencoder("lean"), small_text(),
        small_text(seed=5, rows=1), ERRORS, **settings,
    )  # fmt: skip


def test_wan_says_the_clean_latent_of_its_flow_path():
    prior = wan_prior()
    z, r = normal(1, 3, 16, 4, 4).float(), 1.5
    s = r / (1 + r)
    v = prior.transformer.velocity_of_sequence(
        (1 - s) * z, timestep=1000 * s, text=prior.text, latents_per_block=3
    )
    torch.testing.assert_close(prior.denoise(z, white(r)), (1 - s) * z - s * v)


def test_wan_sees_all_latents_at_once():
    prior, z = wan_prior(), normal(1, 3, 16, 4, 4).float()
    later = z.clone()
    later[:, 2] += 1
    moved = prior.denoise(later, white(0.5)) - prior.denoise(z, white(0.5))
    assert moved[:, 0].abs().max() > 1e-5


def test_guidance_leads_away_from_the_other_prompt():
    z, noise = normal(1, 2, 16, 4, 4).float(), white(0.8)
    told = wan_prior()
    untold = WanPrior(told.transformer, told.autoencoder, told.without, told.text, ERRORS)
    guided = WanPrior(
        told.transformer, told.autoencoder, told.text, told.without, ERRORS, guidance=3.0
    )
    a, b = told.denoise(z, noise), untold.denoise(z, noise)
    torch.testing.assert_close(guided.denoise(z, noise), b + 3 * (a - b), atol=1e-4, rtol=1e-4)


def test_wan_takes_one_level():
    prior, z = wan_prior(), normal(2, 2, 16, 4, 4).float()
    with pytest.raises(ValueError, match="one noise level"):
        prior.denoise(z, white(torch.tensor([0.1, 0.2])))
    assert not prior.accepts_maps


def test_a_measurement_corrects_a_latent_prior_through_its_autoencoder():
    prior = wan_prior()
    x = normal(1, 5, 3, 32, 32).float().tanh()
    measurement = degrade(x, Degradation(operator=GaussianBlur(1.0), noise_std=0.1))
    z = prior.encode(x).requires_grad_()
    assert denoise_given(prior, z, torch.tensor([0.5]), measurement).shape == z.shape
    prior.decode(z).square().sum().backward()
    assert z.grad.abs().sum() > 0
