"""Dust is what one frame has and its neighbours, looked up along the motion, do not."""

from fractions import Fraction

import cv2
import numpy as np
import pytest

from instantvir_models.diagnosis.dust import find_dust
from instantvir_models.media import Frame
from instantvir_models.operators.spots import dusty
from instantvir_models.run.dust import without_dust

WIDTH, HEIGHT = 160, 96


def panning(num_frames, step, *, seed=3):
    """uint8 [T, H, W, 3]: a textured picture moving sideways by `step` pixels a frame."""
    rng = np.random.default_rng(seed)
    size = (HEIGHT, WIDTH + step * num_frames)
    layers = [
        cv2.resize(rng.random((size[0] // k, size[1] // k, 3), dtype=np.float32), size[::-1],
                   interpolation=cv2.INTER_CUBIC)
        for k in (4, 16)
    ]  # fmt: skip
    wide = (40 + 60 * layers[0] + 120 * layers[1]).clip(0, 255).astype(np.uint8)
    return np.stack([wide[:, step * t : step * t + WIDTH] for t in range(num_frames)])


def grainy(frames, std):
    noise = np.random.default_rng(1).normal(0, std, frames.shape)
    return np.rint(frames + noise).clip(0, 255).astype(np.uint8)


def spots(frames):
    """[T, H, W], True where dust was found."""
    shown = [Frame(pixels, t, Fraction(1, 25)) for t, pixels in enumerate(frames)]
    return ~np.stack([frame.known for frame in without_dust(shown)])


@pytest.mark.parametrize("step", [0, 1, 4])
@pytest.mark.parametrize("std", [0, 8])
def test_spots_are_found_and_little_else(step, std):
    dirty = dusty(grainy(panning(6, step), std), np.random.default_rng(0))
    found, truth = spots(dirty.frames)[1:-1], dirty.is_spot[1:-1]
    near = np.stack([cv2.dilate(t.astype(np.uint8), np.ones((7, 7), np.uint8)) for t in truth]) > 0
    assert found[truth].mean() > 0.6
    assert near[found].mean() > 0.85


@pytest.mark.parametrize("step", [0, 1, 4, 9])
@pytest.mark.parametrize("std", [0, 8])
def test_what_only_moves_or_is_grainy_is_no_dust(step, std):
    assert spots(grainy(panning(6, step), std)).mean() < 2e-4


def test_a_small_thing_that_moves_is_no_dust():
    frames = panning(6, 0)
    for t, frame in enumerate(frames):
        cv2.circle(frame, (30 + 12 * t, 40), 3, (250, 250, 250), -1)
    assert not spots(frames).any()


def test_the_first_and_the_last_frame_stay_and_a_cut_is_no_dust():
    dirty = dusty(panning(6, 1), np.random.default_rng(0)).frames
    found = spots(dirty)
    assert not found[0].any()
    assert not found[-1].any()
    scenes = np.concatenate([panning(3, 1), panning(3, 1, seed=9)])
    assert not spots(scenes).any()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_as_many_frames_come_out(count):
    frames = [Frame(pixels, t, Fraction(1)) for t, pixels in enumerate(panning(3, 1)[:count])]
    assert [frame.pts for frame in without_dust(frames)] == list(range(count))


def test_spots_that_deep_pixels_show_are_found():
    dirty = dusty(panning(3, 1), np.random.default_rng(0)).frames
    deep = dirty.astype(np.uint16) * 257
    np.testing.assert_array_equal(find_dust(*deep), find_dust(*dirty))


@pytest.mark.parametrize("size", [(1, 9), (9, 1), (1, 1), (2, 3)])
def test_frames_of_any_size_may_be_looked_at(size):
    pixels = [np.full((*size, 3), 90 + t, np.uint8) for t in range(4)]
    frames = [Frame(each, t, Fraction(1)) for t, each in enumerate(pixels)]
    assert [frame.pts for frame in without_dust(frames)] == [0, 1, 2, 3]
