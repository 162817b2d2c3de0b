"""Scratches are lines from top to bottom that flicker, or stay while the picture moves."""

from fractions import Fraction

import cv2
import numpy as np
import pytest

from instantvir_models.media import Frame
from instantvir_models.run.dust import without_dust
from tests.models.test_dust import HEIGHT, WIDTH, grainy, panning


def scratched(frames, column, *, levels=40.0, lean=2, of_frames=None):
    """The frames with a line two pixels wide, and [T, H, W] where it is."""
    out, truth = frames.astype(np.float32), np.zeros(frames.shape[:3], bool)
    height, width = frames.shape[1:3]
    middle = column + lean * ((np.arange(height) + 0.5) / height - 0.5)
    across = np.exp(-0.5 * ((np.arange(width) - middle[:, None]) / 0.9) ** 2)
    for t in range(len(frames)) if of_frames is None else of_frames:
        out[t] += levels * across[..., None]
        truth[t] = across > 0.5
    return np.rint(out).clip(0, 255).astype(np.uint8), truth


def found_in(frames):
    """[T, H, W], True where dust or a scratch was found."""
    shown = [Frame(pixels, t, Fraction(1, 25)) for t, pixels in enumerate(frames)]
    return ~np.stack([frame.known for frame in without_dust(shown)])


@pytest.mark.parametrize("std", [0, 4])
@pytest.mark.parametrize("levels", [40, -40])
@pytest.mark.parametrize(("step", "of_frames"), [(0, [2]), (1, [2]), (4, [2]), (4, None)])
def test_a_scratch_that_flickers_or_stays_is_found_and_little_else(step, of_frames, levels, std):
    clean = grainy(panning(5, step), std)
    frames, truth = scratched(clean, 70, levels=levels, of_frames=of_frames)
    found = found_in(frames)
    assert found[2][truth[2]].mean() > 0.9
    near = cv2.dilate(truth[2].astype(np.uint8), np.ones((3, 9), np.uint8)) > 0
    assert found[2][~near].mean() < 2e-3


@pytest.mark.parametrize("step", [0, 1, 4])
def test_a_line_that_belongs_to_the_picture_is_none(step):
    wide = panning(1, 5 * step + WIDTH)[0]
    wide = np.pad(wide, ((0, 0), (0, 5 * step), (0, 0)), mode="edge")
    cv2.line(wide, (80, 0), (81, HEIGHT), (250, 250, 250), 2)
    frames = np.stack([wide[:, step * t : step * t + WIDTH] for t in range(5)])
    assert found_in(frames).mean() < 2e-4


def test_half_a_line_is_no_scratch():
    frames, _ = scratched(panning(5, 4), 70)
    frames[:, HEIGHT // 2 :] = panning(5, 4)[:, HEIGHT // 2 :]
    assert found_in(frames).mean() < 2e-4


def test_tiny_frames_have_none():
    frames = panning(3, 1)[:, :16, :16]
    assert not found_in(np.ascontiguousarray(frames)).any()
