"""Pictures that a decoder mends in silence: those of JPEG.

FFmpeg shows what it can of a JPEG whose codes mean nothing, or end too early, and tells its log alone. A
strict decoder refuses such a picture. Each stands alone, so another decoder, which is not strict, can then
show what there is of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import av
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

_MENDED = frozenset({"mjpeg"})
"""Codecs whose decoder tells its log alone, and where no picture needs another one."""

ALWAYS = "aggressive"
"""A slice of H.264 (CAVLC) that does not end where its data do is damaged: half of flipped bits show so."""


def strictness(codec_name: str) -> Mapping[str, str]:
    """Options of a decoder that tells as much as it can of damage, and loses no picture that
    `Mending` does not give back."""
    return {"err_detect": f"{ALWAYS}+explode" if codec_name in _MENDED else ALWAYS}


class Mending:
    """Pictures that a strict decoder refused, as far as they can be shown.

    Args:
        video: the strict decoder.
    """

    def __init__(self, video: VideoCodecContext) -> None:
        self._video = video
        self._decoder: VideoCodecContext | None = None

    def pictures(self, packet: Packet[Any]) -> list[av.VideoFrame]:
        """What there is in a packet that was refused; nothing where the strict decoder is the only one."""
        if self._video.codec.canonical_name not in _MENDED:
            return []
        try:
            return (self._decoder or self._opened()).decode(packet)
        except av.FFmpegError:
            return []

    def _opened(self) -> VideoCodecContext:
        decoder = av.CodecContext.create(self._video.codec.name, "r")
        assert isinstance(decoder, VideoCodecContext)
        decoder.extradata = self._video.extradata
        # Else the fields of an interlaced picture, two JPEGs in a packet, are taken for small pictures.
        decoder.width, decoder.height = self._video.width, self._video.height
        decoder.flags, decoder.thread_count = self._video.flags, 1
        decoder.options = {**self._video.options, "err_detect": ALWAYS}
        self._decoder = decoder
        return decoder
