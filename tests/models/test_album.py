"""A few moments of a video whose length nobody knows, with what they leave unexplained."""

from fractions import Fraction

import numpy as np
import pytest

from instantvir_models.media import Frame
from instantvir_models.operators.spec import ClipShape, parse_degradation
from instantvir_models.run.album import MOMENT_FRAMES, MOST_MOMENTS, Album

SHAPE = ClipShape(num_frames=1, height=8, width=12)


def album(spec="identity+noise:std=5"):
    return Album(parse_degradation(spec, shape=SHAPE))


def frame(index, value=None, **more):
    pixels = np.full((8, 12, 3), index % 200 if value is None else value, np.uint8)
    return Frame(pixels, index, Fraction(1, 25), 1, **more)


@pytest.mark.parametrize("length", [3, 8, 9, 100, 1000])
def test_moments_are_consecutive_and_from_all_over_the_video(length):
    kept = album()
    for index in range(length):
        kept.add(frame(index), frame(index), None)
    moments = kept.moments()
    assert 1 <= len(moments) <= MOST_MOMENTS
    for moment in moments:
        shown = [moment.first_frame + t for t in range(min(length, MOMENT_FRAMES))]
        assert moment.after[:, 0, 0, 0].tolist() == [index % 200 for index in shown]
        assert moment.seconds == moment.first_frame / 25
    assert moments[0].first_frame == 0
    assert moments[-1].first_frame >= length // 2 - MOMENT_FRAMES
    assert kept.frames_per_second == 25


def test_what_is_left_unexplained_is_in_levels():
    kept = album()
    for index in range(2):
        kept.add(frame(index, 100), frame(index, 103), frame(index, 105))
    (moment,) = kept.moments()
    np.testing.assert_allclose(moment.residual_levels, 3, rtol=1e-4)
    np.testing.assert_allclose(moment.error_levels, 2)


def test_where_nothing_was_measured_nothing_is_left_unexplained():
    kept, known = album("identity"), np.ones((8, 12), bool)
    known[:, 6:] = False
    for index in range(2):
        kept.add(frame(index, 100, known=known), frame(index, 103), None)
    (moment,) = kept.moments()
    np.testing.assert_allclose(moment.residual_levels[..., :6], 3, rtol=1e-4)
    np.testing.assert_allclose(moment.residual_levels[..., 6:], 0)


def test_large_frames_are_kept_small():
    kept = Album(parse_degradation("identity", shape=ClipShape(num_frames=1, height=4, width=1920)))
    large = Frame(np.zeros((4, 1920, 3), np.uint16), 0, Fraction(1, 25))
    kept.add(large, large, None)
    (moment,) = kept.moments()
    assert moment.after.shape == (1, 2, 960, 3)
    assert moment.size == (1920, 4)
