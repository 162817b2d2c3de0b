import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from instantvir_models.metrics.fidelity import frame_difference_psnr, psnr, ssim


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 256, (3, 40, 50, 3), dtype=np.uint8)
    clean[:, :20] = np.linspace(0, 255, 50, dtype=np.uint8)[None, None, :, None]
    noisy = (clean + rng.normal(0, 12, clean.shape)).clip(0, 255).astype(np.uint8)
    return noisy, clean


def test_psnr_equals_scikit_image(pair):
    expected = [peak_signal_noise_ratio(b, a) for a, b in zip(*pair, strict=True)]
    np.testing.assert_allclose(psnr(*pair), expected, rtol=1e-6)


def test_ssim_equals_scikit_image(pair):
    expected = [
        structural_similarity(
            b, a, channel_axis=-1, gaussian_weights=True, use_sample_covariance=False,
            data_range=255,
        )
        for a, b in zip(*pair, strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(ssim(*pair), expected, atol=1e-6)


def test_a_constant_error_does_not_flicker(pair):
    _, clean = pair
    darker = np.minimum(clean, 200)
    assert psnr(darker - 0, np.minimum(darker + 20, 255)).max() < 25
    assert frame_difference_psnr(darker, darker + np.uint8(20)).min() == 100
    flickering = darker.copy()
    flickering[1] += 20
    assert frame_difference_psnr(flickering, darker).max() < 25


def test_sixteen_bits_measure_like_eight(pair):
    noisy, clean = (frames.astype(np.uint16) * 257 for frames in pair)
    np.testing.assert_allclose(psnr(noisy, clean), psnr(*pair), rtol=1e-5)
    np.testing.assert_allclose(ssim(noisy, clean), ssim(*pair), atol=1e-6)
