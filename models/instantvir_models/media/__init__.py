"""Video in and out: the only room that knows time bases, colour and containers."""

from instantvir_models.media.color import ColorTags
from instantvir_models.media.convert import to_uint8, to_uint16, to_unit
from instantvir_models.media.demux import CompanionPacket
from instantvir_models.media.frame import Frame, blocks
from instantvir_models.media.info import Damage, StreamSummary, VideoInfo
from instantvir_models.media.reader import VideoReader
from instantvir_models.media.settings import EncoderSettings
from instantvir_models.media.writer import VideoWriter

__all__ = [
    "ColorTags",
    "CompanionPacket",
    "Damage",
    "EncoderSettings",
    "Frame",
    "StreamSummary",
    "VideoInfo",
    "VideoReader",
    "VideoWriter",
    "blocks",
    "to_uint8",
    "to_uint16",
    "to_unit",
]
