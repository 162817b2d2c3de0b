"""What a lossy codec does to frames, in memory: for training and for honest tests."""

from __future__ import annotations

import io

import av
import numpy as np
from numpy.typing import NDArray


def h264_round_trip(frames: NDArray[np.uint8], *, crf: int) -> NDArray[np.uint8]:
    """uint8 [T, H, W, 3] after H.264 at `crf` in 4:2:0, the way most files are made.

    Odd sizes are padded for the codec and cropped again.
    """
    height, width = frames.shape[1:3]
    padded = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    buffer = io.BytesIO()
    options = {"crf": str(crf), "preset": "veryfast", "threads": "1"}
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = padded.shape[2], padded.shape[1], "yuv420p"
        for pixels in padded:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer, "r") as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    frames = np.stack(decoded).astype(np.uint8, copy=False)
    return frames[:, :height, :width]
