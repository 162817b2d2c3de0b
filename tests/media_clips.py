"""Small clips for tests, made with PyAV alone, so that `media` is tested against something else."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 48_000
_SWSCALE_MATRIX = {1: 1, 5: 5, 6: 5, 9: 9}


def picture(index: int, width: int, height: int) -> NDArray[np.uint8]:
    """[H, W, 3]: smooth colour ramps with a bright square whose place tells the index."""
    y, x = np.mgrid[0:height, 0:width]
    red = 40 + 150 * x / max(1, width - 1)
    green = 40 + 150 * y / max(1, height - 1)
    blue = np.full_like(red, 60 + (index * 7) % 120)
    pixels = np.stack([red, green, blue], axis=-1)
    side = max(2, min(width, height) // 4)
    left = (index * 2) % max(1, width - side)
    pixels[:side, left : left + side] = (220, 200, 90)
    return pixels.round().astype(np.uint8)


def write_frames(
    path: str | Path,
    frames: Sequence[NDArray[np.uint8]],
    codec: str,
    pix_fmt: str,
    options: dict[str, str] | None = None,
) -> Path:
    """A file of these frames [H, W, 3] at 25 a second."""
    path = Path(path)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        for pixels in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(stream.encode(picture.reformat(format=pix_fmt)))
        container.mux(stream.encode())
    return path


def make_clip(
    path: str | Path,
    *,
    width: int = 32,
    height: int = 32,
    num_frames: int = 10,
    fps: int | Fraction = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    audio: bool = False,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    color: tuple[int, int, int, int] | None = None,
    sample_aspect_ratio: Fraction | None = None,
    metadata: dict[str, str] | None = None,
    chapters: Sequence[tuple[float, float, str]] = (),
    subtitles: Sequence[tuple[float, float, str]] = (),
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """A file of `num_frames` `picture`s.

    `pts` are in `time_base` (1/fps if not given); `color` is range, matrix, transfer, primaries in
    FFmpeg's numbers, the pixels are converted accordingly; `audio` adds a sine (AAC, in WebM Opus)
    as long as the video; `subtitles` (Matroska) and `chapters` are begin, end (seconds) and text.
    """
    path = Path(path)
    time_base = time_base or 1 / Fraction(fps)
    times = list(pts) if pts is not None else list(range(num_frames))
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        container.metadata.update(metadata or {})
        video = container.add_stream(
            codec, rate=Fraction(fps), options=options, width=width, height=height, pix_fmt=pix_fmt
        )
        video.time_base = video.codec_context.time_base = time_base
        if sample_aspect_ratio is not None:
            video.codec_context.sample_aspect_ratio = sample_aspect_ratio
        if color is not None:
            context = video.codec_context
            context.color_range, context.colorspace, context.color_trc, context.color_primaries = (
                color
            )
        sound = _add_sine(container, path) if audio else None
        captions = container.add_mux_stream("subrip") if subtitles else None
        if chapters:
            container.set_chapters([_chapter(i, *chapter) for i, chapter in enumerate(chapters)])
        container.start_encoding()
        for start, end, text in subtitles:
            container.mux(_caption(captions, start, end, text))
        for index, time in enumerate(times):
            frame = _frame(picture(index, width, height), pix_fmt, color)
            frame.pts, frame.time_base = time, time_base
            frame.duration = round(1 / Fraction(fps) / time_base)
            container.mux(video.encode(frame))
        if sound is not None:
            seconds = (times[-1] + round(1 / Fraction(fps) / time_base)) * time_base
            _encode_sine(container, sound, seconds)
        container.mux(video.encode(None))
    return path


def make_images(folder: Path, num_images: int, *, width: int = 32, height: int = 32) -> list[Path]:
    """`picture`s as frame_00001.png and so on."""
    paths = [folder / f"frame_{index + 1:05d}.png" for index in range(num_images)]
    for index, path in enumerate(paths):
        pixels = np.ascontiguousarray(picture(index, width, height))
        with av.open(
            str(path), "w", format="image2", container_options={"update": "1"}
        ) as container:
            stream = container.add_stream("png", width=width, height=height, pix_fmt="rgb24")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode(None))
    return paths


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Rewrite an MP4's display matrix; (0, 1, -1, 0) means a quarter turn clockwise."""
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd")
    assert data[header + 4] == 0, "only version 0 headers"
    offset = header + 4 + 40
    one = 1 << 16
    data[offset : offset + 36] = struct.pack(
        ">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30
    )
    path.write_bytes(data)


def packets_of(path: Path, kind: str) -> list[tuple[float | None, bytes]]:
    """Time (seconds) and payload of the packets of the first `audio` or `subtitles` stream."""
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        return [
            (None if p.pts is None else float(p.pts * p.time_base), bytes(p))
            for p in container.demux(stream)
            if p.size
        ]


def _frame(
    pixels: NDArray[np.uint8], pix_fmt: str, color: tuple[int, int, int, int] | None
) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    color_range, matrix = (1, 6) if color is None else color[:2]
    if matrix not in _SWSCALE_MATRIX:
        color_range, matrix = color_range or 1, 6
    return frame.reformat(
        format=pix_fmt,
        src_color_range=2,
        dst_colorspace=_SWSCALE_MATRIX[matrix],
        dst_color_range=color_range or 1,
        threads=1,
    )


def _add_sine(container: av.container.OutputContainer, path: Path) -> av.AudioStream:
    codec = "libopus" if path.suffix == ".webm" else "aac"
    stream = container.add_stream(codec, rate=SAMPLE_RATE)
    stream.codec_context.layout = "mono"
    stream.metadata["language"] = "deu"
    return stream


def _encode_sine(
    container: av.container.OutputContainer, stream: av.AudioStream, seconds: Fraction
) -> None:
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    samples = (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    if stream.codec_context.format.name == "s16":
        samples = (samples * 32767).astype(np.int16)
    name = "flt" if samples.dtype == np.float32 else "s16"
    frame = av.AudioFrame.from_ndarray(samples[None], format=name, layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
    resampler = av.AudioResampler(
        format=stream.codec_context.format, layout="mono", rate=SAMPLE_RATE
    )
    for resampled in resampler.resample(frame):
        container.mux(stream.encode(resampled))
    container.mux(stream.encode(None))


def _caption(
    stream: av.stream.Stream | None, start: float, end: float, text: str
) -> av.Packet[av.stream.Stream]:
    packet = av.Packet(text.encode())
    packet.stream = stream
    packet.time_base = Fraction(1, 1000)
    packet.pts = packet.dts = round(start * 1000)
    packet.duration = round((end - start) * 1000)
    return packet


def _chapter(index: int, start: float, end: float, title: str) -> dict[str, object]:
    return {
        "id": index,
        "start": round(start * 1000),
        "end": round(end * 1000),
        "time_base": Fraction(1, 1000),
        "metadata": {"title": title},
    }
