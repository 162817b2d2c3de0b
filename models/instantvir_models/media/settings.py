"""How a video is encoded: the user's wishes, and what they come to for one file."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import av

from instantvir_models.errors import UsageError, VideoWriteError
from instantvir_models.media.color import bit_depth_of, is_rgb
from instantvir_models.media.limits import needs_even_sizes, refuse_what_crashes

logger = logging.getLogger(__name__)

FRIENDLY_CODECS = {
    "h264": "libx264",
    "avc": "libx264",
    "hevc": "libx265",
    "h265": "libx265",
    "av1": "libsvtav1",
    "vp9": "libvpx-vp9",
    "prores": "prores_ks",
}
_CODEC_OF_FORMAT = {
    "mp4": "libx264",
    "mov": "libx264",
    "matroska": "libx264",
    "mpegts": "libx264",
    "flv": "libx264",
    "hls": "libx264",
    "rtsp": "libx264",
    "webm": "libvpx-vp9",
    "avi": "ffv1",
    "nut": "ffv1",
    "gif": "gif",
    "apng": "apng",
    "webp": "libwebp_anim",
    "mxf": "mpeg2video",
    "asf": "wmv2",
    "ogg": "libvpx",
    "ogv": "libvpx",
    "dv": "dvvideo",
    "mpeg": "mpeg2video",
    "vob": "mpeg2video",
    "dvd": "mpeg2video",
    "svcd": "mpeg2video",
    "3gp": "libx264",
    "3g2": "libx264",
    "ipod": "libx264",
    "yuv4mpegpipe": "rawvideo",
    "rawvideo": "rawvideo",
}


_HDR_AS_HEVC = frozenset({"mp4", "mov", "ipod", "matroska"})
"""Where HDR goes into HEVC: players do not look for it in H.264."""
_HARDWARE = frozenset({"nvenc", "qsv", "amf", "vaapi", "videotoolbox", "v4l2m2m", "mf", "vulkan"})


@dataclass(frozen=True)
class _Dials:
    """Names and usual positions of an encoder's quality and speed settings."""

    crf_option: str | None = None
    crf: int | None = None
    preset_option: str | None = None
    preset: str | None = None
    fixed: tuple[tuple[str, str], ...] = ()
    low_latency: tuple[tuple[str, str], ...] = ()
    fast_preset: str | None = None


_TUNE = (("tune", "zerolatency"),)
_NVENC_LOW_LATENCY = (("zerolatency", "1"), ("delay", "0"))
# The old encoders aim at 200 kbit/s whatever the size, unless they are held to a quantiser.
_GOOD_QUANTISER = _Dials(fixed=(("qmin", "2"), ("qmax", "3")))
_DIALS = {
    **dict.fromkeys(
        (
            "mpeg1video",
            "mpeg2video",
            "mpeg4",
            "libxvid",
            "msmpeg4",
            "msmpeg4v2",
            "wmv1",
            "wmv2",
            "flv",
            "h263",
            "h263p",
            "mjpeg",
        ),
        _GOOD_QUANTISER,
    ),
    "libx264": _Dials("crf", 18, "preset", "fast", low_latency=_TUNE, fast_preset="veryfast"),
    "libx265": _Dials(
        "crf",
        20,
        "preset",
        "fast",
        (("x265-params", "log-level=error"),),
        low_latency=_TUNE,
        fast_preset="ultrafast",
    ),
    "libsvtav1": _Dials(
        "crf",
        28,
        "preset",
        "8",
        low_latency=(("svtav1-params", "pred-struct=1"),),
        fast_preset="10",
    ),
    "libvpx": _Dials("crf", 10, "cpu-used", "4", (("b", "8M"), ("deadline", "good"))),
    "libvpx-vp9": _Dials(
        "crf",
        28,
        "cpu-used",
        "4",
        (("b", "0"), ("deadline", "good"), ("row-mt", "1")),
        low_latency=(("lag-in-frames", "0"), ("deadline", "realtime")),
        fast_preset="8",
    ),
    "h264_nvenc": _Dials("cq", 19, "preset", "p5", low_latency=_NVENC_LOW_LATENCY),
    "hevc_nvenc": _Dials("cq", 21, "preset", "p5", low_latency=_NVENC_LOW_LATENCY),
    "av1_nvenc": _Dials("cq", 28, "preset", "p5", low_latency=_NVENC_LOW_LATENCY),
    "libwebp_anim": _Dials(fixed=(("lossless", "1"), ("loop", "0"))),
    "gif": _Dials(fixed=(("loop", "0"),)),
    "ffv1": _Dials(fixed=(("level", "3"), ("g", "1"), ("slicecrc", "1"))),
}


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """What the user asked of the encoder; None leaves the choice to us."""

    codec: str | None = None
    """h264, hevc, av1, vp9, prores, ffv1, or FFmpeg's name of an encoder. None or `auto`: by
    container, HEVC for HDR."""
    crf: int | None = None
    """Constant rate factor, lower is better and larger. None: 18 for H.264 and alike."""
    preset: str | None = None
    """The encoder's speed preset (`fast` for x264, `8` for SVT-AV1)."""
    pix_fmt: str | None = None
    """FFmpeg's name of a pixel format. None: 4:2:0 in the source's bit depth; RGB for ffv1."""
    threads: int | None = None
    """Threads of the encoder; None leaves it to the encoder."""
    low_latency: bool = False
    """Give out each frame at once, as a live stream needs; costs some compression. The usual speed
    preset is then a fast one."""
    keyframe_interval: int | None = None
    """Frames from one keyframe to the next at most, where viewers join later; None: the encoder's."""

    def __post_init__(self) -> None:
        if self.crf is not None and not 0 <= self.crf <= 63:
            raise UsageError(f"`--crf` is {self.crf}; it is a number from 0 to 63")
        if self.keyframe_interval is not None and self.keyframe_interval < 1:
            raise ValueError(f"keyframe_interval must be at least 1, got {self.keyframe_interval}")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")


@dataclass(frozen=True)
class ResolvedEncoder:
    """An encoder with everything decided."""

    codec: str
    pix_fmt: str
    options: tuple[tuple[str, str], ...]
    threads: int | None


def resolve_encoder(
    settings: EncoderSettings,
    *,
    format_name: str,
    width: int,
    height: int,
    bit_depth: int,
    is_hdr: bool = False,
    has_alpha: bool = False,
) -> ResolvedEncoder:
    """The encoder, pixel format and options for one file, or VideoWriteError."""
    codec = _codec_name(settings, format_name, bit_depth, may_be_hevc=is_hdr and width >= 64)
    pix_fmts = _pix_fmts_of(codec)
    pix_fmt = settings.pix_fmt or _usual_pix_fmt(codec, pix_fmts, bit_depth, has_alpha=has_alpha)
    _refuse_pix_fmt(codec, pix_fmt, pix_fmts)
    refuse_what_crashes(codec, width)
    pix_fmt = _for_odd_sizes(codec, pix_fmt, pix_fmts, width, height)
    return ResolvedEncoder(codec, pix_fmt, _options(codec, settings), settings.threads)


def check_encoder(settings: EncoderSettings, *, format_name: str) -> str:
    """The encoder that ordinary pictures get, or VideoWriteError for what would be wrong with any."""
    codec = _codec_name(settings, format_name, 8, may_be_hevc=False)
    pix_fmts = _pix_fmts_of(codec)
    if settings.pix_fmt is None:
        return codec
    if settings.codec is not None and settings.codec.lower() != "auto":
        _refuse_pix_fmt(codec, settings.pix_fmt, pix_fmts)
    try:  # others than this encoder may hold it, and the pictures may ask for one of them
        av.VideoFormat(settings.pix_fmt, 2, 2)
    except ValueError:
        _refuse_pix_fmt(codec, settings.pix_fmt, pix_fmts)
    return codec


def _refuse_pix_fmt(codec: str, pix_fmt: str, pix_fmts: list[str]) -> None:
    if pix_fmts and pix_fmt not in pix_fmts:
        raise VideoWriteError(
            f"{codec} cannot encode the pixel format {pix_fmt}",
            hint=f"it takes {', '.join(pix_fmts[:12])}",
        )


def software_sibling(codec: str) -> str | None:
    """The encoder that does without the hardware of this one; None if it needs none."""
    kind, _, place = codec.partition("_")
    if place not in _HARDWARE:
        return None
    return FRIENDLY_CODECS.get(kind)


def _codec_name(
    settings: EncoderSettings, format_name: str, bit_depth: int, *, may_be_hevc: bool
) -> str:
    if settings.codec is not None and settings.codec.lower() != "auto":
        name = settings.codec.lower()
        return FRIENDLY_CODECS.get(name, name)
    if format_name == "webm" and bit_depth > 8:
        return "libsvtav1"
    if may_be_hevc and format_name in _HDR_AS_HEVC:
        return "libx265"
    codec = _CODEC_OF_FORMAT.get(format_name)
    if codec is None:
        raise VideoWriteError(
            f"no video codec is known to suit the container {format_name}",
            hint="name one, or write .mp4, .mkv, .mov, .webm or .avi",
        )
    return codec


def _pix_fmts_of(codec: str) -> list[str]:
    """What the encoder takes; empty where it takes anything (rawvideo)."""
    try:
        encoder = av.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError as error:
        raise VideoWriteError(
            f"unknown video codec `{codec}`", hint=f"try one of {', '.join(_friendly_names())}"
        ) from error
    if encoder.type != "video":
        raise VideoWriteError(
            f"`{codec}` is not a video codec", hint=f"try one of {', '.join(_friendly_names())}"
        )
    return [pix_fmt.name for pix_fmt in encoder.video_formats or []]


def _friendly_names() -> list[str]:
    return ["h264", "hevc", "av1", "vp9", "prores", "ffv1"]


def _usual_pix_fmt(codec: str, pix_fmts: list[str], bit_depth: int, *, has_alpha: bool) -> str:
    """RGB where nothing may be lost, else 4:2:0, in the source's depth or the nearest."""
    if has_alpha:
        shallow_alpha = ("bgra", "rgba", "argb", "yuva420p")
        deep_alpha = ("gbrap16le", "rgba64be", "yuva444p10le")
        wanted_alpha = (
            (*deep_alpha, *shallow_alpha) if bit_depth > 8 else (*shallow_alpha, *deep_alpha)
        )
        choice = next((pix_fmt for pix_fmt in wanted_alpha if pix_fmt in pix_fmts), None)
        if choice is not None:
            return choice
    if codec == "libwebp_anim":
        return "bgra"  # it is told to lose nothing
    if codec == "ffv1":
        return "bgr0" if bit_depth <= 8 else "gbrp16le"
    if not pix_fmts:
        return "yuv420p" if bit_depth <= 8 else "yuv420p10le"
    deep = ["yuv420p10le", "p010le", "yuv422p10le", "yuv444p10le", "gbrp16le", "rgb48be"]
    if bit_depth > 10:
        deep = ["yuv420p12le", *deep]
    shallow = ["yuv420p", "yuv422p", "yuv444p", "rgb24", "bgr0", "gbrp", "pal8"]
    wanted = shallow + deep if bit_depth <= 8 else deep + shallow
    choice = next((pix_fmt for pix_fmt in wanted if pix_fmt in pix_fmts), pix_fmts[0])
    if bit_depth_of(choice) < min(bit_depth, 10):
        logger.warning(
            "%s cannot hold %d bits; the output has %d", codec, bit_depth, bit_depth_of(choice)
        )
    return choice


def _for_odd_sizes(codec: str, pix_fmt: str, pix_fmts: list[str], width: int, height: int) -> str:
    """`pix_fmt`, or its 4:4:4 sibling where the encoder would refuse an odd size."""
    layout = av.VideoFormat(pix_fmt, 2, 2)
    odd_columns = width % 2 and layout.chroma_width(2) == 1
    odd_rows = height % 2 and layout.chroma_height(2) == 1
    if not needs_even_sizes(codec) or is_rgb(pix_fmt) or not (odd_columns or odd_rows):
        return pix_fmt
    depth = bit_depth_of(pix_fmt)
    full_chroma = "yuv444p" if depth == 8 else f"yuv444p{depth}le"
    if full_chroma not in pix_fmts:
        raise VideoWriteError(
            f"{codec} cannot encode {width}x{height} as {pix_fmt}",
            hint="choose another codec, such as ffv1 or av1",
        )
    logger.info("%dx%d is odd: encoding as %s instead of %s", width, height, full_chroma, pix_fmt)
    return full_chroma


def _options(codec: str, settings: EncoderSettings) -> tuple[tuple[str, str], ...]:
    dials = _DIALS.get(codec, _Dials())
    options = [*dials.fixed, *(dials.low_latency if settings.low_latency else ())]
    usual_preset = (dials.fast_preset if settings.low_latency else None) or dials.preset
    if settings.keyframe_interval is not None and "g" not in dict(options):
        options.append(("g", str(settings.keyframe_interval)))
    for name, option, asked, usual in (
        ("crf", dials.crf_option, settings.crf, dials.crf),
        ("preset", dials.preset_option, settings.preset, usual_preset),
    ):
        if option is not None:
            options.append((option, str(usual if asked is None else asked)))
        elif asked is not None:
            logger.warning("%s has no %s; the setting has no effect", codec, name)
    return tuple(options)
