"""How steady a video is, and whether it explains its measurement."""

import numpy as np
import pytest
import torch

from instantvir_models.media import to_uint8, to_unit
from instantvir_models.metrics.consistency import residual_over_noise
from instantvir_models.metrics.steadiness import block_jump, warping_error
from instantvir_models.operators.mask import Mask
from instantvir_models.operators.measurement import Degradation, Measurement, degrade


@pytest.fixture
def moving():
    """Smooth waves that move by two pixels a frame."""
    y, x = np.mgrid[0:64, 0:96].astype(np.float32)
    frames = [
        np.stack([np.sin((x + 2 * t) / (5 + c)) * np.cos(y / (7 - c)) for c in range(3)], -1)
        for t in range(6)
    ]
    return (128 + 90 * np.stack(frames)).astype(np.uint8)


def test_what_moves_with_the_video_is_steady_and_flicker_is_not(moving):
    assert warping_error(moving, moving).max() < 3
    flickering = moving.copy()
    flickering[3] += 10
    found = warping_error(flickering, moving)
    assert found[2] > 8
    assert found[3] > 8
    assert found[0] < 3


def test_a_constant_shift_is_steady(moving):
    np.testing.assert_allclose(
        warping_error(moving - np.uint8(20), moving), warping_error(moving, moving), atol=0.02
    )


def test_a_jump_at_the_end_of_a_block_is_seen(moving):
    jumping = moving.copy()
    jumping[3:] += 6
    assert block_jump(jumping, moving, 3) == pytest.approx(6)
    assert block_jump(moving, moving, 3) == 0
    assert block_jump(moving, moving, 6) is None
    with pytest.raises(ValueError, match="a frame or more"):
        block_jump(moving, moving, 0)


@pytest.mark.parametrize("noise_std", [0.0, 0.1])
def test_the_truth_leaves_what_noise_explains(moving, noise_std):
    mask = Mask(
        (torch.rand(1, 1, 64, 96, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    )
    x = to_unit(moving)
    degradation = Degradation(operator=mask, noise_std=noise_std)
    y = to_unit(to_uint8(degrade(x, degradation, generator=torch.Generator().manual_seed(1)).y))
    found = residual_over_noise(x, Measurement(y, degradation))
    assert found.shape == (6,)
    np.testing.assert_allclose(found, 0.0 if noise_std == 0 else 1.0, atol=0.06)
