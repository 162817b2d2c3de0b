"""What a lossy codec does to frames, in memory: for training and for honest tests."""

from __future__ import annotations

import io
from dataclasses import dataclass

import av
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Lossy:
    """A codec and how coarsely it quantises."""

    encoder: str
    """As FFmpeg names it."""
    options: tuple[tuple[str, str], ...]
    pix_fmt: str = "yuv420p"


def h264(crf: int) -> Lossy:
    """The way most files are made, 0 (best) to 51."""
    return Lossy("libx264", (("crf", str(crf)), ("preset", "veryfast")))


def mpeg(encoder: str, quantiser: int) -> Lossy:
    """`mpeg2video`, `mpeg4` or `mjpeg` at a fixed quantiser, 1 (best) to 31."""
    options = (("qmin", str(quantiser)), ("qmax", str(quantiser)))
    return Lossy(encoder, options, "yuvj420p" if encoder == "mjpeg" else "yuv420p")


def round_trip(frames: NDArray[np.uint8], lossy: Lossy) -> NDArray[np.uint8]:
    """uint8 [T, H, W, 3] after `lossy` in 4:2:0.

    Odd sizes are padded for the codec and cropped again.
    """
    height, width = frames.shape[1:3]
    padded = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    buffer = io.BytesIO()
    options = {**dict(lossy.options), "threads": "1"}
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream(lossy.encoder, rate=25, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = padded.shape[2], padded.shape[1]
        stream.pix_fmt = lossy.pix_fmt
        for pixels in padded:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer, "r") as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    frames = np.stack(decoded).astype(np.uint8, copy=False)
    return frames[:, :height, :width]


def h264_round_trip(frames: NDArray[np.uint8], *, crf: int) -> NDArray[np.uint8]:
    """uint8 [T, H, W, 3] after H.264 at `crf`."""
    return round_trip(frames, h264(crf))
