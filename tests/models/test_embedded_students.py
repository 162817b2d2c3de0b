"""Laws of every student in the package: causality, streaming == whole sequence, any size."""

import pytest
import torch

from instantvir_models.operators.compose import Identity
from instantvir_models.operators.measurement import Degradation, degrade
from instantvir_models.students.base import condition
from instantvir_models.students.fused import FusedConfig, FusedStudent
from instantvir_models.students.tiled import TiledStudent
from instantvir_models.students.tiny import TinyConfig, TinyStudent


def random_fused() -> FusedStudent:
    """A small student whose every layer does something."""
    torch.manual_seed(0)
    student = FusedStudent(FusedConfig(fine_channels=16, coarse_channels=16, bottom_channels=32))
    for layer in (student.head, student.film.out, student.head_error.out):
        torch.nn.init.normal_(layer.weight, std=0.1)
    return student.eval()


def random_tiny() -> TinyStudent:
    """Likewise the one that was embedded before."""
    torch.manual_seed(0)
    config = TinyConfig(
        fine_channels=16, state_channels=8, coarse_channels=16, coarse_layers=2, bottom_channels=32,
        num_heads=2,
    )  # fmt: skip
    student = TinyStudent(config)
    for layer in (student.head, student.attention.out, student.film.out):
        torch.nn.init.normal_(layer.weight, std=0.1)
    return student.eval()


@pytest.fixture(params=[random_fused, random_tiny], ids=["fused", "tiny"])
def student(request):
    return request.param()


def moving_clip(frames, height, width, speed=1):
    """[1, T, 3, H, W]: a pattern that moves `speed` pixels a frame."""
    generator = torch.Generator().manual_seed(1)
    travel = speed * frames
    coarse = torch.rand(1, 3, height // 4 + 2, (width + travel) // 4 + 2, generator=generator)
    size = (height, width + travel)
    wide = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear") * 1.2 - 0.6
    return torch.stack([wide[..., speed * t : speed * t + width] for t in range(frames)], 1)


def conditioned(student, x, noise_std=0.1):
    generator = torch.Generator().manual_seed(2)
    degradation = Degradation(operator=Identity(), noise_std=noise_std)
    return condition(degrade(x, degradation, generator=generator), student.capabilities.traits)


@torch.inference_mode()
@pytest.mark.parametrize("num_frames", [1, 2, 3, 4, 8, 9])
def test_streaming_equals_the_whole_sequence(student, num_frames):
    whole = conditioned(student, moving_clip(num_frames, 40, 72))
    expected = student.restore_sequence(whole).x_hat
    state, parts = student.new_state(), []
    for first in range(0, num_frames, 3):
        block = whole.during(slice(first, min(first + 3, num_frames)))
        parts.append(student.restore_block(block, state).x_hat)
    torch.testing.assert_close(torch.cat(parts, 1), expected, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_a_later_block_changes_nothing_before_it(student):
    x = moving_clip(9, 40, 72)
    before = student.restore_sequence(conditioned(student, x)).x_hat
    x[:, 6:] = -0.9
    after = student.restore_sequence(conditioned(student, x)).x_hat
    torch.testing.assert_close(after[:, :6], before[:, :6], rtol=0, atol=0)
    assert not torch.allclose(after[:, 6:], before[:, 6:])


@torch.inference_mode()
@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 40), (7, 5), (16, 16), (33, 17), (20, 130), (40, 8)]
)
def test_any_size_goes_in_and_comes_out(student, height, width):
    estimate = student.restore_sequence(conditioned(student, torch.rand(1, 4, 3, height, width)))
    assert estimate.x_hat.shape == (1, 4, 3, height, width)
    assert torch.isfinite(estimate.x_hat).all()
    assert torch.isfinite(estimate.std).all()


@torch.inference_mode()
def test_tiles_leave_no_seam(student):
    """A tile's halo covers what the network sees; what is left comes from flow at tile borders."""
    whole = conditioned(student, moving_clip(3, 150, 200))
    expected = student.restore_sequence(whole).x_hat
    tiled = TiledStudent(student, tile_pixels=64)
    difference = (tiled.restore_block(whole, tiled.new_state()).x_hat - expected).abs()
    assert difference.mean() < 0.02 * expected.std()
    assert difference[..., 60:68].mean() < 2 * difference.mean() + 1e-4
