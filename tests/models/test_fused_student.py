"""What holds of the fused student alone: colour, fusion over time, what it does to a measurement."""

import numpy as np
import pytest
import torch

from instantvir_models.checkpoints.load import load_student
from instantvir_models.media import to_uint8, to_unit
from instantvir_models.media.round_trip import h264, round_trip
from instantvir_models.operators.blur import GaussianBlur, UnsharpMask
from instantvir_models.operators.compose import Composition, Identity
from instantvir_models.operators.downsample import Downsample
from instantvir_models.operators.mask import Mask
from instantvir_models.operators.measurement import LEVEL, Degradation, Measurement, degrade, stored
from instantvir_models.run.session import Session
from instantvir_models.solvers.amortised import Amortised
from instantvir_models.solvers.base import Window
from instantvir_models.solvers.own_doubt import as_far_as_sure
from instantvir_models.students import base, fusion
from instantvir_models.students.base import Conditioning
from instantvir_models.students.clipping import clipped_mean, unclipped_mean
from instantvir_models.students.fused import TRAITS, FusedConfig, FusedStudent
from instantvir_models.students.fusion import local_mean, mean_around
from tests.models.test_embedded_students import moving_clip
from tests.models.test_embedded_students import random_fused as random_student
from tests.models.test_session import moving_frames


def condition(measurement):
    return base.condition(measurement, TRAITS)


def measured(x, operator=None, noise_std=0.1):
    generator = torch.Generator().manual_seed(2)
    degradation = Degradation(operator=operator or Identity(), noise_std=noise_std)
    return degrade(x, degradation, generator=generator)


def conditioned(x, noise_std=0.1):
    return condition(measured(x, noise_std=noise_std))


def scattered_holes(frames, height, width):
    known = torch.rand(frames, 1, height, width, generator=torch.Generator().manual_seed(3)) < 0.5
    return Mask(known.float())


OPERATORS = {
    "denoise": Identity(),
    "inpaint": scattered_holes(3, 48, 64),
    "deblur": GaussianBlur(1.6),
    "sr x2": Downsample(2, "area"),
    "sr x4": Downsample(4, "bicubic"),
    "both": Composition([GaussianBlur(1.0), Downsample(2, "area")]),
}


DENOISED = Degradation(operator=Identity(), noise_std=0.1)


@torch.inference_mode()
@pytest.mark.parametrize("task", OPERATORS)
def test_a_colour_added_to_every_frame_is_added_to_the_result(task):
    """Saturated colours came out at 4 to 15 dB."""
    student = random_student()
    colour = torch.tensor([0.4, -0.3, 0.2])[:, None, None]
    x = moving_clip(3, 48, 64)
    measurement = measured(x, OPERATORS[task], noise_std=5 * LEVEL)
    shifted = measured(x + colour, OPERATORS[task], noise_std=5 * LEVEL)
    before = student.restore_sequence(condition(measurement))
    after = student.restore_sequence(condition(shifted))
    torch.testing.assert_close(after.x_hat, before.x_hat + colour, rtol=0, atol=5e-3)
    torch.testing.assert_close(after.std, before.std, rtol=1e-2, atol=0)


@torch.inference_mode()
def test_a_branch_of_its_own_enlarges_by_four():
    torch.manual_seed(0)
    config = FusedConfig(
        fine_channels=16, coarse_channels=16, bottom_channels=16, enlarger_layers=1
    )
    student = FusedStudent(config).eval()
    torch.nn.init.normal_(student.enlarger.head.weight, std=0.1)
    colour = torch.tensor([0.4, -0.3, 0.2])[:, None, None]
    x = moving_clip(4, 44, 68)
    for by_four in (Downsample(4, "area"), Composition([GaussianBlur(1), Downsample(4, "area")])):
        block = condition(measured(x, by_four, noise_std=0.0))
        assert student.start(block, student.new_state()).y_small is not None
        estimate = student.restore_sequence(block)
        assert estimate.x_hat.shape == x.shape
        shifted = condition(measured(x + colour, by_four, noise_std=0.0))
        after = student.restore_sequence(shifted).x_hat
        torch.testing.assert_close(after, estimate.x_hat + colour, rtol=0, atol=5e-3)
    by_two = condition(measured(x, Downsample(2, "area"), noise_std=0.0))
    assert student.start(by_two, student.new_state()).y_small is None


@torch.inference_mode()
def test_flat_frames_of_any_colour_stay_what_they_are():
    student = random_student()
    for colour in ((1, -1, -1), (-1, -1, 1), (1, 1, 1), (0.2, -0.9, 0.7)):
        x = torch.tensor(colour).float()[:, None, None].expand(1, 3, 3, 40, 40)
        block = condition(Measurement(x, Degradation(operator=Identity(), noise_std=0.0)))
        x_hat = student.restore_sequence(block).x_hat
        assert (x_hat - x).abs().max() < 2 * LEVEL


@torch.inference_mode()
def test_a_new_state_begins_anew():
    student = random_student()
    block = conditioned(moving_clip(3, 40, 72))
    state = student.new_state()
    first = student.restore_block(block, state).x_hat
    again = student.restore_block(block, state).x_hat
    assert not torch.equal(first, again)
    torch.testing.assert_close(
        student.restore_block(block, student.new_state()).x_hat, first, rtol=0, atol=0
    )


@torch.inference_mode()
@pytest.mark.parametrize("part", [slice(0, 1), slice(2, 3)])
def test_a_frame_learns_from_the_frames_beside_it(part):
    student = random_student()
    whole = conditioned(moving_clip(3, 40, 72))
    before = student.restore_sequence(whole).x_hat
    whole.x_init[:, part] += 0.05 * torch.randn(whole.x_init[:, part].shape)
    after = student.restore_sequence(whole).x_hat
    assert not torch.allclose(after[:, 1], before[:, 1])


@torch.inference_mode()
def test_memory_stays_bounded():
    student = random_student()
    state = student.new_state()
    block = conditioned(moving_clip(3, 16, 24))
    for _ in range(60):
        student.restore_block(block, state)
    assert [belief.mean.shape for belief in state.past] == [(3, 16, 24)]
    assert state.past[0].variance.min() > 0


@torch.inference_mode()
def test_fusing_takes_noise_away_along_the_motion():
    """Not learned: six frames of a moving pattern are worth more than one."""
    x = moving_clip(6, 64, 96)
    block = conditioned(x, noise_std=0.1)
    student = random_student()
    start = student.start(block, student.new_state())
    noisy = (start.x_init - x[0]).square().mean()
    fused = (start.x_bar - x[0])[3:].square().mean()
    assert fused < 0.4 * noisy


@torch.inference_mode()
def test_fusing_leaves_a_cut_alone():
    before, after = moving_clip(3, 64, 96), -moving_clip(3, 64, 96).flip(-2)
    block = conditioned(torch.cat([before, after], 1), noise_std=0.02)
    student = random_student()
    start = student.start(block, student.new_state())
    assert (start.x_bar - start.x_init)[3].square().mean() < 0.02**2


def test_on_a_device_its_network_waits_for_nothing():
    """What asks a tensor for its value makes the host wait for the card; the meta device has none."""
    student = random_student().for_device(torch.device("meta"))
    small = random_student()
    for operator in OPERATORS.values():
        block = condition(measured(moving_clip(3, 48, 64), operator))
        (whole,) = student._parts(small.start(block, small.new_state()))
        refined = student.refine(whole)
        assert refined.x_hat.shape == (3, 3, 48, 64)
        assert refined.x_hat.device.type == "meta"
    assert small.device.type == "cpu"


def test_on_a_device_averaging_over_time_waits_for_the_pictures_of_the_flow_alone(monkeypatch):
    def flow_guide(mean):
        return np.zeros((mean.shape[-2] // 2, mean.shape[-1] // 2), np.uint8)

    monkeypatch.setattr(fusion, "flow_guide", flow_guide)
    student = random_student()
    block = vars(conditioned(moving_clip(3, 48, 64)))
    there = Conditioning(**{n: t if t is None else t.to("meta") for n, t in block.items()})
    state = student.new_state()
    for _ in range(2):
        start = student.start(there, state)
        assert start.x_bar.shape == (3, 3, 48, 64)
        assert start.x_bar.device.type == start.variance.device.type == "meta"


@pytest.mark.parametrize("side", [1, 3, 9, 13])
@pytest.mark.parametrize("size", [(1, 1), (9, 20)])
def test_means_around_a_pixel_are_those_of_its_square(side, size):
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wide = torch.nn.functional.pad(x, (side // 2,) * 4, mode="replicate")
    squares = wide.unfold(-2, side, 1).unfold(-2, side, 1)
    torch.testing.assert_close(mean_around(x, side), squares.mean((-2, -1)))


def test_every_weight_learns():
    student = random_student().train()
    block = conditioned(moving_clip(3, 32, 32))
    refined = student.refine(student.start(block, student.new_state()))
    (refined.x_hat.square().mean() + refined.variance.sum()).backward()
    silent = [n for n, p in student.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@torch.inference_mode()
@pytest.mark.parametrize(
    ("operator", "noise_std", "is_lossy", "is_final"),
    [
        (Identity(), 0.05, False, True),
        (Identity(), 0.0, True, True),
        (Identity(), 0.0, False, False),
        (scattered_holes(3, 32, 32), 0.05, False, True),
        (scattered_holes(3, 32, 32), 0.0, False, False),
        (GaussianBlur(1.0), 0.05, False, False),
    ],
)
def test_what_it_was_shown_with_its_noise_is_not_weighed_twice(
    operator, noise_std, is_lossy, is_final
):
    """Consistency brought back a part of what a codec had added, and of noise."""
    student = random_student()
    degradation = Degradation(operator=operator, noise_std=noise_std, is_lossy=is_lossy)
    measurement = degrade(moving_clip(3, 32, 32), degradation)
    assert student.restore_sequence(condition(measurement)).is_final == is_final

    window = Window.whole(measurement)
    solver = Amortised(student, dtype=torch.float32)
    restored = solver.restore_block(window, solver.new_state()).x
    estimate = student.restore_sequence(condition(measurement))
    assert torch.equal(restored, as_far_as_sure(estimate, window).x_hat) == is_final


@torch.inference_mode()
def test_what_is_far_around_is_seen():
    """A shade that changes over 60 pixels was invisible: the mean over 24 was taken away."""
    student = random_student()
    torch.nn.init.normal_(student.head_mean.weight, std=0.1)
    x = torch.zeros(1, 3, 3, 160, 160)
    far = x.clone()
    far[..., 32:] += 0.2
    before, after = (
        student.restore_sequence(condition(Measurement(y, DENOISED))).x_hat for y in (x, far)
    )
    near = (..., slice(0, 12))  # beyond the mean of any pixel there
    assert not torch.allclose(after[near], before[near], atol=1e-6)


def test_the_local_mean_of_a_constant_is_the_constant():
    x = torch.full((1, 3, 16, 24), 0.7)
    torch.testing.assert_close(local_mean(x), x)


def test_a_block_of_one_frame_is_that_frame():
    student = random_student()
    start = student.start(conditioned(torch.rand(1, 1, 3, 16, 16)), student.new_state())
    torch.testing.assert_close(start.x_bar, start.x_init)


def test_what_clipping_did_to_the_mean_is_undone():
    x = torch.linspace(-0.99, 0.99, 40)[None].repeat(3, 1)
    noise_std = torch.tensor([0.02, 0.2, 0.4])
    generator = torch.Generator().manual_seed(0)
    noisy = x[..., None] + noise_std[:, None, None] * torch.randn(3, 40, 20000, generator=generator)
    mean = noisy.clamp(-1, 1).mean(-1)
    torch.testing.assert_close(clipped_mean(x, noise_std[:, None]), mean, rtol=0, atol=0.01)
    torch.testing.assert_close(unclipped_mean(mean, noise_std), x, rtol=0, atol=0.02)
    torch.testing.assert_close(unclipped_mean(x, torch.zeros(3)), x, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_black_stays_black_under_noise():
    """Noise cannot go below black, and its mean came out as a veil."""
    student = random_student()
    torch.nn.init.zeros_(student.head.weight)
    x = torch.full((1, 3, 3, 64, 64), -1.0)
    y = stored(measured(x, noise_std=0.2).y)
    block = condition(Measurement(y, Degradation(operator=Identity(), noise_std=0.2)))
    assert (y + 1).mean() > 0.07
    assert (student.restore_sequence(block).x_hat + 1).mean().abs() < 0.02


@torch.inference_mode()
def test_a_pixel_between_holes_stays_near_what_was_measured():
    """Seen at half size beside holes, some came out three times the noise away."""
    student = random_student()
    torch.nn.init.normal_(student.head.weight, std=1.0)
    noise_std = 0.02
    measurement = measured(moving_clip(3, 32, 32), scattered_holes(3, 32, 32), noise_std=noise_std)
    block = condition(measurement)
    made = student.refine(student.start(block, student.new_state())).x_hat[None]
    off = (made - block.y_view)[block.known.expand(-1, -1, 3, -1, -1) > 0]
    assert noise_std < off.abs().max() < 1.6 * noise_std


def test_what_a_codec_added_is_never_sharpened_as_if_it_were_picture():
    """A sharp blur in H.264, told no noise, came out 10 dB below its input."""
    x = to_unit(moving_frames(6, 96, 128))
    blur = GaussianBlur(2.5)
    y = round_trip(to_uint8(blur.A(x)), h264(20))
    degradation = Degradation(operator=blur, noise_std=0.0, is_lossy=True)
    session = Session(Amortised(load_student().student), degradation, height=96, width=128)
    restored = to_unit(np.concatenate([session.push(y), session.flush()]))

    def error(a):
        return float((a - x).square().mean())

    assert error(restored) < error(to_unit(y))


@pytest.mark.parametrize("operator", [Identity(), None], ids=["noise", "noisy holes"])
def test_a_batch_is_its_members_and_learns(operator):
    """The second member had no past in the first block; and what was computed without gradients before
    was kept for those that want some."""
    student = random_student()
    operator = operator or scattered_holes(3, 32, 32)
    x = torch.cat([moving_clip(3, 32, 32), moving_clip(3, 32, 32, speed=2)])
    measurement = measured(x, operator)
    with torch.inference_mode():
        each = [
            student.restore_sequence(
                condition(Measurement(measurement.y[b : b + 1], measurement.degradation))
            ).x_hat
            for b in range(2)
        ]
    both = student.restore_sequence(condition(measurement))
    assert torch.allclose(both.x_hat, torch.cat(each), atol=1e-6)
    both.x_hat.square().mean().backward()
    assert student.head.weight.grad.abs().sum() > 0


class Halved(Identity):
    """An operator of somebody's own, of which a student is told nothing."""

    spec = "halved"
    only_selects = False
    is_identity = False

    def A(self, x):
        return x / 2

    def A_adjoint(self, y):
        return y / 2


@torch.inference_mode()
@pytest.mark.parametrize("operator", [UnsharpMask(1.2, 1.2), Halved()], ids=["sharpened", "own"])
def test_what_is_no_look_at_the_picture_is_not_taken_for_one(operator):
    """A result was blended with the sharpened video, as if that were the picture and noise."""
    student = load_student().student
    x = moving_clip(3, 48, 64)
    measurement = measured(x, operator, noise_std=0.04)
    block = condition(measurement)
    assert torch.equal(block.y_view, block.x_init)
    error = (student.restore_sequence(block).x_hat - x).square().mean()
    assert error < 1.05 * (block.x_init - x).square().mean()
    assert not student.capabilities.seen.covers(measurement.degradation)
