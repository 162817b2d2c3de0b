"""Laws of the embedded student: causality, streaming == whole sequence, any size."""

import pytest
import torch

from instantvir_models.operators.compose import Identity
from instantvir_models.operators.measurement import Degradation, degrade
from instantvir_models.students.base import Conditioning, condition
from instantvir_models.students.tiled import TiledStudent
from instantvir_models.students.tiny import TRAITS, TinyConfig, TinyStudent


def random_student(**changes) -> TinyStudent:
    """A small student whose every layer does something."""
    torch.manual_seed(0)
    config = TinyConfig(
        fine_channels=16, state_channels=8, coarse_channels=16, coarse_layers=2,
        bottom_channels=32, num_heads=2, **changes,
    )  # fmt: skip
    student = TinyStudent(config).eval()
    for layer in (student.head, student.attention.out, student.film.out):
        torch.nn.init.normal_(layer.weight, std=0.1)
    return student


def moving_clip(frames, height, width):
    """[1, T, 3, H, W]: a smooth pattern that moves one pixel a frame."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(1, 3, height // 8 + 2, (width + frames) // 8 + 2, generator=generator)
    size = (height, width + frames)
    wide = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear") * 2 - 1
    return torch.stack([wide[..., t : t + width] for t in range(frames)], 1)


def conditioned(x, noise_std=0.1):
    generator = torch.Generator().manual_seed(2)
    return condition(
        degrade(x, Degradation(operator=Identity(), noise_std=noise_std), generator=generator),
        TRAITS,
    )


def part(whole, frames):
    return Conditioning(
        whole.x_init[:, frames], whole.y_view[:, frames], whole.known[:, frames], whole.traits
    )


def in_blocks(student, whole, sizes):
    state = student.new_state()
    out, start = [], 0
    for size in sizes:
        out.append(student.restore_block(part(whole, slice(start, start + size)), state).x_hat)
        start += size
    return torch.cat(out, 1)


@torch.inference_mode()
@pytest.mark.parametrize("num_frames", [1, 2, 3, 4, 8, 9])
def test_streaming_equals_the_whole_sequence(num_frames):
    student = random_student()
    whole = conditioned(moving_clip(num_frames, 40, 72))
    sizes = [3] * (num_frames // 3) + ([num_frames % 3] if num_frames % 3 else [])
    expected = student.restore_sequence(whole).x_hat
    torch.testing.assert_close(in_blocks(student, whole, sizes), expected, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_a_later_block_changes_nothing_before_it():
    student = random_student()
    x = moving_clip(9, 40, 72)
    before = student.restore_sequence(conditioned(x)).x_hat
    x[:, 6:] = -0.9
    after = student.restore_sequence(conditioned(x)).x_hat
    torch.testing.assert_close(after[:, :6], before[:, :6], rtol=0, atol=0)
    assert not torch.allclose(after[:, 6:], before[:, 6:])


@torch.inference_mode()
def test_inside_a_block_the_first_frame_sees_the_last():
    student = random_student()
    whole = conditioned(moving_clip(3, 40, 72))
    before = student.restore_sequence(whole).x_hat
    whole.x_init[:, 2] += 0.3
    after = student.restore_sequence(whole).x_hat
    assert not torch.allclose(after[:, 0], before[:, 0])


@torch.inference_mode()
def test_the_past_is_remembered_across_blocks():
    student = random_student()
    x = moving_clip(6, 40, 72)
    before = student.restore_sequence(conditioned(x)).x_hat
    x[:, :3] *= 0.5
    after = student.restore_sequence(conditioned(x)).x_hat
    assert not torch.allclose(after[:, 3:], before[:, 3:])


@torch.inference_mode()
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 5), (16, 16), (33, 17), (20, 130)])
def test_any_size_goes_in_and_comes_out(height, width):
    student = random_student()
    x_hat = student.restore_sequence(conditioned(torch.rand(1, 4, 3, height, width))).x_hat
    assert x_hat.shape == (1, 4, 3, height, width)
    assert torch.isfinite(x_hat).all()


@torch.inference_mode()
def test_memory_and_positions_stay_bounded():
    student = random_student()
    state = student.new_state()
    block = conditioned(moving_clip(3, 16, 24))
    for _ in range(60):
        student.restore_block(block, state)
    assert len(state.cache) == 3 * 3 * student.config.window**2
    assert 0 <= state.next_frame < 64


@torch.inference_mode()
def test_tiles_leave_no_seam():
    """A tile's halo covers what the network sees; what is left comes from flow at tile borders."""
    student = random_student()
    whole = conditioned(moving_clip(3, 150, 200))
    expected = student.restore_sequence(whole).x_hat
    tiled = TiledStudent(student, tile_pixels=64)
    actual = tiled.restore_block(whole, tiled.new_state()).x_hat
    difference = (actual - expected).abs()
    assert difference.mean() < 0.02 * expected.std()
    at_seam = difference[..., 60:68].mean()
    assert at_seam < 2 * difference.mean() + 1e-4


def test_every_weight_learns():
    student = random_student().train()
    whole = conditioned(moving_clip(6, 32, 32))
    estimate = student.restore_sequence(whole)
    (estimate.x_hat.square().mean() + estimate.std.sum()).backward()
    silent = [n for n, p in student.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_a_batch_equals_its_members():
    """Codes shared by a batch are folded into weights; codes of their own are not."""
    student = random_student()
    a, b = conditioned(moving_clip(3, 32, 32), 0.05), conditioned(-moving_clip(3, 32, 32), 0.2)
    both = Conditioning(
        *(
            torch.cat([getattr(a, f), getattr(b, f)])
            for f in ("x_init", "y_view", "known", "traits")
        )
    )
    with torch.inference_mode():
        together = student.restore_sequence(both)
        for i, one in enumerate((a, b)):
            alone = student.restore_sequence(one)
            torch.testing.assert_close(together.x_hat[i : i + 1], alone.x_hat, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(together.std[i : i + 1], alone.std)
