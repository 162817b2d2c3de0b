"""Colour: which YUV a video means, and the way to RGB and back.

8-bit pictures go through swscale with every argument spelt out (left alone it assumes BT.601).
Deeper pictures use the matrices below in float32: FFmpeg 8.1's swscale is off by up to 3 levels of
10-bit between YUV and 16-bit RGB, and with accurate rounding it wraps around (1000 levels).
There swscale only resamples the chroma.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import av
import numpy as np
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from instantvir_models.media.frame import Opacity, Pixels
from instantvir_models.media.matrices import MATRIX_YCGCO, OTHER_MATRICES, to_rgb_levels

logger = logging.getLogger(__name__)

# FFmpeg's numbers, which are those of ITU-T H.273.
RANGE_UNSPECIFIED, RANGE_LIMITED, RANGE_FULL = 0, 1, 2
MATRIX_RGB, MATRIX_BT709, MATRIX_UNSPECIFIED, MATRIX_SMPTE170M = 0, 1, 2, 6
MATRIX_BT2020_NCL = 9
UNSPECIFIED = 2

_KR_KB = {
    1: (0.2126, 0.0722),  # BT.709
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.470BG
    6: (0.299, 0.114),  # SMPTE 170M
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020, non-constant luminance
}
_SWSCALE_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
# Bilinear, because swscale's bicubic rings at chroma edges (5 levels instead of 1 in 8-bit 4:2:0).
_INTERPOLATION = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


@dataclass(frozen=True)
class ColorTags:
    """What a video says about its colours, in FFmpeg's (H.273's) numbers."""

    range: int = RANGE_UNSPECIFIED
    """0 unspecified, 1 limited (16..235 of 255), 2 full."""
    matrix: int = MATRIX_UNSPECIFIED
    """0 RGB, 1 BT.709, 2 unspecified, 5 and 6 BT.601, 9 BT.2020."""
    transfer: int = UNSPECIFIED
    """1 BT.709, 2 unspecified, 13 sRGB, 16 PQ, 18 HLG."""
    primaries: int = UNSPECIFIED
    """1 BT.709, 2 unspecified, 5 and 6 BT.601, 9 BT.2020."""


def color_tags_of(frame: av.VideoFrame) -> ColorTags:
    """The tags as the decoder reports them, unspecified ones left so."""
    return ColorTags(
        int(frame.color_range),
        int(frame.colorspace),
        int(frame.color_trc),
        int(frame.color_primaries),
    )


def resolved(tags: ColorTags, *, pix_fmt: str, height: int) -> ColorTags:
    """The tags with the range and matrix that a conversion of `pix_fmt` uses filled in.

    Untagged video is BT.709 from 720 lines on and BT.601 below, limited range except for gray and
    the `yuvj` formats; transfer and primaries stay as they are. RGB has matrix 0, full range.
    """
    if is_rgb(pix_fmt):
        return replace(tags, range=RANGE_FULL, matrix=MATRIX_RGB)
    matrix, color_range = tags.matrix, tags.range
    if matrix not in _KR_KB and matrix not in OTHER_MATRICES:
        if matrix not in (MATRIX_RGB, MATRIX_UNSPECIFIED):
            logger.warning("color matrix %d is not supported; taken as untagged", matrix)
        matrix = MATRIX_BT709 if height >= 720 else MATRIX_SMPTE170M
    if color_range not in (RANGE_LIMITED, RANGE_FULL):
        is_full = pix_fmt.startswith("yuvj") or is_gray(pix_fmt)
        color_range = RANGE_FULL if is_full else RANGE_LIMITED
    return replace(tags, range=color_range, matrix=matrix)


def is_rgb(pix_fmt: str) -> bool:
    """Whether the format holds RGB, directly or through a palette."""
    return bool(av.VideoFormat(pix_fmt).is_rgb) or pix_fmt.startswith("pal")


def is_gray(pix_fmt: str) -> bool:
    """Whether the format holds luma alone, with or without opacity."""
    return pix_fmt.startswith(("gray", "ya", "mono"))


def bit_depth_of(pix_fmt: str) -> int:
    """Bits per channel, at most 16 (floating-point formats count as 16)."""
    components = av.VideoFormat(pix_fmt).components
    return min(16, max((component.bits for component in components), default=8))


def has_alpha(pix_fmt: str) -> bool:
    """Whether the format has a channel of opacity."""
    return any(component.is_alpha for component in av.VideoFormat(pix_fmt).components)


def to_rgb(frame: av.VideoFrame, tags: ColorTags) -> Pixels:
    """[H, W, 3] full-range RGB, uint8 for 8-bit formats and uint16 (0..65535) for deeper ones.

    `tags` are `resolved` ones.
    """
    pix_fmt = frame.format.name
    if _is_plain_gray(pix_fmt):
        return _gray_to_rgb(frame, tags)
    if tags.matrix in OTHER_MATRICES:
        return _yuv_to_rgb(frame, tags)
    if bit_depth_of(pix_fmt) <= 8:
        return _uint8_array(_to_rgb24(frame, tags))
    if is_rgb(pix_fmt) or "f16" in pix_fmt or "f32" in pix_fmt:
        return _deep_rgb(frame)
    return _yuv_to_rgb(frame, tags)


def luma_of(picture: av.VideoFrame) -> NDArray[np.uint8]:
    """[H, W] in full range, 0..255, for looking at."""
    matrix = picture.colorspace
    if int(matrix) in OTHER_MATRICES:
        picture.colorspace = MATRIX_UNSPECIFIED  # swscale refuses them
    gray = picture.reformat(format="gray", threads=1)
    picture.colorspace = matrix
    return _uint8_array(gray)


def alpha_of(frame: av.VideoFrame) -> Opacity | None:
    """[H, W] opacity in the full range of its type, which is that of `to_rgb`; None without one."""
    name = frame.format.name
    if not has_alpha(name):
        return None
    is_deep = bit_depth_of(name) > 8
    if len(frame.planes) == 4:
        depth = bit_depth_of(name)
        if is_deep and not name.endswith("le"):
            return None
        values = _plane(frame.planes[3], frame.width, np.uint16 if is_deep else np.uint8)
        if not is_deep:
            return np.ascontiguousarray(values, np.uint8)
        return _scale_integers(np.ascontiguousarray(values, np.uint16), 2**depth - 1, 65535)
    if is_deep:
        rgba64 = _uint16_array(frame.reformat(format="rgba64le", threads=1))
        return np.ascontiguousarray(rgba64[..., 3])
    return np.ascontiguousarray(_uint8_array(frame.reformat(format="rgba", threads=1))[..., 3])


def is_transparent(alpha: Opacity | None) -> bool:
    """Whether something shows through a picture of this opacity."""
    return alpha is not None and int(alpha.min()) < np.iinfo(alpha.dtype).max


def writable(tags: ColorTags, *, height: int) -> ColorTags:
    """The same colours with a matrix that `from_rgb` writes."""
    if tags.matrix not in OTHER_MATRICES:
        return tags
    plain = MATRIX_BT709 if height >= 720 else MATRIX_SMPTE170M
    return replace(tags, matrix=plain if tags.matrix == MATRIX_YCGCO else MATRIX_BT2020_NCL)


def from_rgb(
    pixels: Pixels, pix_fmt: str, tags: ColorTags, alpha: Opacity | None = None
) -> av.VideoFrame:
    """A frame in `pix_fmt` from full-range RGB [H, W, 3], tagged with `tags` (`resolved` ones).

    Args:
        alpha: [H, W] opacity; a format that holds one is opaque without it, others leave it out.
    """
    depth = bit_depth_of(pix_fmt)
    if alpha is not None and not has_alpha(pix_fmt):
        alpha = None
    if depth <= 8:
        opacity = None if alpha is None else as_uint8(alpha)
        frame = _from_rgb24(as_uint8(pixels), pix_fmt, tags, opacity)
    elif is_rgb(pix_fmt):
        frame = _from_deep_rgb(_as_uint16(pixels), pix_fmt, depth, _deep_alpha(alpha))
    else:
        frame = _from_deep_yuv(_as_uint16(pixels), pix_fmt, depth, tags, _deep_alpha(alpha))
    frame.color_range, frame.colorspace = tags.range, tags.matrix
    frame.color_trc, frame.color_primaries = tags.transfer, tags.primaries
    return frame


def _is_plain_gray(pix_fmt: str) -> bool:
    return pix_fmt == "gray" or (pix_fmt.startswith("gray") and pix_fmt[4:].rstrip("le").isdigit())


def _gray_to_rgb(frame: av.VideoFrame, tags: ColorTags) -> Pixels:
    """Not through swscale, which takes gray for full range whatever its tag says."""
    depth = bit_depth_of(frame.format.name)
    dtype = np.uint8 if depth == 8 else np.uint16
    black, luma_span, _ = _code_range(depth, tags.range)
    levels = (_plane(frame.planes[0], frame.width, dtype).astype(np.float32) - black) / luma_span
    gray = np.rint(levels.clip(0, 1) * np.iinfo(dtype).max).astype(dtype)
    return np.repeat(gray[..., None], 3, axis=-1)


def _to_rgb24(frame: av.VideoFrame, tags: ColorTags) -> av.VideoFrame:
    if tags.matrix == MATRIX_RGB:
        return frame.reformat(format="rgb24", interpolation=_INTERPOLATION, threads=1)
    return frame.reformat(
        format="rgb24",
        src_colorspace=_SWSCALE_MATRIX[tags.matrix],
        src_color_range=tags.range,
        dst_color_range=RANGE_FULL,
        interpolation=_INTERPOLATION,
        threads=1,
    )


def _deep_alpha(alpha: Opacity | None) -> NDArray[np.uint16] | None:
    return None if alpha is None else _as_uint16(alpha)


def _from_rgb24(
    pixels: NDArray[np.uint8], pix_fmt: str, tags: ColorTags, alpha: NDArray[np.uint8] | None
) -> av.VideoFrame:
    if alpha is None:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    else:
        frame = av.VideoFrame.from_ndarray(np.dstack([pixels, alpha]), format="rgba")
    if tags.matrix == MATRIX_RGB:
        return frame.reformat(format=pix_fmt, interpolation=_INTERPOLATION, threads=1)
    return frame.reformat(
        format=pix_fmt,
        src_color_range=RANGE_FULL,
        dst_colorspace=_SWSCALE_MATRIX[tags.matrix],
        dst_color_range=tags.range,
        interpolation=_INTERPOLATION,
        threads=1,
    )


def _deep_rgb(frame: av.VideoFrame) -> NDArray[np.uint16]:
    name = frame.format.name
    if name.startswith("gbrp") and not name.startswith("gbrpf"):
        if not name.endswith("le"):
            frame = frame.reformat(format=name.removesuffix("be") + "le", threads=1)
        return _scale_integers(_uint16_array(frame), 2 ** bit_depth_of(name) - 1, 65535)
    return _uint16_array(frame.reformat(format="rgb48le", threads=1))


def _uint8_array(frame: av.VideoFrame) -> NDArray[np.uint8]:
    return np.ascontiguousarray(frame.to_ndarray(), np.uint8)


def _uint16_array(frame: av.VideoFrame) -> NDArray[np.uint16]:
    return np.ascontiguousarray(frame.to_ndarray(), np.uint16)


def _from_deep_rgb(
    pixels: NDArray[np.uint16], pix_fmt: str, depth: int, alpha: NDArray[np.uint16] | None
) -> av.VideoFrame:
    is_planar = pix_fmt.startswith("gbrp") or (pix_fmt.startswith("gbrap") and alpha is not None)
    if is_planar and pix_fmt.endswith("le") and "f" not in pix_fmt:
        if alpha is not None:
            pixels = np.dstack([pixels, alpha])
        levels = _scale_integers(pixels, 65535, 2**depth - 1)
        red, green, blue, *opacity = np.moveaxis(levels, -1, 0)
        return _frame_of_planes([green, blue, red, *opacity], pix_fmt)
    if alpha is not None:
        frame = av.VideoFrame.from_ndarray(np.dstack([pixels, alpha]), format="rgba64le")
    else:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb48le")
    return frame.reformat(format=pix_fmt, threads=1)


def _yuv_to_rgb(frame: av.VideoFrame, tags: ColorTags) -> Pixels:
    """By the matrices of this module, in the depth of the result: 8 bits stay 8."""
    depth = bit_depth_of(frame.format.name)
    dtype, middle = (np.uint8 if depth == 8 else np.uint16), np.float32(2 ** (depth - 1))
    black, luma_span, chroma_span = _code_range(depth, tags.range)
    planar = _resampled(frame, "yuv444p" if depth == 8 else f"yuv444p{depth}le", tags.range)
    luma, blue_difference, red_difference = (
        _plane(plane, frame.width, dtype).astype(np.float32) for plane in planar.planes
    )
    y = (luma - black) / luma_span
    cb, cr = (blue_difference - middle) / chroma_span, (red_difference - middle) / chroma_span
    if tags.matrix in OTHER_MATRICES:
        rgb = to_rgb_levels(y, cb, cr, matrix=tags.matrix, transfer=tags.transfer)
    else:
        kr, kb = _KR_KB[tags.matrix]
        red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
        green = (y - kr * red - kb * blue) / (1 - kr - kb)
        rgb = np.stack([red, green, blue], axis=-1)
    levels: Pixels = np.rint(rgb.clip(0, 1) * np.iinfo(dtype).max).astype(dtype)
    return levels


def _from_deep_yuv(
    pixels: NDArray[np.uint16],
    pix_fmt: str,
    depth: int,
    tags: ColorTags,
    alpha: NDArray[np.uint16] | None,
) -> av.VideoFrame:
    black, luma_span, chroma_span = _code_range(depth, tags.range)
    red, green, blue = np.moveaxis(pixels.astype(np.float32) / 65535, -1, 0)
    kr, kb = _KR_KB[tags.matrix]
    y = kr * red + (1 - kr - kb) * green + kb * blue
    middle = np.float32(2 ** (depth - 1))
    planes = [
        black + luma_span * y,
        middle + chroma_span * (blue - y) / (2 * (1 - kb)),
        middle + chroma_span * (red - y) / (2 * (1 - kr)),
    ]
    integers = [np.rint(plane).clip(0, 2**depth - 1).astype(np.uint16) for plane in planes]
    letters = "yuv"
    if alpha is not None:
        integers.append(_scale_integers(alpha, 65535, 2**depth - 1))
        letters = "yuva"
    frame = _frame_of_planes(integers, f"{letters}444p{depth}le")
    return _resampled(frame, pix_fmt, tags.range)


def _resampled(frame: av.VideoFrame, pix_fmt: str, color_range: int) -> av.VideoFrame:
    """The same YUV values with another chroma layout."""
    if int(frame.colorspace) in OTHER_MATRICES:
        frame.colorspace = MATRIX_UNSPECIFIED  # swscale refuses even to resample them
    return frame.reformat(
        format=pix_fmt,
        src_color_range=color_range,
        dst_color_range=color_range,
        interpolation=_INTERPOLATION,
        threads=1,
    )


def _code_range(depth: int, color_range: int) -> tuple[np.float32, np.float32, np.float32]:
    """Code of black, and the spans of luma and chroma, at `depth` bits."""
    if color_range == RANGE_FULL:
        span = np.float32(2**depth - 1)
        return np.float32(0), span, span
    unit = 2 ** (depth - 8)
    return np.float32(16 * unit), np.float32(219 * unit), np.float32(224 * unit)


def _plane(
    plane: av.video.plane.VideoPlane, width: int, dtype: type[np.uint8] | type[np.uint16]
) -> Pixels:
    values = np.frombuffer(memoryview(plane), np.dtype(dtype).newbyteorder("<"))
    rows = values.reshape(-1, plane.line_size // values.itemsize)
    return rows[: plane.height, :width]


def _frame_of_planes(planes: list[NDArray[np.uint16]], pix_fmt: str) -> av.VideoFrame:
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, pix_fmt)
    for target, values in zip(frame.planes, planes, strict=True):
        rows = np.zeros((target.buffer_size // target.line_size, target.line_size // 2), "<u2")
        rows[:height, :width] = values
        target.update(rows.tobytes())
    return frame


def _scale_integers(
    values: NDArray[np.uint16], from_maximum: int, to_maximum: int
) -> NDArray[np.uint16]:
    if from_maximum == to_maximum:
        return values
    scaled = (values.astype(np.uint64) * to_maximum + from_maximum // 2) // from_maximum
    return scaled.astype(np.uint16)


def as_uint8(pixels: Pixels | Opacity) -> NDArray[np.uint8]:
    """Full-range RGB in eight bits, rounded; those that have eight are returned as they are."""
    if pixels.dtype == np.uint8:
        return pixels  # type: ignore[return-value]
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _as_uint16(pixels: Pixels) -> NDArray[np.uint16]:
    if pixels.dtype == np.uint16:
        return pixels  # type: ignore[return-value]
    return pixels.astype(np.uint16) * 257
