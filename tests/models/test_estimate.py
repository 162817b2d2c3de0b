"""What is read off a video is close to what was done to it, and a clean video is left in peace."""

import cv2
import numpy as np
import pytest
import torch

from instantvir_models.media import to_uint8, to_unit
from instantvir_models.media.round_trip import h264_round_trip
from instantvir_models.operators.blur import GaussianBlur
from instantvir_models.operators.estimate import (
    estimate_blur_sigma,
    estimate_mask,
    estimate_noise_std,
)
from instantvir_models.operators.measurement import LEVEL


@pytest.fixture(scope="module")
def clip():
    """uint8 [4, 192, 256, 3] with a 1/f spectrum, as natural pictures have, a calm part and a square."""
    rng = np.random.default_rng(0)
    v, u = np.fft.fftfreq(192)[:, None], np.fft.rfftfreq(256)[None]
    amplitude = 1 / np.maximum(np.hypot(u, v), 1 / 256)
    channels = []
    for _ in range(3):
        phase = np.exp(2j * np.pi * rng.random(amplitude.shape))
        channel = np.fft.irfft2(amplitude * phase, s=(192, 256))
        channels.append(128 + 40 * channel / channel.std())
    picture = np.stack(channels, -1).clip(8, 247)
    picture[:, 170:] = cv2.GaussianBlur(picture, (0, 0), 12)[:, 170:]
    clips = np.stack([picture] * 4)
    for t in range(4):
        clips[t, 40:90, 30 + 4 * t : 90 + 4 * t] = (200, 60, 90)
    return clips.round().astype(np.uint8)


def noisy(clip, levels):
    x = to_unit(clip)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return to_uint8(x + levels * LEVEL * noise)


@pytest.mark.parametrize("levels", [5, 10, 25, 50])
def test_noise_is_found(clip, levels):
    found = estimate_noise_std(noisy(clip, levels))
    assert found.value / LEVEL == pytest.approx(levels, rel=0.15)
    assert found.std > 0


def test_texture_is_not_noise(clip):
    assert estimate_noise_std(clip).value / LEVEL < 2.5


def test_sixteen_bits_give_the_same_answer(clip):
    eight = estimate_noise_std(noisy(clip, 10))
    sixteen = estimate_noise_std(noisy(clip, 10).astype(np.uint16) * 257)
    assert sixteen.value == pytest.approx(eight.value, rel=1e-4)


@pytest.mark.parametrize("sigma", [1.6, 3.0, 4.5])
@pytest.mark.parametrize("levels", [0, 2.55])
def test_blur_is_found(clip, sigma, levels):
    blurred = to_uint8(GaussianBlur(sigma).A(to_unit(clip)))
    found = estimate_blur_sigma(noisy(blurred, levels), levels * LEVEL)
    assert found.value == pytest.approx(sigma, rel=0.25)


@pytest.mark.parametrize("sigma", [1.5, 3.0, 4.5])
def test_blur_is_found_behind_the_noise_of_a_codec(clip, sigma):
    # codec noise is not white; taken for picture, it made every blurred file look sharp
    blurred = to_uint8(GaussianBlur(sigma).A(to_unit(clip)))
    coded = h264_round_trip(noisy(blurred, 2.55), crf=18)
    found = estimate_blur_sigma(coded, estimate_noise_std(coded).value)
    assert found.value == pytest.approx(sigma, rel=0.25)


def test_a_sharp_video_is_not_called_blurred(clip):
    assert estimate_blur_sigma(clip, 0.0).value == 0.0
    coded = h264_round_trip(clip, crf=18)
    assert estimate_blur_sigma(coded, estimate_noise_std(coded).value).value < 1


@pytest.mark.parametrize("hole", [0, 128, 255])
def test_a_fixed_mask_is_found(clip, hole):
    known = np.random.default_rng(1).random(clip.shape[1:3]) > 0.5
    found = estimate_mask(np.where(known[None, ..., None], clip, np.uint8(hole)))
    assert not found.per_frame
    agreement = (found.mask[0, 0].numpy() == known).mean()
    assert agreement > 0.97
    assert found.missing_fraction == pytest.approx(0.5, abs=0.05)


def test_masks_that_change_are_told_apart(clip):
    known = np.random.default_rng(1).random(clip.shape[:3]) > 0.3
    found = estimate_mask(np.where(known[..., None], clip, np.uint8(0)))
    assert found.per_frame
    assert found.missing_fraction == pytest.approx(0.3, abs=0.05)


def test_ordinary_and_letterboxed_videos_miss_nothing(clip):
    assert estimate_mask(clip).missing_fraction == 0
    boxed = clip.copy()
    boxed[:, :24] = boxed[:, -24:] = 0
    found = estimate_mask(boxed)
    assert found.missing_fraction == 0
    assert found.mask.all()


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (16, 16)])
def test_tiny_frames_do_not_break_anything(size):
    frames = np.zeros((2, *size, 3), np.uint8)
    assert np.isfinite(estimate_noise_std(frames).value)
    assert np.isfinite(estimate_blur_sigma(frames, 0.0).value)
    assert estimate_mask(frames).mask.shape[-2:] == size
