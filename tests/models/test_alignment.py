"""Laws of the optical flow: a pure function of two pictures, of any size."""

import cv2
import numpy as np
import pytest
import torch

from instantvir_models.students.alignment import backward_flow, dense_flow, flow_guide

SIDES = (1, 2, 7, 15, 16, 17, 23, 31, 32, 33, 56, 90, 208, 416, 960)


def textured(height, width, seed=0):
    """A picture with something to follow, uint8."""
    noise = np.random.default_rng(seed).random((height, width), dtype=np.float32)
    return (cv2.GaussianBlur(noise, (5, 5), 1.5) * 255).astype(np.uint8)


@pytest.mark.parametrize("height", SIDES)
def test_flow_is_finite_for_every_size(height):
    """Short sides of 16 to 31 beside long ones ended the process, 16x416 gave NaN."""
    for width in SIDES:
        here = textured(height, width)
        flow, mismatch = backward_flow(here, np.roll(here, 1, 1))
        assert flow.shape == (height, width, 2)
        assert np.isfinite(flow).all()
        assert np.isfinite(mismatch).all()
        assert not dense_flow(np.zeros_like(here), np.zeros_like(here)).any()


def test_flow_of_a_4k_frame_finds_its_motion():
    wide = textured(1080, 1924)
    flow = dense_flow(wide[:, :1920].copy(), wide[:, 4:].copy())
    assert np.median(flow[..., 0]) == pytest.approx(-4, abs=0.1)
    assert np.median(flow[..., 1]) == pytest.approx(0, abs=0.1)


def test_flow_depends_on_nothing_seen_before():
    """One estimator changed its own scale at the first small picture, and kept it."""
    here, there = textured(120, 208), np.roll(textured(120, 208), 3, 1)
    expected = dense_flow(here, there)
    for height, width in ((16, 16), (16, 416), (32, 32), (88, 72), (240, 416)):
        small = textured(height, width, 1)
        dense_flow(small, np.roll(small, 2, 1))
        np.testing.assert_array_equal(dense_flow(here, there), expected)


def test_small_pictures_are_followed_as_finely_as_large_ones():
    here = textured(120, 208)
    there = np.roll(here, 2, 1)
    for part in (np.s_[:, :], np.s_[40:72, 40:72]):
        flow = dense_flow(np.ascontiguousarray(here[part]), np.ascontiguousarray(there[part]))
        assert np.abs(np.median(flow[8:-8, 8:-8, 0]) - 2) < 0.1


def test_the_guide_is_luma_at_half_size():
    x = torch.full((2, 3, 7, 9), -1.0)
    x[1] = 1
    guide = flow_guide(x)
    assert guide.shape == (2, 3, 4)
    assert guide[0].max() == 0
    assert guide[1].min() == 255
