"""What a mean lacks of the energy of what it is the mean of comes back, as far as it is wanted."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from instantvir_models.errors import UsageError
from instantvir_models.operators.measurement import Measurement
from instantvir_models.operators.spec import ClipShape, parse_degradation
from instantvir_models.run.opening import open_student
from instantvir_models.run.session import Session
from instantvir_models.solvers.base import Window
from instantvir_models.solvers.detail import luma
from instantvir_models.solvers.registry import named_solver
from instantvir_models.solvers.sharpness import ERROR_SHARE, MOST_GAIN, fine_contrast, sharpened
from instantvir_models.students.base import ERROR_CELL, Estimate

STD = 0.1
HEIGHT, WIDTH = 128, 192


def blurry(*, std=STD, seed=0):
    """An estimate [1, 2, 3, H, W] of noise-like texture that says to be `std` off everywhere."""
    x_hat = 0.2 * torch.randn(1, 2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))
    cells = torch.full((1, 2, 1, HEIGHT // ERROR_CELL, WIDTH // ERROR_CELL), std)
    return Estimate(x_hat, torch.full((1,), std), std_map=cells)


def fine_of(x):
    return fine_contrast(luma(x).flatten(0, 1))


def test_all_of_it_is_the_energy_that_the_error_says_is_missing():
    estimate = blurry()
    fine = fine_of(estimate.x_hat)
    moved = luma(sharpened(estimate, 1.0).x_hat - estimate.x_hat).flatten(0, 1)
    expected = fine.square().mean() + ERROR_SHARE * STD**2
    assert float((fine + moved).square().mean()) == pytest.approx(float(expected), rel=0.03)


def test_half_of_it_is_half_way():
    estimate = blurry()
    whole, half = (sharpened(estimate, part).x_hat for part in (1.0, 0.5))
    assert torch.allclose(half, (whole + estimate.x_hat) / 2, atol=1e-6)


def test_none_of_it_is_the_estimate_itself():
    estimate = blurry()
    assert sharpened(estimate, 0.0) is estimate


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 1.5])
def test_the_error_that_is_told_stays_true(sharpness):
    """The truth is the mean and what nobody knows: what is added to the mean adds to the error."""
    estimate = blurry()
    unknown = torch.randn(estimate.x_hat.shape, generator=torch.Generator().manual_seed(1))
    x = estimate.x_hat + STD * unknown
    found = sharpened(estimate, sharpness)
    error = (found.x_hat - x).square()
    assert float(error.mean()) > 1.001 * STD**2
    assert float(found.std.square()) == pytest.approx(float(error.mean()), rel=0.01)
    assert float(found.std_map.square().mean()) == pytest.approx(float(error.mean()), rel=0.01)


def test_one_that_does_not_tell_places_apart_is_sharpened_alike():
    estimate = blurry()
    plain = sharpened(replace(estimate, std_map=None), 1.0)
    assert torch.equal(plain.x_hat, sharpened(estimate, 1.0).x_hat)
    assert plain.std_map is None


def test_colours_stay_and_what_is_flat_or_a_slope():
    estimate = blurry()
    moved = sharpened(estimate, 1.0).x_hat - estimate.x_hat
    assert moved.abs().max() > 0.01
    assert (moved - moved.mean(2, keepdim=True)).abs().max() < 1e-6
    slope = torch.linspace(-0.9, 0.9, WIDTH).expand(1, 2, 3, HEIGHT, WIDTH)
    moved = sharpened(replace(estimate, x_hat=slope.clone()), 1.0).x_hat - slope
    assert moved[..., 2:-2].abs().max() < 1e-5


def test_it_does_not_mind_where_the_picture_begins():
    """No grid of blocks: of a picture that is moved by a pixel, what comes back is moved alike."""
    estimate = blurry()
    moved = replace(estimate, x_hat=estimate.x_hat.roll((1, 1), (-2, -1)))
    one, other = (sharpened(each, 1.0).x_hat for each in (estimate, moved))
    inside = (..., slice(16, -16), slice(16, -16))
    assert torch.allclose(one.roll((1, 1), (-2, -1))[inside], other[inside], atol=1e-6)


def test_what_is_sure_stays_and_nothing_more_than_triples():
    sure = blurry(std=0.0)
    assert torch.allclose(sharpened(sure, 1.0).x_hat, sure.x_hat, atol=1e-6)
    lost = blurry(std=50.0)
    moved = luma(sharpened(lost, 1.0).x_hat - lost.x_hat).flatten(0, 1)
    assert torch.allclose(moved, (MOST_GAIN - 1) * fine_of(lost.x_hat), atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (37, 50), (61, 43)])
def test_any_size(size):
    height, width = size
    cells = torch.full((1, 2, 1, -(-height // ERROR_CELL), -(-width // ERROR_CELL)), STD)
    x_hat = torch.randn(1, 2, 3, height, width, generator=torch.Generator().manual_seed(2))
    found = sharpened(Estimate(x_hat, torch.full((1,), STD), std_map=cells), 1.0)
    assert found.x_hat.shape == x_hat.shape
    assert found.std_map.shape == cells.shape
    assert found.x_hat.isfinite().all()


# the student and its sessions

SPECS = ("blur:sigma=2+noise:std=2", "down:factor=4,kernel=area", "identity+noise:std=25")


def frames_of(count, height=48, width=64):
    """Smooth shapes that move, and some texture."""
    columns = np.arange(width)[None].repeat(height, 0)
    random = np.random.default_rng(0)
    texture = random.normal(0, 12, (height, width, 3))
    return np.stack(
        [
            (128 + 60 * np.sin((columns + 2 * t) / 5)[..., None] + texture).clip(0, 255)
            for t in range(count)
        ]
    ).astype(np.uint8)


def session_of(spec, sharpness=0.0, *, height=48, width=64, **options):
    return Session(
        open_student().solver, parse_degradation(spec), height=height, width=width,
        sharpness=sharpness, **options,
    )  # fmt: skip


def fine(frames):
    x = torch.from_numpy(frames.astype(np.float32)).permute(0, 3, 1, 2)
    return float(fine_of(x[None]).square().mean())


@pytest.mark.parametrize("spec", SPECS)
def test_the_sharper_the_more_fine_contrast(spec):
    energy = []
    for sharpness in (0.0, 0.5, 1.5):
        session = session_of(spec, sharpness)
        energy.append(fine(np.concatenate([session.push(frames_of(3)), session.flush()])))
    assert 1.01 * energy[0] < energy[1]
    assert 1.02 * energy[1] < energy[2]


def test_what_was_measured_without_noise_is_still_explained():
    spec = "down:factor=2,kernel=area"
    y = torch.from_numpy(frames_of(3)).permute(0, 3, 1, 2)[None].float() / 127.5 - 1
    degradation = parse_degradation(spec, shape=ClipShape(num_frames=3, height=96, width=128))
    solver = open_student().solver.with_sharpness(1.5)
    window = Window.whole(Measurement(y, degradation))
    restored = solver.restore_block(window, solver.new_state())
    assert (degradation.operator.A(restored.x) - y).abs().max() < 0.01


@pytest.mark.parametrize("tile_pixels", [0, 64])
def test_it_changes_from_the_next_block_on_and_is_not_remembered(tile_pixels):
    frames = frames_of(9, 64, 128)
    whole = [
        session_of(SPECS[2], sharpness, height=64, width=128, tile_pixels=tile_pixels).push(frames)
        for sharpness in (0.0, 1.0)
    ]
    session = session_of(SPECS[2], height=64, width=128, tile_pixels=tile_pixels)
    parts = []
    for first, sharpness in ((0, 0.0), (3, 1.0), (6, 0.0)):
        session.change_sharpness(sharpness)
        parts.append(session.push(frames[first : first + 3]))
    assert np.array_equal(parts[0], whole[0][:3])
    assert np.array_equal(parts[1], whole[1][3:6])
    assert np.array_equal(parts[2], whole[0][6:])
    assert not np.array_equal(parts[1], whole[0][3:6])


def test_a_session_begun_anew_stays_as_sharp():
    session = session_of(SPECS[0])
    session.change_sharpness(1.0)
    again = session.restarted()
    assert again.sharpness == 1.0
    assert np.array_equal(again.push(frames_of(3)), session.push(frames_of(3)))


def test_a_method_that_does_not_say_where_it_is_off_is_not_sharpened():
    with pytest.raises(UsageError, match="cannot be sharpened"):
        named_solver("wiener").with_sharpness(1.0)
