"""Our measures beside those of torchmetrics, where it is installed, on real frames."""

import numpy as np
import pytest
import torch

from instantvir_models.metrics.fidelity import psnr, ssim

functional = pytest.importorskip("torchmetrics.functional.image", reason="needs torchmetrics")


def as_tensors(frames):
    """[T, 3, H, W] in [0, 1]."""
    return torch.from_numpy(frames.astype(np.float64)).permute(0, 3, 1, 2) / 255


def test_psnr_is_theirs(photographs):
    restored, clean = map(as_tensors, photographs)
    expected = [
        functional.peak_signal_noise_ratio(a[None], b[None], data_range=1.0)
        for a, b in zip(restored, clean, strict=True)
    ]
    np.testing.assert_allclose(psnr(*photographs), expected, atol=1e-4)


def test_ssim_is_theirs_away_from_borders(photographs):
    """Its mean is over a frame with reflected borders, ours over windows that lie inside."""
    restored, clean = map(as_tensors, photographs)
    _, every = functional.structural_similarity_index_measure(
        restored, clean, gaussian_kernel=True, sigma=1.5, data_range=1.0, return_full_image=True
    )
    inside = every[..., 5:-5, 5:-5].mean((1, 2, 3))
    np.testing.assert_allclose(ssim(*photographs), inside, atol=1e-4)
