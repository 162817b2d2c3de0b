"""An estimate that doubts itself as much as noise is no worse for it than the noisy video."""

import pytest
import torch

from instantvir_models.operators.blur import GaussianBlur
from instantvir_models.operators.compose import Identity
from instantvir_models.operators.measurement import LEVEL, Degradation, Measurement
from instantvir_models.solvers.base import Window
from instantvir_models.solvers.own_doubt import as_far_as_sure, best_share
from instantvir_models.students.base import ERROR_CELL, Estimate

NOISE_STD = 5 * LEVEL
HEIGHT, WIDTH = 68, 100


def noisy_window(operator=None, *, is_lossy=False):
    """Of a grey video [1, 2, 3, H, W], and its noise."""
    noise = NOISE_STD * torch.randn(
        1, 2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)
    )
    degradation = Degradation(
        operator=operator or Identity(), noise_std=NOISE_STD, is_lossy=is_lossy
    )
    return Window.whole(Measurement(noise, degradation)), noise


def estimate_of(error, std=None):
    """Of the grey video, which says how far off it is, where no other `std` is given."""
    told = float(error.square().mean().sqrt()) if std is None else std
    cells = (1, 2, 1, -(-HEIGHT // ERROR_CELL), -(-WIDTH // ERROR_CELL))
    map_ = torch.full(cells, told)
    return Estimate(error, torch.full((1,), told), is_final=True, std_map=map_)


def rms(values):
    return float(values.square().mean().sqrt())


@pytest.mark.parametrize("kept_noise", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("own_error", [0.3, 0.9, 1.2])
def test_what_comes_out_is_as_near_as_the_nearer_and_says_how_near(kept_noise, own_error):
    window, noise = noisy_window()
    own = torch.randn(noise.shape, generator=torch.Generator().manual_seed(1))
    given = estimate_of(kept_noise * noise + own_error * NOISE_STD * own)
    found = as_far_as_sure(given, window)
    assert rms(found.x_hat) <= 1.01 * min(rms(given.x_hat), rms(noise))
    assert rms(found.std_map) == pytest.approx(rms(found.x_hat), rel=0.05)
    assert float(found.std) == pytest.approx(rms(found.x_hat), rel=0.05)


def test_one_that_is_sure_stays_to_the_bit():
    window, noise = noisy_window()
    given = estimate_of(0.1 * noise)
    assert as_far_as_sure(given, window) is given


@pytest.mark.parametrize("what", ["lossy", "blurred", "not final", "no map"])
def test_where_nobody_knows_how_far_off_the_video_is_nothing_changes(what):
    window, noise = noisy_window(
        GaussianBlur(1.6) if what == "blurred" else None, is_lossy=what == "lossy"
    )
    given = estimate_of(2 * noise)
    given = Estimate(
        given.x_hat,
        given.std,
        is_final=what != "not final",
        std_map=None if what == "no map" else given.std_map,
    )
    assert as_far_as_sure(given, window) is given


def test_the_best_share_leaves_the_least_error():
    squared, error, noise = torch.tensor(0.7), torch.tensor(1.1), 1.0
    a = torch.linspace(0, 1, 1001)
    expected = (1 - a) * noise + a * error - a * (1 - a) * squared
    assert float(best_share(squared, error, noise)) == pytest.approx(
        float(a[expected.argmin()]), abs=1e-3
    )
