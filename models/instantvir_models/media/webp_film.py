"""An animated WebP as a film that FFmpeg reads: it decodes still WebP alone.

Each picture of the animation is a still one that is laid over those before (WebP Container Specification,
Google); they are kept as FFV1 in Matroska, which loses nothing, in memory.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray

from instantvir_models.errors import VideoOpenError
from instantvir_models.media import color
from instantvir_models.media.reach import InputRules

MOST_BYTES = 2**28
"""Of the file, and of the film, in memory."""

Canvas = NDArray[np.uint8]
"""[H, W, 4], RGB and opacity."""


@dataclass(frozen=True)
class _Piece:
    """One picture of the animation, and where it is laid."""

    left: int
    top: int
    width: int
    height: int
    milliseconds: int
    replaces: bool
    """It takes the place of what is there, instead of lying over it."""
    is_cleared: bool
    """What it covers becomes transparent after it."""
    still: bytes
    """A WebP file."""


def webp_film(path: Path, name: str, rules: InputRules) -> io.BytesIO:
    """Matroska with the pictures of an animated WebP, each as long as it is shown.

    Args:
        name: how messages call it.
        rules: how large its pictures may be.

    Raises:
        VideoOpenError: if it is damaged, or larger than is allowed.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES >> 20} MiB")
        data = path.read_bytes()
        chunks = list(_chunks(data, 12, len(data)))
        header = next(body for kind, body in chunks if kind == b"VP8X")
        width, height = _number(header, 4) + 1, _number(header, 7) + 1
        rules.check_size(name, width, height)
        pieces = [_piece(body) for kind, body in chunks if kind == b"ANMF"]
        return _written(_canvases(pieces, width, height, rules), width, height)
    except (OSError, ValueError, IndexError, StopIteration, struct.error, av.FFmpegError) as error:
        raise VideoOpenError(
            f"{name} is an animated WebP that cannot be read: {error or 'it is cut off'}",
            hint="replace it, or convert it to APNG with another program first",
        ) from error


def _chunks(data: bytes, begin: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    while begin + 8 <= end:
        kind, size = struct.unpack_from("<4sI", data, begin)
        if begin + 8 + size > end:
            raise ValueError("it is cut off")
        yield kind, data[begin + 8 : begin + 8 + size]
        begin += 8 + size + size % 2


def _number(data: bytes, at: int) -> int:
    """Three bytes, the lowest first."""
    if len(data) < at + 3:
        raise ValueError("it is cut off")
    return int.from_bytes(data[at : at + 3], "little")


def _piece(body: bytes) -> _Piece:
    left, top, width, height, duration = (_number(body, at) for at in range(0, 15, 3))
    flags, inner = body[15], body[16:]
    if any(kind == b"ALPH" for kind, _ in _chunks(inner, 0, len(inner))):
        sizes = width.to_bytes(3, "little") + height.to_bytes(3, "little")
        inner = struct.pack("<4sII", b"VP8X", 10, 0x10) + sizes + inner  # says that it has opacity
    still = struct.pack("<4sI4s", b"RIFF", 4 + len(inner), b"WEBP") + inner
    return _Piece(
        2 * left, 2 * top, width + 1, height + 1, duration, bool(flags & 2), bool(flags & 1), still
    )


def _canvases(
    pieces: list[_Piece], width: int, height: int, rules: InputRules
) -> Iterator[tuple[Canvas, int]]:
    """What is seen with each picture, and for how many milliseconds."""
    canvas = np.zeros((height, width, 4), np.uint8)
    decoder = av.CodecContext.create("webp", "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.options = rules.decoder_options
    for piece in pieces:
        place = (
            slice(piece.top, piece.top + piece.height),
            slice(piece.left, piece.left + piece.width),
        )
        (picture,) = decoder.decode(av.Packet(piece.still))
        laid = _rgba(picture)
        if laid.shape[:2] != (piece.height, piece.width) or canvas[place].shape != laid.shape:
            raise ValueError("a picture lies outside")
        canvas[place] = laid if piece.replaces else _over(laid, canvas[place])
        yield canvas.copy(), piece.milliseconds
        if piece.is_cleared:
            canvas[place] = 0


def _rgba(picture: av.VideoFrame) -> Canvas:
    tags = color.resolved(
        color.color_tags_of(picture), pix_fmt=picture.format.name, height=picture.height
    )
    opacity = color.alpha_of(picture)
    if opacity is None:
        opacity = np.full((picture.height, picture.width), 255, np.uint8)
    return np.dstack([color.to_rgb(picture, tags), opacity]).astype(np.uint8)


def _over(above: Canvas, below: Canvas) -> Canvas:
    """`above` laid over `below`, of which neither is multiplied by its opacity."""
    a, b = above[..., 3:] / 255.0, below[..., 3:] / 255.0
    opacity = a + b * (1 - a)
    mixed = (above[..., :3] * a + below[..., :3] * b * (1 - a)) / np.maximum(opacity, 1e-6)
    return np.dstack([mixed, 255 * opacity]).round().astype(np.uint8)


def _written(canvases: Iterator[tuple[Canvas, int]], width: int, height: int) -> io.BytesIO:
    film, begin = io.BytesIO(), 0
    with av.open(film, "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=25, options={"g": "1"})
        stream.width, stream.height, stream.pix_fmt = width, height, "bgra"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.thread_count = 1  # each packet comes at once, and gets its length
        for canvas, milliseconds in canvases:
            picture = av.VideoFrame.from_ndarray(canvas, format="rgba").reformat(format="bgra")
            picture.pts, picture.time_base = begin, Fraction(1, 1000)
            for packet in stream.encode(picture):
                packet.duration = max(1, milliseconds)
                container.mux(packet)
            begin += max(1, milliseconds)
            if film.tell() > MOST_BYTES:
                raise ValueError(f"its pictures take more than {MOST_BYTES >> 20} MiB")
        container.mux(stream.encode(None))
    film.seek(0)
    return film
