"""What a student says of itself, and what follows from it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from instantvir_models.checkpoints.load import load_student, save_student
from instantvir_models.errors import CheckpointError
from instantvir_models.operators.blur import GaussianBlur, PointSpread, rotated_gaussian
from instantvir_models.operators.measurement import LEVEL, Degradation, degrade
from instantvir_models.operators.spec import ClipShape, parse_degradation
from instantvir_models.run.session import Session
from instantvir_models.solvers.amortised import Amortised
from instantvir_models.solvers.classical.initial import InitialEstimate
from instantvir_models.students.base import Estimate, condition
from instantvir_models.students.capabilities import Seen
from instantvir_models.students.tiny import SEEN, TRAITS, TinyConfig, TinyStudent
from tests.live_tools import small_student
from tests.models.test_session import moving_frames
from tests.wan_small import small_student as small_wan

SHAPE = ClipShape(num_frames=3, height=24, width=40)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("identity+noise:std=50", True),
        ("identity+noise:std=70", False),
        ("blur:sigma=5", True),
        ("blur:sigma=6", False),
        ("blur:sigma=3,sigma_short=3,angle=0", True),  # the same Gaussian, written as a kernel
        ("blur:sigma=3,sigma_short=2,angle=0", False),
        ("blur:sigma_y=3,sigma_x=1", False),
        ("temporal:size=3", False),
        ("down:factor=4,kernel=bicubic", True),
        ("down:factor=8", False),
        ("blur:sigma=1.5+down:factor=2", True),
        ("blur:sigma=3+down:factor=2", False),
        ("mask:keep=0.5+noise:std=5", True),
        ("blur:sigma=2+mask:keep=0.5", False),
    ],
)
def test_the_embedded_student_knows_what_it_has_seen(spec, expected):
    degradation = parse_degradation(spec, shape=SHAPE)
    assert SEEN.covers(degradation) is expected
    doubts = Amortised(load_student().student).doubts(degradation)
    assert len(doubts) == (not expected)
    assert all(degradation.spec in doubt for doubt in doubts)


def test_one_gaussian_written_two_ways_departs_from_itself_alike():
    kernel = PointSpread(rotated_gaussian(4, 1, 0), spec="x").traits
    formula = GaussianBlur(1, 4).traits
    assert kernel.blur_departure == pytest.approx(formula.blur_departure, abs=1e-3)
    assert 0.2 < kernel.blur_departure < 1
    assert PointSpread(rotated_gaussian(2, 2, 0), spec="x").traits.blur_departure < 0.005


class Contrary(TinyStudent):
    """Says that everything is white, and is sure of it."""

    def restore_block(self, block, state):
        x = torch.ones_like(block.x_init)
        return Estimate(x, x.new_full((1,), 1e-4))


UNSEEN = Degradation(operator=GaussianBlur(2, 1), noise_std=0.02)


def restored(solver, degradation, frames):
    session = Session(solver, degradation, height=frames.shape[1], width=frames.shape[2])
    return np.concatenate([session.push(frames), session.flush()]), session.report


@pytest.mark.parametrize("operator", [GaussianBlur(2, 1), GaussianBlur(2)], ids=["unseen", "seen"])
def test_what_contradicts_the_measurement_is_replaced_and_counted(operator):
    degradation = replace(UNSEEN, operator=operator)
    frames, contrary = moving_frames(7), Amortised(Contrary(TinyConfig()))
    shown, report = restored(contrary, degradation, frames)
    expected, _ = restored(InitialEstimate(), degradation, frames)
    np.testing.assert_array_equal(shown, expected)
    assert report.frames_guarded == report.frames_replaced == 7
    assert [each.replaced for each in report.guarded] == [1.0] * 7


def test_of_the_unseen_what_noise_explains_stays():
    """The initial estimate explains the noise too, which is not to have restored better."""

    class Truthful(TinyStudent):
        def restore_block(self, block, state):
            return Estimate(torch.zeros_like(block.x_init), block.x_init.new_full((1,), 1e-3))

    rng = np.random.default_rng(0)
    noisy = (127.5 + rng.normal(0, 10, (3, 24, 40, 3))).round().astype(np.uint8)
    degradation = replace(UNSEEN, noise_std=10 * LEVEL)
    _, report = restored(Amortised(Truthful(TinyConfig())), degradation, noisy)
    assert report.frames_guarded == 0


def test_what_a_student_has_seen_and_is_told_lies_in_its_file(tmp_path):
    seen = Seen(operators=({"temporal_sigma": (0, 2)},), noise_levels=(1, 5))
    config = replace(small_student().config, traits=("noise_std", "temporal_sigma"))
    student = TinyStudent(config, seen=seen)
    save_student(student, tmp_path / "own.safetensors")
    able = load_student(str(tmp_path / "own.safetensors")).student.capabilities
    assert (able.seen, able.traits) == (seen, config.traits)


def test_a_new_trait_orphans_no_weights_and_one_that_is_gone_is_zero():
    measurement = degrade(torch.zeros(1, 1, 3, 8, 8), UNSEEN)
    told = condition(measurement, ["blur_departure", "noise_std", "of another time"]).traits
    assert told[0].tolist() == pytest.approx([UNSEEN.operator.traits.blur_departure, 0.2, 0.0])
    assert load_student().student.config.traits == TRAITS
    assert len(TRAITS) == 14


def test_a_file_that_says_nonsense_about_itself_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    path = tmp_path / "own.safetensors"
    save_student(small_student(), path)
    tensors = load_file(path)
    for metadata in ({"config": '{"traits": [1]}'}, {"config": "{}", "seen": "[]"}):
        save_file(tensors, path, {"format": "instantvir-tiny", **metadata})
        with pytest.raises(CheckpointError):
            load_student(str(path))


@torch.inference_mode()
def test_a_full_size_student_restores_a_sequence_as_its_blocks():
    student = small_wan("lean", window_latents=21)
    x = torch.rand(1, 21, 3, 16, 32, generator=torch.Generator().manual_seed(0))
    whole = condition(degrade(x, Degradation(operator=GaussianBlur(1), noise_std=0.0)))
    state = student.new_state()
    blocks = [
        student.restore_block(whole.during(frames), state).x_hat
        for frames in (slice(0, 9), slice(9, 21))
    ]
    sequence = student.restore_sequence(whole).x_hat
    torch.testing.assert_close(sequence, torch.cat(blocks, 1), rtol=1e-3, atol=1e-3)
