"""Pictures of 256 colours, as GIF has them."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np

from instantvir_models.media.color import as_uint8
from instantvir_models.media.frame import Opacity, Pixels


class Palette:
    """Finds 256 colours for each picture, one of them transparent, and dithers to them, by FFmpeg's
    filters."""

    def __init__(self) -> None:
        self._graph: av.filter.Graph | None = None
        self._count = 0

    def picture(self, pixels: Pixels, alpha: Opacity | None = None) -> av.VideoFrame:
        """[H, W, 3], and [H, W] of which less than half is transparent, with a palette of its own."""
        colors = as_uint8(pixels)
        opacity = np.full(colors.shape[:2], 255, np.uint8) if alpha is None else as_uint8(alpha)
        rgba = np.ascontiguousarray(np.dstack([colors, opacity]))
        frame = av.VideoFrame.from_ndarray(rgba, format="rgba")
        frame.pts, frame.time_base = self._count, _UNIT
        self._count += 1
        if self._graph is None:
            self._graph = _new_graph(frame.width, frame.height)
        self._graph.push(frame)
        picture = self._graph.pull()
        assert isinstance(picture, av.VideoFrame)
        return picture


def _new_graph(width: int, height: int) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=width, height=height, format=av.VideoFormat("rgba"), time_base=_UNIT
    )
    split, found = graph.add("split"), graph.add("palettegen", "stats_mode=single")
    use, sink = graph.add("paletteuse", "new=1:dither=bayer"), graph.add("buffersink")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(found, 1, 0)
    found.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return graph


_UNIT = Fraction(1, 25)
