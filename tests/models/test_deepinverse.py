"""Operators and the closed-form step beside those of DeepInverse, where it is installed."""

import pytest
import torch

from instantvir_models.operators.blur import GaussianBlur
from instantvir_models.operators.consistency import data_consistency
from instantvir_models.operators.downsample import Downsample
from instantvir_models.operators.mask import Mask
from instantvir_models.operators.measurement import Degradation, Measurement
from instantvir_models.operators.prior import noise_variance

physics = pytest.importorskip("deepinv.physics", reason="needs deepinv")
fidelity = pytest.importorskip("deepinv.optim.data_fidelity")

HEIGHT, WIDTH = 32, 40
INSIDE = (..., slice(8, -8), slice(8, -8))


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def mask():
    return (drawn(1, 1, HEIGHT, WIDTH, seed=1) > 0).float()


def theirs_of(known):
    return physics.Inpainting((3, HEIGHT, WIDTH), mask=known.expand(1, 3, -1, -1))


def shown(blur):
    """Its point spread, [1, 1, 15, 15]."""
    point = torch.zeros(1, 1, 1, HEIGHT + 1, WIDTH + 1)
    point[..., HEIGHT // 2, WIDTH // 2] = 1
    rows = slice(HEIGHT // 2 - 7, HEIGHT // 2 + 8)
    columns = slice(WIDTH // 2 - 7, WIDTH // 2 + 8)
    return blur.A(point)[0, :, :, rows, columns]


def test_masks_are_theirs():
    x, known = drawn(1, 3, HEIGHT, WIDTH), mask()
    torch.testing.assert_close(Mask(known).A(x[None])[0], theirs_of(known).A(x))
    torch.testing.assert_close(Mask(known).A_adjoint(x[None])[0], theirs_of(known).A_adjoint(x))


def test_blur_is_theirs_away_from_borders():
    """Beyond a border we mirror frames with the last row, they without it."""
    ours, x = GaussianBlur(1.2), drawn(1, 3, HEIGHT, WIDTH)
    theirs = physics.Blur(filter=shown(ours), padding="reflect")
    torch.testing.assert_close(ours.A(x[None])[0][INSIDE], theirs.A(x)[INSIDE], atol=1e-5, rtol=0)


def test_means_of_boxes_are_theirs():
    """Their sampling keeps the first pixel of each box of a filtered frame."""
    x = drawn(1, 3, HEIGHT, WIDTH)
    boxes = torch.full((1, 1, 4, 4), 1 / 16)
    theirs = physics.Downsampling((3, HEIGHT, WIDTH), filter=boxes, factor=4, padding="valid")
    found = theirs.A(x)
    assert found.shape[-2:] == (HEIGHT // 4, WIDTH // 4)
    ours = Downsample(4, "area").A(x[None])[0]
    torch.testing.assert_close(
        ours[..., : found.shape[-2], : found.shape[-1]], found, atol=1e-5, rtol=0
    )


def test_the_closed_form_step_is_their_proximal_step():
    """gamma |A u - y|^2 / 2 + |u - x|^2 / 2 at gamma = estimate^2 / noise^2."""
    x, known = drawn(1, 3, HEIGHT, WIDTH, seed=2), mask()
    y = known * drawn(1, 3, HEIGHT, WIDTH, seed=3)
    measurement = Measurement(y[None], Degradation(operator=Mask(known), noise_std=0.1))
    ours = data_consistency(x[None], measurement, estimate_std=0.2)[0]
    gamma = 0.2**2 / noise_variance(measurement)
    theirs = fidelity.L2().prox(x, y, theirs_of(known), gamma=gamma)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
