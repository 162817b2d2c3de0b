"""Degradations as text: `blur:sigma=3+noise:std=5`, one grammar for command line, library and files.

spec   = part { "+" part }          first part acts first on the clean video
part   = name [ ":" key "=" value { "," key "=" value } ]
value  = text without "+" and ","  |  any text in double quotes, those in it twice: path="a+b.png"
"""

import difflib
import io
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instantvir_models.errors import UsageError
from instantvir_models.operators.base import Operator
from instantvir_models.operators.blur import (
    Defocus,
    GaussianBlur,
    MotionBlur,
    PointSpread,
    TemporalBlur,
    UnsharpMask,
    rotated_gaussian,
)
from instantvir_models.operators.compose import Composition, Identity
from instantvir_models.operators.downsample import Downsample, DownsampleKernel
from instantvir_models.operators.mask import Dust, Mask, MaskFile
from instantvir_models.operators.mask_files import (
    MOST_IMAGE_PIXELS,
    can_be_named,
    claims_too_much,
    read_packed,
    stated_size,
)
from instantvir_models.operators.measurement import LEVEL, Degradation
from instantvir_models.outputs.claim import write_whole

MOST_PARTS = 16
"""Operators of one specification."""
LARGEST_FACTOR = 64
"""By which a video is shrunk in all, by one down-sampling after the other."""

OPERATOR_EXAMPLES = {
    "identity": "identity",
    "blur": "blur:sigma=3",
    "anisotropic blur": "blur:sigma_y=4,sigma_x=1",
    "rotated blur": "blur:sigma=4,sigma_short=1,angle=30",
    "out of focus": "defocus:radius=3.5",
    "motion blur": "motion:length=11,angle=30",
    "sharpening": "sharpen:amount=1.2,sigma=1.2",
    "point spread": "psf:path=kernel.png",
    "temporal average": "temporal:kernel=uniform,size=7",
    "temporal Gaussian": "temporal:kernel=gaussian,size=7,sigma=1",
    "area": "down:factor=4,kernel=area",
    "bicubic": "down:factor=4,kernel=bicubic",
    "mask": "mask:path=mask.png",
    "random mask": "mask:keep=0.5,seed=0",
    "random masks": "mask:keep=0.5,seed=0,per_frame=1",
    "composition": "blur:sigma=1.5+down:factor=2,kernel=area",
    "noise": "noise:std=5",
}
"""A specification of every kind, by what it is called in prose."""


@dataclass(frozen=True, kw_only=True)
class ClipShape:
    """What random masks need to know of the clean video."""

    num_frames: int
    height: int
    width: int


@dataclass(frozen=True)
class Part:
    """One part of a specification, as it was written."""

    name: str
    values: Mapping[str, str]

    @classmethod
    def read(cls, text: str) -> "Part":
        """The part that `text` is, such as `blur:sigma=3`."""
        name, _, rest = (piece.strip() for piece in text.partition(":"))
        values: dict[str, str] = {}
        for item in filter(None, _split(rest, ",")):
            key, equals, value = (piece.strip() for piece in item.partition("="))
            value = _unquoted(value)
            if not equals or not key or not value:
                raise UsageError(
                    f"`{item}` in `{name}` is not `key=value`", hint="for example `blur:sigma=3`"
                )
            if key in values:
                raise UsageError(f"`{key}` is given twice in `{name}`")
            values[key] = value
        return cls(name, values)

    @property
    def text(self) -> str:
        """The part as `read` reads it back."""
        values = ",".join(f"{key}={quoted(value)}" for key, value in self.values.items())
        return f"{self.name}:{values}" if values else self.name


def quoted(value: str) -> str:
    """A value as a specification holds it: in quotes where it would be taken for more than one."""
    is_plain = not set(value) & set("+,") and value == value.strip() and not value.startswith('"')
    return value if is_plain else '"' + value.replace('"', '""') + '"'


def _unquoted(value: str) -> str:
    return value[1:-1].replace('""', '"') if _QUOTED.fullmatch(f"={value}") else value


def _split(text: str, separator: str) -> list[str]:
    """The pieces between separators that stand in no quotes."""
    outside = _QUOTED.sub(lambda match: match[0].replace(separator, "\0"), text)
    return [piece.replace("\0", separator) for piece in outside.split(separator)]


_QUOTED = re.compile(r'=\s*"(?:[^"]|"")*"')


class _Options:
    """The keys and values of one part; every value is asked for once, what is left is an error."""

    def __init__(self, part: Part) -> None:
        self.part = part.name
        self._values = dict(part.values)
        self._known: list[str] = []

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def text(self, key: str, default: str | None = None) -> str:
        """The value of `key`, or `default`; required without one."""
        self._known.append(key)
        value = self._values.pop(key, default)
        if value is None:
            raise UsageError(f"`{self.part}` needs `{key}=`", hint=_examples_of(self.part))
        return value

    def number(self, key: str, low: float, high: float, default: float | None = None) -> float:
        """The value of `key` as a number in [low, high]."""
        text = self.text(key, None if default is None else str(default))
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise UsageError(
                f"`{key}` in `{self.part}` is {text}; it is a number from {low:g} to {high:g}"
            )
        return value

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """The value of `key` as a whole number in [low, high]."""
        value = self.number(key, low, high, default)
        if value != int(value):
            raise UsageError(f"`{key}` in `{self.part}` is {value:g}; it is a whole number")
        return int(value)

    def choice(self, key: str, choices: tuple[str, ...], default: str | None = None) -> str:
        """The value of `key`, one of `choices`."""
        value = self.text(key, default)
        if value not in choices:
            raise UsageError(f"`{key}` in `{self.part}` is `{value}`; it is {_either(choices)}")
        return value

    def finish(self) -> None:
        """Refuse keys nobody asked for."""
        for key in self._values:
            close = difflib.get_close_matches(key, self._known, 1)
            hint = f"did you mean `{close[0]}`?" if close else f"it takes {_either(self._known)}"
            raise UsageError(f"`{self.part}` has no `{key}`", hint=hint)


@dataclass(frozen=True)
class _Context:
    """Where a part stands: files are relative to `base`, random masks need `shape`."""

    base: Path
    shape: ClipShape | None


@dataclass(frozen=True)
class Specification:
    """A degradation in words, read once; what it says can be asked before anything is made of it."""

    parts: tuple[Part, ...]
    """Operators, in the order in which they act."""
    noise_std: float | None
    """Standard deviation in the [-1, 1] range; None where no noise is named."""

    @classmethod
    def read(cls, spec: str) -> "Specification":
        """What `spec` says.

        Raises:
            UsageError: naming the part that is wrong, what was got and what would be right.
        """
        parts: list[Part] = []
        noise_std: float | None = None
        for text in _split(spec, "+"):
            part = Part.read(text)
            if not part.name:
                raise UsageError(
                    f"`{spec}` has an empty part", hint="for example `blur:sigma=3+noise:std=5`"
                )
            if len(parts) == MOST_PARTS:
                raise UsageError(f"`{spec[:40]}...` has more than {MOST_PARTS} operators")
            if noise_std is not None:
                raise UsageError(
                    f"`{text.strip()}` comes after the noise in `{spec}`", hint="put `noise` last"
                )
            if part.name == "noise":
                noise_std = _noise_std(part)
            else:
                _maker(part.name)  # refuses a name that there is not
                parts.append(part)
        read = cls(tuple(parts), noise_std)
        if read.factor > LARGEST_FACTOR:
            raise UsageError(
                f"`{spec}` shrinks by {read.factor} in all; at most {LARGEST_FACTOR} can be undone"
            )
        return read

    @property
    def spec(self) -> str:
        """The text that `read` reads back."""
        noise = () if self.noise_std is None else (f"noise:std={self.noise_std / LEVEL:.4g}",)
        return "+".join((*(part.text for part in self.parts), *noise))

    @property
    def factor(self) -> int:
        """By how much the video is shrunk in all: sides of the clean video are multiples of it."""
        return math.prod(_factor(_Options(part)) for part in self.parts if part.name == "down")

    def seeded(self, seed: int) -> "Specification":
        """The same, with `seed` for random masks that name none."""
        parts = (
            replace(part, values={**part.values, "seed": str(seed)})
            if part.name == "mask" and "keep" in part.values and "seed" not in part.values
            else part
            for part in self.parts
        )
        return replace(self, parts=tuple(parts))

    def degradation(
        self, *, shape: ClipShape | None = None, base: Path | None = None
    ) -> Degradation:
        """The degradation that this describes; without noise where none is named.

        Args:
            shape: of the clean video; only random masks need it.
            base: folder that paths are relative to; the working folder by default.

        Raises:
            UsageError: as `read`.
        """
        context = _Context(base or Path(), shape)
        operators: list[Operator] = []
        for part in self.parts:
            options = _Options(part)
            operators.append(_maker(part.name)(options, context))
            options.finish()
            context = _after(operators[-1], context)
        return Degradation(operator=_joined(operators), noise_std=self.noise_std or 0.0)


def parse_degradation(
    spec: str, *, shape: ClipShape | None = None, base: Path | None = None
) -> Degradation:
    """The degradation that `spec` describes.

    Args:
        spec: such as `blur:sigma=3+noise:std=5`; `std` is in 8-bit levels and comes last.
        shape: of the clean video; only random masks need it.
        base: folder that paths in the specification are relative to; the working folder by default.

    Raises:
        UsageError: naming the part that is wrong, what was got and what would be right.
    """
    return Specification.read(spec).degradation(shape=shape, base=base)


def _noise_std(part: Part) -> float:
    options = _Options(part)
    levels = options.number("std", 0, 255)
    options.finish()
    return levels * LEVEL


def _factor(options: _Options) -> int:
    return options.integer("factor", 2, 8)


def _joined(operators: list[Operator]) -> Operator:
    real = [operator for operator in operators if not operator.is_identity]
    if not real:
        return Identity()
    return real[0] if len(real) == 1 else Composition(real)


def _after(operator: Operator, context: _Context) -> _Context:
    """The context of the next part: the video has the size that `operator` leaves."""
    if context.shape is None:
        return context
    height, width = operator.measured_size(context.shape.height, context.shape.width)
    shape = ClipShape(num_frames=context.shape.num_frames, height=height, width=width)
    return _Context(context.base, shape)


def _maker(name: str) -> Callable[[_Options, _Context], Operator]:
    if name not in _MAKERS:
        close = difflib.get_close_matches(name, [*_MAKERS, "noise"], 1)
        hint = f"did you mean `{close[0]}`?" if close else f"use {_either([*_MAKERS, 'noise'])}"
        raise UsageError(f"there is no operator called `{name}`", hint=hint)
    return _MAKERS[name]


def _identity(options: _Options, context: _Context) -> Operator:
    return Identity()


def _blur(options: _Options, context: _Context) -> Operator:
    if "sigma_y" in options or "sigma_x" in options:
        return GaussianBlur(options.number("sigma_y", 0, 50), options.number("sigma_x", 0, 50))
    if "sigma_short" not in options and "angle" not in options:
        return GaussianBlur(options.number("sigma", 0, 50))
    sigma = options.number("sigma", 0.1, 50)
    short, angle = options.number("sigma_short", 0.1, 50), options.number("angle", -360, 360, 0)
    spec = f"blur:sigma={sigma:g},sigma_short={short:g},angle={angle:g}"
    return PointSpread(rotated_gaussian(sigma, short, angle), spec=spec)


def _defocus(options: _Options, context: _Context) -> Operator:
    return Defocus(options.number("radius", 0.5, 50))


def _motion(options: _Options, context: _Context) -> Operator:
    return MotionBlur(options.number("length", 1, 100), options.number("angle", -360, 360, 0))


def _sharpen(options: _Options, context: _Context) -> Operator:
    return UnsharpMask(options.number("amount", 0, 10), options.number("sigma", 0, 50))


def _point_spread(options: _Options, context: _Context) -> Operator:
    path = options.text("path")
    psf = torch.from_numpy(_read_gray(context.base / path)).double()
    if psf.sum() == 0:
        raise UsageError(f"the point spread function `{path}` is all black")
    return PointSpread(psf, spec=f"psf:path={quoted(path)}")


def _temporal(options: _Options, context: _Context) -> Operator:
    kernel = options.choice("kernel", ("uniform", "gaussian"), "uniform")
    size = options.integer("size", 1, 99)
    if size % 2 == 0:
        raise UsageError(f"`size` in `temporal` is {size}; it is an odd number of frames")
    if kernel == "uniform":
        return TemporalBlur.uniform(size)
    return TemporalBlur.gaussian(size, options.number("sigma", 0.1, 50))


def _downsample(options: _Options, context: _Context) -> Operator:
    factor = _factor(options)
    kernel: DownsampleKernel = "area"
    if options.choice("kernel", ("area", "bicubic"), "area") == "bicubic":
        kernel = "bicubic"
    return Downsample(factor, kernel)


def _mask(options: _Options, context: _Context) -> Operator:
    if "path" in options:
        path = options.text("path")
        return mask_of(context.base / path, spec=f"mask:path={quoted(path)}")
    keep, seed = options.number("keep", 0.001, 1), options.integer("seed", 0, 2**31 - 1, 0)
    per_frame = options.integer("per_frame", 0, 1, 0)
    if context.shape is None:
        raise UsageError(
            "a random mask cannot be drawn without the size of the video",
            hint="save the mask and give `mask:path=FILE`, as `instantvir degrade` does",
        )
    shape = context.shape
    generator = torch.Generator().manual_seed(seed)
    size = (shape.num_frames if per_frame else 1, 1, shape.height, shape.width)
    known = (torch.rand(size, generator=generator) < keep).float()
    return Mask(
        known, spec=f"mask:keep={keep:g},seed={seed}" + (",per_frame=1" if per_frame else "")
    )


_MAKERS: dict[str, Callable[[_Options, _Context], Operator]] = {
    "identity": _identity,
    "blur": _blur,
    "defocus": _defocus,
    "motion": _motion,
    "sharpen": _sharpen,
    "psf": _point_spread,
    "temporal": _temporal,
    "down": _downsample,
    "mask": _mask,
    "dust": lambda options, context: Dust(),
}


def mask_of(path: Path, *, spec: str) -> Mask | MaskFile:
    """The mask in `path`; that of a video, or of a folder of images, is read along with the frames.

    Args:
        spec: how it is written in a specification.

    Raises:
        UsageError: if there is no such file, or it is no mask of ours.
    """
    if (can_be_named(path) and path.is_dir()) or _is_video(path):
        return MaskFile(path, spec=spec)
    return Mask(load_mask(path), spec=spec)


def _is_video(path: Path) -> bool:
    """Whether it is to be opened as one: a file that by its name and content is no image."""
    if not (can_be_named(path) and path.is_file()):
        return False
    return path.suffix.lower() not in {".npz", ".png"} and not cv2.haveImageReader(str(path))


def load_mask(path: Path) -> Tensor:
    """The mask stored in `path`, [T, 1, H, W] of 0 and 1; light pixels (>= 128) are known.

    Reads an image (one mask for the whole clip), or an `.npz` that `save_mask` wrote.

    Raises:
        UsageError: if the file is missing or is neither.
    """
    if path.suffix == ".npz" and path.is_file():
        return torch.from_numpy(read_packed(path).astype(np.float32))[:, None]
    gray = _read_gray(path)
    return torch.from_numpy((gray >= 128).astype(np.float32))[None, None]


def save_mask(mask: Tensor, path: Path) -> Path:
    """Where the mask [T, 1, H, W] was written: `path`.png for one mask, `path`.npz for several.

    Raises:
        VideoWriteError: if it cannot be written.
    """
    suffix, data = encoded_mask(mask)
    path = path.with_name(f"{path.name}{suffix}")
    write_whole(path, data, may_replace=True)
    return path


def encoded_mask(mask: Tensor) -> tuple[str, bytes]:
    """(suffix, content) of a file that `load_mask` reads: `.png` for one mask, `.npz` for several."""
    known = mask[:, 0].byte().numpy()
    if len(known) == 1:
        _, data = cv2.imencode(".png", known[0] * 255)
        return ".png", data.tobytes()
    archive = io.BytesIO()
    np.savez_compressed(archive, shape=np.array(known.shape), known=np.packbits(known))
    return ".npz", archive.getvalue()


def _read_gray(path: Path) -> NDArray[np.uint8]:
    if not (can_be_named(path) and path.is_file()):
        raise UsageError(f"no such file: `{path}`")
    size = stated_size(path)
    if size is not None and size[0] * size[1] > MOST_IMAGE_PIXELS:
        raise UsageError(
            f"`{path}` has {size[0]}x{size[1]} pixels; at most {MOST_IMAGE_PIXELS} in all are read"
        )
    try:
        image = None if claims_too_much(path) else cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    except cv2.error:  # more than OpenCV reads
        image = None
    if image is None:
        raise UsageError(
            f"`{path}` is not an image", hint="use a PNG, white where pixels are known"
        )
    return np.asarray(image, np.uint8)


def _examples_of(name: str) -> str:
    examples = [spec for spec in OPERATOR_EXAMPLES.values() if spec.split(":")[0] == name]
    return "for example " + " or ".join(f"`{spec}`" for spec in examples)


def _either(names: list[str] | tuple[str, ...]) -> str:
    *others, last = (f"`{name}`" for name in names)
    return f"{', '.join(others)} or {last}" if others else last
