"""A problem with a known answer tells copying from blurring, and both from what is right."""

import pytest
import torch

from instantvir_distill.evaluate import probed
from instantvir_distill.probes import FRAMES, NOISE_STD, compared, known_picture
from instantvir_models.checkpoints.load import load_student


def test_the_answer_is_the_best_there_is():
    given = known_picture()
    best = compared(given.best.expand_as(given.x), given)
    assert (best.error_over_least, best.residual_over_expected) == pytest.approx((1, 1))
    assert best.flicker_over_noise == 0
    for scale in (0.98, 1.02):
        assert compared(scale * given.best.expand_as(given.x), given).error_over_least > 1


def test_its_error_is_what_the_noise_leaves():
    """Between no noise at all and the noise of a mean of all frames, and the same in each draw."""
    for seed in (0, 1):
        given = known_picture(seed=seed)
        error = float((given.best - given.x[:, -1:]).square().mean())
        assert 0.1 * NOISE_STD**2 / FRAMES < error < NOISE_STD**2 / FRAMES


def test_what_copies_and_what_blurs_is_told():
    given = known_picture()
    y = given.measurement.y
    copied = compared(y, given)
    assert copied.residual_over_expected == 0
    assert copied.flicker_over_noise == pytest.approx(1)
    assert copied.error_over_least > FRAMES
    blurred = torch.nn.functional.avg_pool2d(given.x[0], 7, 1, 3, count_include_pad=False)[None]
    blurred = compared(blurred, given)
    assert blurred.error_over_least > 1.5
    assert blurred.residual_over_expected > 1


def test_the_embedded_student_stands_between():
    found = probed(load_student("tiny").student)
    assert 1 < found.error_over_least < 6
    assert found.residual_over_expected == pytest.approx(1, abs=0.1)
    assert found.flicker_over_noise < 0.3
