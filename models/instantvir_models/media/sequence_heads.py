"""Where the pictures of an MPEG stream get another size: its decoder forgets the picture that it holds
back, which was to be shown before."""

from __future__ import annotations

import re

_MPEG_2 = frozenset({"mpeg1video", "mpeg2video"})
_SIZE_IN_MPEG_2 = slice(4, 7)
"""Twelve bits of width and of height, behind the start code of a sequence (ISO/IEC 13818-2, 6.2.2.1)."""
_MPEG_4_LAYER = re.compile(rb"\x00\x00\x01[\x20-\x2f].*?(?=\x00\x00\x01|\Z)", re.DOTALL)
"""A video object layer, which says the size (ISO/IEC 14496-2, 6.2.3): what encoders write behind it,
such as the time, changes nothing."""


class SequenceHeads:
    """Finds packets that begin with another head than the ones before them did."""

    def __init__(self, codec_name: str) -> None:
        self._codec_name = codec_name
        self._last: bytes | None = None

    def is_new(self, data: bytes) -> bool:
        """Whether pictures of another size begin with this packet, at the end of those before."""
        head = self._head(data)
        if not head:
            return False
        before, self._last = self._last, head
        return before is not None and before != head

    def _head(self, data: bytes) -> bytes:
        """What a packet says before its picture; nothing where it only goes on."""
        if self._codec_name in _MPEG_2 and data.startswith(b"\0\0\1\xb3"):
            return data[_SIZE_IN_MPEG_2]
        if self._codec_name == "mpeg4" and data.startswith(
            (b"\0\0\1\xb0", b"\0\0\1\0", b"\0\0\1\x20")
        ):
            layer = _MPEG_4_LAYER.search(data)
            return layer[0] if layer else b""
        return b""
