"""What holds of the student that was embedded before alone."""

import torch

from instantvir_models.students.base import Conditioning
from tests.models import test_embedded_students as laws
from tests.models.test_embedded_students import moving_clip
from tests.models.test_embedded_students import random_tiny as random_student


def conditioned(x, noise_std=0.1):
    return laws.conditioned(random_student(), x, noise_std)


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
def test_memory_and_positions_stay_bounded():
    student = random_student()
    state = student.new_state()
    block = conditioned(moving_clip(3, 16, 24))
    for _ in range(60):
        student.restore_block(block, state)
    assert len(state.cache) == 3 * 3 * student.config.window**2
    assert 0 <= state.next_frame < 64


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
