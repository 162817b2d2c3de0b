"""Video in and out: the only room that knows time bases, colour and containers."""

from instantvir_models.media.base import VideoReader, VideoWriter
from instantvir_models.media.color import ColorTags
from instantvir_models.media.convert import to_uint8, to_uint16, to_unit
from instantvir_models.media.damage import Damage
from instantvir_models.media.frame import Frame, blocks
from instantvir_models.media.info import StreamSummary, VideoInfo
from instantvir_models.media.open import create_video, open_video
from instantvir_models.media.packets import CompanionPacket
from instantvir_models.media.reach import USUAL_RULES, InputRules
from instantvir_models.media.settings import EncoderSettings

__all__ = [
    "USUAL_RULES",
    "ColorTags",
    "CompanionPacket",
    "Damage",
    "EncoderSettings",
    "Frame",
    "InputRules",
    "StreamSummary",
    "VideoInfo",
    "VideoReader",
    "VideoWriter",
    "blocks",
    "create_video",
    "open_video",
    "to_uint8",
    "to_uint16",
    "to_unit",
]
