"""Saying that pictures are woven of two fields, so that no player takes their combs for detail."""

from __future__ import annotations

from fractions import Fraction

import av

_INTERLACED_CODING = frozenset(
    {"libx264", "mpeg2video", "mpeg4", "prores_ks", "prores", "prores_aw", "dvvideo"}
)
_FIELD_FLAGS = {"flags": "+ildct+ilme"}


def says_fields(codec: str) -> bool:
    """Whether this encoder codes fields and says so."""
    return codec in _INTERLACED_CODING


def field_options(codec: str, *, is_top_first: bool) -> dict[str, str]:
    """Options with which this encoder does so; empty where it cannot."""
    if not says_fields(codec):
        return {}
    if codec == "libx264":  # which does not take the order from the pictures
        return {**_FIELD_FLAGS, "x264-params": "tff=1" if is_top_first else "bff=1"}
    return _FIELD_FLAGS


class FieldMarker:
    """Marks pictures as interlaced, which only FFmpeg's filters can.

    Args:
        is_top_first: whether the top field is the earlier one.
    """

    def __init__(self, *, is_top_first: bool) -> None:
        self._mode = "tff" if is_top_first else "bff"
        self._graph: av.filter.Graph | None = None

    def marked(self, picture: av.VideoFrame) -> av.VideoFrame:
        """The same picture, marked."""
        if self._graph is None:
            self._graph = self._new_graph(picture)
        picture.pts = 0
        self._graph.push(picture)
        marked = self._graph.pull()
        assert isinstance(marked, av.VideoFrame)
        marked.color_range, marked.colorspace = picture.color_range, picture.colorspace
        marked.color_trc, marked.color_primaries = picture.color_trc, picture.color_primaries
        return marked

    def _new_graph(self, like: av.VideoFrame) -> av.filter.Graph:
        graph = av.filter.Graph()
        source = graph.add_buffer(template=None, width=like.width, height=like.height,
                                  format=like.format, time_base=_UNIT)  # fmt: skip
        mark = graph.add("setfield", f"mode={self._mode}")
        sink = graph.add("buffersink")
        source.link_to(mark)
        mark.link_to(sink)
        graph.configure()
        return graph


_UNIT = Fraction(1, 25)
