import re
import shutil
import subprocess

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from instantvir_models.metrics.fidelity import frame_difference_psnr, psnr, psnr_over_frames, ssim


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


def test_psnr_over_frames_is_that_of_all_pixels_at_once(pair):
    """An equal frame counts as 100 dB in the mean of the frames, and no more than its pixels here."""
    noisy, clean = pair
    noisy[1] = clean[1]
    at_once = psnr(noisy.reshape(1, -1, 50, 3), clean.reshape(1, -1, 50, 3))[0]
    assert psnr_over_frames(psnr(noisy, clean)) == pytest.approx(at_once, abs=1e-5)
    assert psnr(noisy, clean).mean() > at_once + 20


def test_sixteen_bits_measure_like_eight(pair):
    noisy, clean = (frames.astype(np.uint16) * 257 for frames in pair)
    np.testing.assert_allclose(psnr(noisy, clean), psnr(*pair), rtol=1e-5)
    np.testing.assert_allclose(ssim(noisy, clean), ssim(*pair), atol=1e-6)


def test_real_frames_measure_as_scikit_image_measures_them(photographs):
    pairs = list(zip(*photographs, strict=True))
    expected = [peak_signal_noise_ratio(b, a) for a, b in pairs]
    np.testing.assert_allclose(psnr(*photographs), expected, atol=1e-4)
    settings = {"gaussian_weights": True, "use_sample_covariance": False, "data_range": 255}
    expected = [structural_similarity(b, a, channel_axis=-1, **settings) for a, b in pairs]
    np.testing.assert_allclose(ssim(*photographs), expected, atol=1e-4)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the program ffmpeg")
def test_real_frames_measure_as_the_filter_of_ffmpeg_measures_them(photographs, tmp_path):
    """Its PSNR; its SSIM is of another kind, over blocks of 8x8."""
    height, width = photographs[1].shape[1:3]
    inputs = []
    for name, frames in zip("ab", photographs, strict=True):
        (tmp_path / name).write_bytes(frames[:2].tobytes())
        inputs += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
        inputs += ["-i", str(tmp_path / name)]
    graph = "[0:v]format=gbrp[a];[1:v]format=gbrp[b];[a][b]psnr"
    command = ["ffmpeg", "-nostdin", *inputs, "-filter_complex", graph, "-f", "null", "-"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    found = re.search(r"average:([0-9.]+)", said)
    expected = psnr_over_frames(psnr(*photographs)[:2])
    assert float(found[1]) == pytest.approx(expected, abs=1e-4)
