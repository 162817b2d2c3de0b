"""What a mean lacks of the energy of what it is the mean of comes back, as far as it is wanted."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from instantvir_models.autoencoders.haar import haar, inverse_haar
from instantvir_models.errors import UsageError
from instantvir_models.operators.measurement import Measurement
from instantvir_models.operators.spec import ClipShape, parse_degradation
from instantvir_models.run.opening import open_student
from instantvir_models.run.session import Session
from instantvir_models.solvers.base import Window
from instantvir_models.solvers.registry import named_solver
from instantvir_models.solvers.sharpness import ERROR_SHARE, sharpened
from instantvir_models.students.base import ERROR_CELL, Estimate

STD = 0.1
HEIGHT, WIDTH = 128, 192


def means_of_a_gaussian(*, signal_over_error=3.0):
    """(truth [1, 2, 3, H, W] whose fine bands are Gaussian, its posterior mean as an estimate)."""
    generator = torch.Generator().manual_seed(0)
    truth, mean = (torch.zeros(2, 12, HEIGHT // 2, WIDTH // 2) for _ in range(2))
    for first, share in zip((3, 6, 9), ERROR_SHARE, strict=True):
        variance = share * STD**2  # of what is not known
        known = (signal_over_error - 1) * variance
        shape = (2, 1, HEIGHT // 2, WIDTH // 2)
        certain, unknown = (torch.randn(shape, generator=generator) for _ in range(2))
        mean[:, first : first + 3] = known**0.5 * certain
        truth[:, first : first + 3] = known**0.5 * certain + variance**0.5 * unknown
    x, x_hat = (inverse_haar(bands).unflatten(0, (1, 2)) for bands in (truth, mean))
    cells = torch.full((1, 2, 1, HEIGHT // ERROR_CELL, WIDTH // ERROR_CELL), STD)
    return x, Estimate(x_hat, torch.full((1,), STD), std_map=cells)


def energies(x):
    """Of the three fine bands."""
    return haar(x.flatten(0, 1))[:, 3:].unflatten(1, (3, 3)).square().mean((0, 2, 3, 4))


def test_all_of_it_is_the_energy_of_the_truth():
    x, estimate = means_of_a_gaussian()
    before = energies(estimate.x_hat) / energies(x)
    after = energies(sharpened(estimate, 1.0).x_hat) / energies(x)
    assert torch.allclose(before, torch.full((3,), 2 / 3), atol=0.02)
    assert torch.allclose(after, torch.ones(3), atol=0.03)


def test_half_of_it_is_half_way():
    _, estimate = means_of_a_gaussian()
    whole, half = (sharpened(estimate, part).x_hat for part in (1.0, 0.5))
    assert torch.allclose(half, (whole + estimate.x_hat) / 2, atol=1e-6)


def test_none_of_it_is_the_estimate_itself():
    _, estimate = means_of_a_gaussian()
    assert sharpened(estimate, 0.0) is estimate


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 1.5])
def test_the_error_that_is_told_stays_true(sharpness):
    x, estimate = means_of_a_gaussian()
    true_before = float((estimate.x_hat - x).square().mean())
    found = sharpened(estimate, sharpness)
    grown = float((found.x_hat - x).square().mean()) - true_before
    assert grown > 0
    assert float(found.std.square()) - STD**2 == pytest.approx(grown, rel=0.1)
    assert float(found.std_map.square().mean()) - STD**2 == pytest.approx(grown, rel=0.1)


def test_one_that_does_not_tell_places_apart_is_sharpened_alike():
    _, estimate = means_of_a_gaussian()
    plain = sharpened(replace(estimate, std_map=None), 1.0)
    assert torch.equal(plain.x_hat, sharpened(estimate, 1.0).x_hat)
    assert plain.std_map is None


def test_means_and_colours_stay():
    _, estimate = means_of_a_gaussian()
    x_hat = estimate.x_hat + torch.rand(1, 2, 3, 1, 1) + 0.1 * torch.randn_like(estimate.x_hat)
    moved = sharpened(replace(estimate, x_hat=x_hat), 1.0).x_hat - x_hat
    assert moved.abs().max() > 0.01
    assert haar(moved.flatten(0, 1))[:, :3].abs().max() < 1e-6
    assert (moved - moved.mean(2, keepdim=True)).abs().max() < 1e-6


def test_what_is_sure_stays_and_nothing_more_than_doubles():
    _, estimate = means_of_a_gaussian()
    sure = replace(estimate, std_map=torch.zeros_like(estimate.std_map))
    assert torch.allclose(sharpened(sure, 1.0).x_hat, estimate.x_hat, atol=1e-6)
    lost = replace(estimate, std_map=torch.full_like(estimate.std_map, 50.0))
    assert torch.allclose(sharpened(lost, 1.0).x_hat, 2 * estimate.x_hat, atol=1e-5)


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
    return float(haar(x)[:, 3:].square().mean())


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
