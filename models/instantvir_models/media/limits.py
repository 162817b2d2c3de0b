"""What containers and encoders can hold, and what they cannot."""

from __future__ import annotations

from instantvir_models.errors import VideoWriteError

MOV_FORMATS = frozenset({"mp4", "mov", "ipod", "3gp"})
MATROSKA_FORMATS = frozenset({"matroska", "webm"})

CONSTANT_RATE_FORMATS = frozenset({"avi", "yuv4mpegpipe", "rawvideo"})
"""Containers that store a frame rate and no times."""

TEXT_SUBTITLE_OF_FORMAT = {
    "mp4": "mov_text",
    "mov": "mov_text",
    "matroska": "subrip",
    "webm": "webvtt",
}
"""The text subtitles that a container holds best."""

LOSSLESS_CODECS = frozenset(
    {
        "ffv1",
        "rawvideo",
        "png",
        "apng",
        "huffyuv",
        "ffvhuff",
        "utvideo",
        "qtrle",
        "magicyuv",
        "tiff",
        "bmp",
    }
)

# Matroska takes the pixel shape from a field that PyAV cannot set; these codecs carry it.
_CODECS_WITH_ASPECT = frozenset({"libx264", "libx265", "h264_nvenc", "hevc_nvenc", "mpeg4"})
# x264 and x265 refuse sizes that their chroma subsampling does not divide; the others pad.
_NEEDS_EVEN_SIZES = frozenset({"libx264", "libx265", "h264_nvenc", "hevc_nvenc", "av1_nvenc"})


def keeps_pixel_shape(format_name: str, codec: str) -> bool:
    """Whether a file of this container and encoder can say that its pixels are not square."""
    return format_name not in MATROSKA_FORMATS or codec in _CODECS_WITH_ASPECT


def needs_even_sizes(codec: str) -> bool:
    """Whether the encoder refuses sizes that its chroma subsampling does not divide."""
    return codec in _NEEDS_EVEN_SIZES


def refuse_what_crashes(codec: str, width: int) -> None:
    """VideoWriteError for what would end the whole program."""
    # x265 4.2 writes outside its memory for many widths below one coding tree unit.
    if codec == "libx265" and width < 64:
        raise VideoWriteError(
            f"libx265 cannot be trusted with a width of {width} pixels",
            hint="use h264, or 64 pixels or more",
        )
