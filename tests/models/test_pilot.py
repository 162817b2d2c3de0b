"""A Wiener filter with an estimate as its pilot: laws of the arithmetic."""

import pytest
import torch

from instantvir_models.operators.measurement import LEVEL
from instantvir_models.students import pilot
from instantvir_models.students.pilot import ERROR_LEFT, LEVELS, along, filled, filtered

NOISE_STD = 10 * LEVEL


def frames(height=44, width=52, seed=0):
    """Three frames of a smooth picture that moves, a pilot of it that kept some noise, and y."""
    t, y, x = torch.meshgrid(*(torch.arange(float(n)) for n in (3, height, width)), indexing="ij")
    waves = torch.stack([((x + t) / 6).sin(), ((y - t) / 9).cos(), ((x + y) / 11).sin()], 1)
    clean = 0.4 * waves
    noise = NOISE_STD * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    return clean, clean + 0.4 * noise, clean + noise


def test_it_takes_away_what_the_pilot_kept_of_the_noise():
    clean, x_hat, y = frames()
    left = (filtered(x_hat, y, NOISE_STD) - clean).square().mean()
    assert left < 0.7 * (x_hat - clean).square().mean()


def test_a_constant_that_is_added_is_added_to_the_result():
    _, x_hat, y = frames()
    plain = filtered(x_hat, y, NOISE_STD)
    assert torch.allclose(filtered(x_hat + 0.3, y + 0.3, NOISE_STD), plain + 0.3, atol=1e-5)


def test_noise_that_was_cut_off_at_black_makes_nothing_brighter():
    x_hat = torch.full((3, 3, 32, 32), -1.0)
    y = x_hat + NOISE_STD * torch.rand(x_hat.shape, generator=torch.Generator().manual_seed(0))
    assert (filtered(x_hat, y, NOISE_STD) - x_hat).mean().abs() < 1e-5


@pytest.mark.parametrize(
    "turned",
    [lambda v: v.flip(0), lambda v: v.flip(-1), lambda v: v.flip(-2), lambda v: v.mT],
    ids=["backwards", "left and right", "upside down", "across"],
)
def test_turned_frames_come_out_turned(turned):
    _, x_hat, y = frames(48, 48)
    found = filtered(turned(x_hat).contiguous(), turned(y).contiguous(), NOISE_STD)
    assert torch.allclose(found, turned(filtered(x_hat, y, NOISE_STD)), atol=1e-5)


@pytest.mark.parametrize("rows", [1, 5, 1000])
def test_strips_leave_no_seams(monkeypatch, rows):
    _, x_hat, y = frames()
    whole = filtered(x_hat, y, NOISE_STD)
    monkeypatch.setattr(pilot, "ROWS_AT_ONCE", rows)
    assert torch.allclose(filtered(x_hat, y, NOISE_STD), whole, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 9), (8, 8), (17, 30)])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_any_size_and_number_of_frames(size, count):
    x_hat = torch.rand(count, 3, *size)
    found = filtered(x_hat, x_hat, NOISE_STD)
    assert found.shape == x_hat.shape
    assert found.isfinite().all()


def test_products_in_few_bits_around_it_change_nothing():
    _, x_hat, y = frames()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = filtered(x_hat, y, NOISE_STD)
    assert torch.equal(found, filtered(x_hat, y, NOISE_STD))


def test_numbers_are_those_at_their_levels_and_between_them_elsewhere():
    for level, value in zip(LEVELS, ERROR_LEFT, strict=True):
        assert along(level * LEVEL, ERROR_LEFT) == pytest.approx(value)
    assert along(0.1 * LEVEL, ERROR_LEFT) == ERROR_LEFT[0]
    assert along(200 * LEVEL, ERROR_LEFT) == ERROR_LEFT[-1]
    assert ERROR_LEFT[2] < along(7 * LEVEL, ERROR_LEFT) < ERROR_LEFT[3]


def test_holes_come_nearer_and_what_was_measured_stays():
    clean, x_hat, _ = frames()
    known = (
        torch.rand(3, 1, *clean.shape[2:], generator=torch.Generator().manual_seed(1)) < 0.5
    ).float()
    x_hat = torch.lerp(x_hat, clean, known)
    error = (x_hat - clean).square().mean()
    found = filled(x_hat, clean, known, error)
    assert (found - clean).square().mean() < 0.7 * error
    assert torch.equal(found * known, clean * known)
