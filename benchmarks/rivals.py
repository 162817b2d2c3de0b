"""What a user can install today, on the same measurements: each rival with its tuning grid.

A rival is a function of (measured frames uint8 [T, h, w, 3], degradation, setting); it returns
restored uint8 frames. The benchmark tries every setting and keeps, clip by clip, the one with the
best PSNR against the truth: more than any user could do, so the comparison favours the rival.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any

import av
import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from skimage.restoration import inpaint_biharmonic

from instantvir_models.media import to_uint8, to_unit
from instantvir_models.operators.consistency import data_consistency
from instantvir_models.operators.dct import dct2, idct2
from instantvir_models.operators.measurement import LEVEL, Degradation, Measurement

Frames = NDArray[np.uint8]
Setting = tuple[Any, ...]


@dataclass(frozen=True)
class Rival:
    """A method somebody could use instead."""

    name: str
    restore: Callable[[Frames, Degradation, Setting], Frames]
    settings: tuple[Setting, ...] = ((),)


def _per_frame(one: Callable[..., Frames]) -> Callable[[Frames, Degradation, Setting], Frames]:
    def restore(y: Frames, degradation: Degradation, setting: Setting) -> Frames:
        return np.stack([one(frame, degradation, *setting) for frame in y])

    return restore


# Inpainting


def _holes(frame: Frames, degradation: Degradation) -> NDArray[np.bool_]:
    known = degradation.operator.known_pixels(to_unit(frame[None]))
    assert known is not None
    return known[0, 0, 0].numpy() == 0


def _biharmonic(frame: Frames, degradation: Degradation) -> Frames:
    filled = inpaint_biharmonic(
        frame / 255.0, _holes(frame, degradation), channel_axis=-1, split_into_regions=False
    )
    return (filled * 255).round().clip(0, 255).astype(np.uint8)


def _opencv_inpaint(frame: Frames, degradation: Degradation, method: int, radius: int) -> Frames:
    holes = _holes(frame, degradation).astype(np.uint8)
    return cv2.inpaint(frame, holes, radius, method)


# Super-resolution


def _enlarged(frame: Frames, degradation: Degradation, interpolation: int) -> Frames:
    height, width = degradation.operator.clean_size(*frame.shape[:2])
    return cv2.resize(frame, (width, height), interpolation=interpolation)


def _enlarged_consistent(y: Frames, degradation: Degradation, setting: tuple[int, float]) -> Frames:
    """An interpolation, then our own consistency step: the strongest form of the rival."""
    interpolation, estimate_std = setting
    grown = np.stack([_enlarged(frame, degradation, interpolation) for frame in y])
    measurement = Measurement(to_unit(y), degradation)
    return to_uint8(data_consistency(to_unit(grown), measurement, estimate_std=estimate_std))


# Deblurring


def _transfer(degradation: Degradation, height: int, width: int) -> torch.Tensor:
    """Eigenvalues of an even blur in the DCT, from its response to a delta at the corner."""
    delta = torch.zeros(1, 1, 1, height, width, dtype=torch.float64)
    delta[..., 0, 0] = 1
    return (dct2(degradation.operator.A(delta)) / dct2(delta))[0, 0, 0]


def _wiener(y: Frames, degradation: Degradation, setting: tuple[float, float]) -> Frames:
    """DCT-Wiener with a prior power spectrum level / f^exponent, mirrored borders."""
    level, exponent = setting
    height, width = y.shape[1:3]
    transfer = _transfer(degradation, height, width)
    v = torch.arange(height, dtype=torch.float64)[:, None] / (2 * height)
    u = torch.arange(width, dtype=torch.float64) / (2 * width)
    frequency = (v**2 + u**2).sqrt()
    frequency[0, 0] = 1e-4
    noise_power = max(degradation.noise_std, 0.5 * LEVEL) ** 2
    gain = transfer / (transfer**2 + noise_power * frequency**exponent / level)
    return to_uint8(idct2(dct2(to_unit(y)) * gain.float()))


def _richardson_lucy(y: Frames, degradation: Degradation, setting: tuple[int]) -> Frames:
    """Richardson-Lucy with mirrored borders, so that it rings less than with zeros outside."""
    measured = ((to_unit(y) + 1) / 2).clamp_min(1e-3)
    operator = degradation.operator
    x = measured.clone()
    for _ in range(setting[0]):
        x = x * operator.A_adjoint(measured / operator.A(x).clamp_min(1e-4))
        x = x.clamp(1e-4, 1)
    return to_uint8(x * 2 - 1)


# Denoising


def _ffmpeg_nlmeans(y: Frames, degradation: Degradation, setting: tuple[str, float, int]) -> Frames:
    pixel_format, strength, research = setting
    graph = av.filter.Graph()
    height, width = y.shape[1:3]
    source = graph.add_buffer(width=width, height=height, format="rgb24", time_base=Fraction(1, 25))
    last = source
    for name, arguments in (
        ("format", pixel_format),
        ("nlmeans", f"s={strength}:p=7:r={research}"),
        ("format", "rgb24"),
        ("buffersink", None),
    ):
        node = graph.add(name, arguments)
        last.link_to(node)
        last = node
    graph.configure()
    out = []
    for pixels in y:
        source.push(av.VideoFrame.from_ndarray(pixels, format="rgb24"))
        out.append(last.pull().to_ndarray(format="rgb24"))
    return np.stack(out)


def _opencv_nlm(frame: Frames, degradation: Degradation, h: float, research: int) -> Frames:
    return cv2.fastNlMeansDenoising(frame, None, h, 7, research)


def _opencv_nlm_colored(
    frame: Frames, degradation: Degradation, h: float, h_color: float
) -> Frames:
    return cv2.fastNlMeansDenoisingColored(frame, None, h, h_color, 7, 21)


def _opencv_nlm_multi(y: Frames, degradation: Degradation, setting: tuple[float, int]) -> Frames:
    """Non-local means over a window of frames; frames at the ends see what window fits."""
    h, radius = setting
    frames = list(np.concatenate([y[radius:0:-1], y, y[-2 : -2 - radius : -1]]))
    return np.stack(
        [
            cv2.fastNlMeansDenoisingMulti(frames, t + radius, 2 * radius + 1, None, h, 7, 21)
            for t in range(len(y))
        ]
    )


def _identity(y: Frames, degradation: Degradation, setting: Setting) -> Frames:
    return y


INTERPOLATIONS = (cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)

RIVALS: dict[str, tuple[Rival, ...]] = {
    "inpaint": (
        Rival("OpenCV Telea", _per_frame(_opencv_inpaint), ((cv2.INPAINT_TELEA, 3), (cv2.INPAINT_TELEA, 5))),
        Rival("OpenCV Navier-Stokes", _per_frame(_opencv_inpaint), ((cv2.INPAINT_NS, 3), (cv2.INPAINT_NS, 5))),
        Rival("scikit-image biharmonic", _per_frame(_biharmonic)),
    ),
    "sr": (
        Rival("bicubic", _per_frame(_enlarged), ((cv2.INTER_CUBIC,),)),
        Rival("Lanczos", _per_frame(_enlarged), ((cv2.INTER_LANCZOS4,),)),
        Rival(
            "bicubic or Lanczos + consistency",
            _enlarged_consistent,
            tuple(product(INTERPOLATIONS, (0.003, 0.01, 0.03, 0.1))),
        ),
    ),
    "deblur": (
        Rival("input", _identity),
        Rival("Richardson-Lucy", _richardson_lucy, ((15,), (50,))),
        Rival(
            "DCT-Wiener",
            _wiener,
            tuple(product((1e-4, 1e-3, 4e-3, 1.6e-2), (1.5, 2.0, 2.5, 3.0))),
        ),
    ),
    "denoise": (
        Rival("input", _identity),
        Rival(
            "FFmpeg nlmeans",
            _ffmpeg_nlmeans,
            (
                *product(("yuv444p",), (8.0, 10.0, 12.0, 14.0), (9, 15)),
                *product(("gbrp",), (15.0, 18.0, 21.0, 25.0), (15,)),  # plane by plane: wants more
            ),
        ),
        Rival("OpenCV NLM", _per_frame(_opencv_nlm), tuple(product((10.0, 14.0, 18.0, 22.0), (21,)))),
        Rival(
            "OpenCV NLM, colour",
            _per_frame(_opencv_nlm_colored),
            tuple(product((10.0, 14.0, 18.0), (14.0, 24.0))),
        ),
        Rival("OpenCV NLM, 5 frames", _opencv_nlm_multi, ((10.0, 2), (14.0, 2), (18.0, 2))),
    ),
}  # fmt: skip
"""The rivals of each task, weakest first."""
