"""How far a restored video is from the clean one. Frames are uint8 or uint16 [T, H, W, 3] RGB."""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Frames = NDArray[np.uint8] | NDArray[np.uint16]

SMALLEST_MEAN_SQUARE = 1e-10
"""Identical frames get 100 dB, not infinity, so that means over clips stay finite."""

SSIM_SIGMA = 1.5
SSIM_RADIUS = 5
"""The 11 x 11 Gaussian window of Wang et al., "Image quality assessment", IEEE TIP 2004."""


def psnr(restored: Frames, clean: Frames) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio of each frame in dB over all three channels, [T]."""
    error = _unit(restored) - _unit(clean)
    return _decibels(np.mean(error**2, (1, 2, 3), dtype=np.float64))


def psnr_over_frames(decibels: ArrayLike) -> float:
    """PSNR in dB of the mean square error over frames whose own `psnr` is `decibels`: what FFmpeg's filter
    `psnr` calls average. Bad frames weigh more in it than in the mean of `decibels`, equal ones less."""
    mean_squares = 10 ** (-np.asarray(decibels, np.float64) / 10)
    return float(_decibels(np.mean(mean_squares, keepdims=True))[0])


def frame_difference_psnr(restored: Frames, clean: Frames) -> NDArray[np.float64]:
    """PSNR in dB of the change from each frame to the next, [T - 1]; flicker lowers it."""
    error = np.diff(_unit(restored) - _unit(clean), axis=0)
    return _decibels(np.mean(error**2, (1, 2, 3), dtype=np.float64))


def ssim(restored: Frames, clean: Frames) -> NDArray[np.float64]:
    """Structural similarity of each frame, mean over RGB channels, [T].

    Raises:
        ValueError: if a side is shorter than the 11 pixels of the window.
    """
    if min(clean.shape[1:3]) <= 2 * SSIM_RADIUS:
        raise ValueError(f"SSIM needs frames of more than 10 pixels a side, got {clean.shape[1:3]}")
    pairs = zip(_unit(restored), _unit(clean), strict=True)
    return np.array([_frame_ssim(a, b) for a, b in pairs])


def _frame_ssim(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    mean_a, mean_b = _window_mean(a), _window_mean(b)
    variances = _window_mean(a * a) - mean_a**2 + _window_mean(b * b) - mean_b**2
    covariance = _window_mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    similarity /= (mean_a**2 + mean_b**2 + c1) * (variances + c2)
    return float(similarity.mean())


def _window_mean(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Gaussian-weighted mean around every pixel whose window lies inside the frame."""
    size = (2 * SSIM_RADIUS + 1,) * 2
    blurred = cv2.GaussianBlur(x.astype(np.float64), size, SSIM_SIGMA)
    return np.asarray(blurred, np.float64)[SSIM_RADIUS:-SSIM_RADIUS, SSIM_RADIUS:-SSIM_RADIUS]


def _unit(frames: Frames) -> NDArray[np.float32]:
    return frames.astype(np.float32) / np.float32(np.iinfo(frames.dtype).max)


def _decibels(mean_square: NDArray[np.float64]) -> NDArray[np.float64]:
    return -10 * np.log10(np.maximum(mean_square, SMALLEST_MEAN_SQUARE))
