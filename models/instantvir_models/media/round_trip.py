"""What an encoder does to frames, in memory: for training and for honest tests."""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
"""[T, H, W, 3] RGB."""


@dataclass(frozen=True)
class Encoder:
    """One way of making a file."""

    name: str
    """For people."""
    codec: str
    """As FFmpeg names it."""
    options: tuple[tuple[str, str], ...] = ()
    pix_fmt: str = "yuv420p"
    container: str = "matroska"

    def encoded(self, frames: Frames) -> bytes:
        """The file, at 25 frames a second; the sides of frames are even."""
        height, width = frames.shape[1:3]
        buffer = io.BytesIO()
        with av.open(buffer, "w", format=self.container) as file:
            stream = file.add_stream(self.codec, rate=Fraction(25), options=dict(self.options))
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = width, height, self.pix_fmt
            stream.codec_context.thread_count = 1
            for pixels in frames:
                file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            file.mux(stream.encode())
        return buffer.getvalue()


def h264(crf: int, preset: str = "veryfast") -> Encoder:
    """x264, the way most files are made, 0 (best) to 51."""
    return Encoder(f"h264 crf {crf}", "libx264", (("crf", str(crf)), ("preset", preset)))


def hevc(crf: int) -> Encoder:
    """x265, 0 (best) to 51."""
    options = (("crf", str(crf)), ("preset", "veryfast"), ("x265-params", "log-level=none:pools=1"))
    return Encoder(f"hevc crf {crf}", "libx265", options)


def vp9(crf: int) -> Encoder:
    """libvpx, 0 (best) to 63."""
    options = (("crf", str(crf)), ("b", "0"), ("deadline", "realtime"), ("cpu-used", "6"))
    return Encoder(f"vp9 crf {crf}", "libvpx-vp9", options)


def mpeg(codec: str, quantiser: int) -> Encoder:
    """`mpeg2video`, `mpeg4` or `mjpeg` at a fixed quantiser, 1 (best) to 31."""
    return Encoder(
        f"{codec.removesuffix('video')} q {quantiser}",
        codec,
        (("qmin", str(quantiser)), ("qmax", str(quantiser))),
        "yuvj420p" if codec == "mjpeg" else "yuv420p",
    )


LOSSLESS = Encoder("lossless", "ffv1", pix_fmt="bgr0")


def round_trip(frames: Frames, encoder: Encoder) -> Frames:
    """uint8 [T, H, W, 3] out of a file of `encoder`.

    Odd sizes are padded for the codec and cropped again.
    """
    height, width = frames.shape[1:3]
    padded = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    with av.open(io.BytesIO(encoder.encoded(padded)), "r") as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    frames = np.stack(decoded).astype(np.uint8, copy=False)
    return frames[:, :height, :width]


def h264_round_trip(frames: Frames, *, crf: int) -> Frames:
    """uint8 [T, H, W, 3] after H.264 at `crf`."""
    return round_trip(frames, h264(crf))
