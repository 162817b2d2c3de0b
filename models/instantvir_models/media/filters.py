"""FFmpeg's filters on frames in memory."""

from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray


def filtered(frames: NDArray[np.uint8], filters: Sequence[tuple[str, str]]) -> NDArray[np.uint8]:
    """RGB frames uint8 [T, H, W, 3] after `filters`, each a name and its arguments.

    Filters give out one frame for each that they take, at once, and of the same size.
    """
    height, width = frames.shape[1:3]
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=width, height=height, format=av.VideoFormat("rgb24"), time_base=Fraction(1, 25)
    )
    last = source
    for name, arguments in (*filters, ("format", "rgb24"), ("buffersink", None)):
        node = graph.add(name, arguments)
        last.link_to(node)
        last = node
    graph.configure()
    out = []
    for pixels in frames:
        source.push(av.VideoFrame.from_ndarray(pixels, format="rgb24"))
        frame = last.pull()
        assert isinstance(frame, av.VideoFrame)
        out.append(frame.to_ndarray(format="rgb24"))
    return np.stack(out).astype(np.uint8, copy=False)
