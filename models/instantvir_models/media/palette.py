"""Pictures of 256 colours, as GIF has them."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np

from instantvir_models.media.color import as_uint8
from instantvir_models.media.frame import Pixels


class Palette:
    """Finds 256 colours for each picture and dithers to them, by FFmpeg's filters."""

    def __init__(self, width: int, height: int) -> None:
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=width, height=height, format=av.VideoFormat("rgb24"), time_base=Fraction(1, 25)
        )
        split, found = graph.add("split"), graph.add("palettegen", "stats_mode=single")
        use, sink = graph.add("paletteuse", "new=1:dither=bayer"), graph.add("buffersink")
        source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(found, 1, 0)
        found.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()
        self._graph, self._count = graph, 0

    def picture(self, pixels: Pixels) -> av.VideoFrame:
        """[H, W, 3] as a picture with a palette of its own."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(as_uint8(pixels)), format="rgb24")
        frame.pts, frame.time_base = self._count, Fraction(1, 25)
        self._count += 1
        self._graph.push(frame)
        picture = self._graph.pull()
        assert isinstance(picture, av.VideoFrame)
        return picture
