"""How far a restoration believes to be off, place by place: from the network to a video."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import instantvir
from instantvir_models.checkpoints.load import load_student
from instantvir_models.errors import UsageError
from instantvir_models.media import open_video
from instantvir_models.operators.compose import Identity
from instantvir_models.operators.measurement import LEVEL, Degradation, Measurement
from instantvir_models.run.error_video import STEPS_PER_LEVEL
from instantvir_models.run.session import Session
from instantvir_models.solvers.amortised import Amortised
from instantvir_models.solvers.classical.initial import InitialEstimate
from instantvir_models.students.base import condition
from tests.media_clips import picture, write_frames

NOISY = Degradation(operator=Identity(), noise_std=25 * LEVEL)


@pytest.fixture(scope="module")
def student():
    return load_student("tiny").student


def frames(count=3, width=72, height=56):
    """A still half and a noisy one are not expected to be off by the same."""
    rng = np.random.default_rng(0)
    clean = np.stack([picture(i, width, height) for i in range(count)])
    return (clean + 25 * rng.standard_normal(clean.shape)).round().clip(0, 255).astype(np.uint8)


def conditioned(student, width, height):
    y = torch.from_numpy(frames(width=width, height=height)).permute(0, 3, 1, 2)[None] / 127.5 - 1
    return condition(Measurement(y, NOISY), student.capabilities.traits)


def test_a_map_is_what_is_said_of_the_whole_place_by_place(student):
    shown = conditioned(student, 72, 56)
    with torch.no_grad():
        estimate = student.restore_block(shown, student.new_state())
    assert estimate.std_map.shape == (1, 3, 1, 14, 18)
    of_map = estimate.std_map.square().mean().sqrt()
    torch.testing.assert_close(of_map, estimate.std[0], rtol=1e-5, atol=0)
    assert estimate.std_map.std() > 0.02 * of_map


@pytest.mark.parametrize(("width", "height"), [(70, 50), (136, 72)])
def test_a_map_covers_frames_of_any_size_in_tiles_too(student, width, height):
    shown = conditioned(student, width, height)
    with torch.no_grad():
        whole = student.restore_block(shown, student.new_state())
        tiled = student.in_tiles(64)
        parts = tiled.restore_block(shown, tiled.new_state())
    cells = -(-height // 4), -(-width // 4)
    assert whole.std_map.shape[-2:] == parts.std_map.shape[-2:] == cells
    apart = (parts.std_map - whole.std_map).abs() / whole.std_map
    assert apart.mean() < 0.05
    assert parts.std_map.isfinite().all()


def test_a_session_gives_a_map_for_each_frame_and_the_same_frames(student):
    y = frames(5)

    def restored(*, keeps):
        session = Session(Amortised(student), NOISY, height=56, width=72)
        session.keeps_errors = keeps
        out, errors = [], []
        for frame in y:
            out.append(session.push(frame[None]))
            errors.append(session.taken_errors())
            assert len(errors[-1]) == (len(out[-1]) if keeps else 0)
        out.append(session.flush())
        errors.append(session.taken_errors())
        return np.concatenate(out), np.concatenate(errors)

    plain, none = restored(keeps=False)
    same, errors = restored(keeps=True)
    np.testing.assert_array_equal(plain, same)
    assert len(none) == 0
    assert errors.shape == (5, 56, 72)


def test_a_solver_that_tells_no_places_apart_is_off_by_the_same_everywhere():
    session = Session(InitialEstimate(), NOISY, height=56, width=72)
    session.keeps_errors = True
    session.push(frames(1))
    session.flush()
    errors = session.taken_errors()
    assert errors.min() == errors.max() == pytest.approx(InitialEstimate.std / LEVEL)


def test_tiles_that_the_guard_replaced_are_as_far_off_as_the_initial_estimate(student):
    class Wrong:
        """A student that draws something else into the left upper tile."""

        def __getattr__(self, name):
            return getattr(student, name)

        def restore_block(self, block, state):
            estimate = student.restore_block(block, state)
            x_hat = estimate.x_hat.clone()
            x_hat[..., :32, :32] = torch.randn(x_hat[..., :32, :32].shape).sign()
            return replace(estimate, x_hat=x_hat)

    session = Session(Amortised(Wrong()), NOISY, height=96, width=96)
    session.keeps_errors = True
    session.push(frames(width=96, height=96))
    errors = session.taken_errors()
    assert session.frames_guarded == 3
    assert errors[:, 8:24, 8:24].mean() == pytest.approx(InitialEstimate.std / LEVEL, rel=0.01)
    assert errors[:, 64:, 64:].mean() < 0.5 * errors[:, 8:24, 8:24].mean()


def video(path):
    with open_video(path) as reader:
        return np.stack([frame.pixels for frame in reader])


def test_a_video_of_expected_errors_lies_beside_the_output(tmp_path):
    """Lossless and grey, of the size and the times of the output; on the whole near the true error."""
    clean = [picture(i, 72, 56) for i in range(5)]
    noisy = write_frames(tmp_path / "in.mkv", list(frames(5)), "ffv1", "bgr0")
    told = tmp_path / "errors.mkv"
    instantvir.restore(
        noisy,
        tmp_path / "out.mkv",
        operator="identity+noise:std=25",
        codec="ffv1",
        uncertainty=told,
    )
    errors, out = video(told), video(tmp_path / "out.mkv").astype(float)
    assert errors.shape == out.shape
    assert (errors == errors[..., :1]).all()
    expected = np.sqrt(np.square(errors[..., 0] / STEPS_PER_LEVEL).mean())
    true = np.sqrt(np.square(out - np.stack(clean)).mean())
    assert 0.5 < expected / true < 2


def test_what_makes_no_sense_is_refused_before_anything_is_read(tmp_path):
    clip = write_frames(tmp_path / "in.mkv", list(frames(2)), "ffv1", "bgr0")
    out = tmp_path / "out.mkv"
    with pytest.raises(UsageError, match="are one file"):
        instantvir.restore(clip, out, task="denoise", uncertainty=tmp_path / "x" / ".." / "out.mkv")
    with pytest.raises(UsageError, match="is the input itself"):
        instantvir.restore(clip, out, task="denoise", uncertainty=clip)
    (tmp_path / "there.mkv").touch()
    with pytest.raises(UsageError, match="exists already"):
        instantvir.restore(clip, out, task="denoise", uncertainty=tmp_path / "there.mkv")
    assert not out.exists()
