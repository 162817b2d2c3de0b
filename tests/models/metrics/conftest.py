"""What several measures are tried on."""

from pathlib import Path

import cv2
import numpy as np
import pytest

CLIPS = Path(__file__).parents[2] / "data" / "clips"


@pytest.fixture
def photographs():
    """Two frames of a real picture with noise, and the same without."""
    picture = cv2.imread(str(CLIPS / "flower.png"))[:96, :128, ::-1]
    clean = np.stack([picture, np.roll(picture, 2, 1)])
    noise = np.random.default_rng(0).normal(0, 9, clean.shape)
    return (clean + noise).clip(0, 255).round().astype(np.uint8), clean
