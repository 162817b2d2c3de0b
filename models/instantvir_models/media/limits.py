"""What containers and encoders can hold, and what they cannot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import av
from av.format import Flags

from instantvir_models.errors import VideoWriteError

MOV_FORMATS = frozenset({"mp4", "mov", "ipod", "3gp"})
MATROSKA_FORMATS = frozenset({"matroska", "webm"})

CONSTANT_RATE_FORMATS = frozenset({"avi", "yuv4mpegpipe", "rawvideo"})
"""Containers that store a frame rate and no times."""

DECODING_TIMES_ONLY = frozenset({"avi"})
"""Containers that tell when pictures are decoded, and not when they are shown."""

STANDING_CLOCK_FORMATS = frozenset({"rm"})
"""Containers that give a whole block of packets of sound one time."""

CONSTANT_RATE_CODECS = frozenset({"mpeg1video", "mpeg2video", "dvvideo"})
"""Encoders that count pictures instead of taking their times."""

GAPLESS_FORMATS = frozenset({"yuv4mpegpipe", "rawvideo", "mxf", "dv"})
"""Containers that cannot say that a picture stays: it is written again."""

SIDE_DATA_FORMATS = frozenset({"mp4", "mov", "ipod", "matroska", "webm"})
"""Containers that say a projection, stereo and a mastering display."""

VIDEO_FIRST_FORMATS = frozenset({"mxf", "gxf", "dv"})
"""Containers that begin with nothing but a video."""

TIMECODE_FORMATS = frozenset({"mp4", "mov", "ipod", "matroska", "mxf", "gxf", "avi"})


@dataclass(frozen=True)
class Holds:
    """What a container holds so that players find it, whatever else FFmpeg lets in."""

    sound: frozenset[str] | None = None
    """Codecs; None for all that FFmpeg lets in."""
    lossy_sound: str = "aac"
    """The encoder for sound that it does not hold."""
    lossless_sound: str = "flac"
    """The same for sound that has lost nothing."""
    sample_rates: tuple[int, ...] | None = None
    """Of sound; None for all."""
    subtitles: frozenset[str] | None = None
    """Codecs; None for all that FFmpeg lets in."""
    has_covers: bool = False
    has_attachments: bool = False
    more_channels: str | None = None
    """The encoder for lossy sound of more channels than `lossy_sound` takes."""
    wrong_pace_from: frozenset[tuple[str, str]] = frozenset()
    """Containers and codecs of sources whose packets would be played at another pace."""
    unreadable_sound: frozenset[str] = frozenset()
    """Codecs that FFmpeg lets in, and of which nothing comes out again."""

    def has_sound(self, codec: str) -> bool:
        """Whether sound of this codec is copied."""
        return codec not in self.unreadable_sound and (self.sound is None or codec in self.sound)

    def sound_encoders(self, *, is_lossless: bool) -> tuple[str, ...]:
        """Those for sound that it does not hold, the best first: ALAC refuses some layouts of channels
        that FLAC and AAC take."""
        lossy = [self.lossy_sound, *([self.more_channels] if self.more_channels else [])]
        if not is_lossless:
            return tuple(lossy)
        others = ("flac",) if self.sound is None or "flac" in self.sound else ()
        return tuple(dict.fromkeys((self.lossless_sound, *others, *lossy)))


_MP4_SOUND = frozenset(
    {"aac", "ac3", "eac3", "mp3", "mp2", "mp1", "alac", "flac", "opus", "dts", "ac4"}
)
_MOV_SOUND = frozenset(
    {"aac", "ac3", "eac3", "mp3", "mp2", "alac", "adpcm_ima_qt", "qdm2", "qdmc", "mace3", "mace6",
     "gsm", "amr_nb", "pcm_s8", "pcm_u8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be",
     "pcm_s32le", "pcm_s32be", "pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be", "pcm_mulaw",
     "pcm_alaw"}
)  # fmt: skip
_AVI_SOUND = frozenset(
    {"mp3", "mp2", "ac3", "pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le",
     "pcm_mulaw", "pcm_alaw", "wmav1", "wmav2"}
)  # fmt: skip
_NEEDS_BLOCK_SIZE = frozenset(
    {"wmav1", "wmav2", "wmapro", "wmavoice", "wmalossless", "adpcm_ima_wav", "adpcm_g726",
     "atrac3", "cook", "sipr"}
)  # fmt: skip
"""Sound whose decoders are told how long a block is; NUT does not say it."""
_OGG_SOUND = frozenset({"vorbis", "opus", "flac", "speex"})
_NO_CODEC: frozenset[str] = frozenset()
_HOLDS = {
    "mp4": Holds(
        _MP4_SOUND, "aac", "alac", subtitles=frozenset({"mov_text"}), has_covers=True
    ),
    "ipod": Holds(
        _MP4_SOUND, "aac", "alac", subtitles=frozenset({"mov_text"}), has_covers=True
    ),
    "3gp": Holds(
        frozenset({"aac", "amr_nb", "amr_wb"}), "aac", "aac", subtitles=frozenset({"mov_text"})
    ),
    "mov": Holds(_MOV_SOUND, "aac", "alac", subtitles=frozenset({"mov_text", "eia_608"})),
    "matroska": Holds(has_attachments=True, has_covers=True),
    "webm": Holds(
        frozenset({"opus", "vorbis"}), "libopus", "libopus",
        subtitles=frozenset({"webvtt"}),
    ),
    "flv": Holds(frozenset({"aac", "mp3"}), "aac", "aac", subtitles=_NO_CODEC),
    "avi": Holds(
        _AVI_SOUND, "libmp3lame", "pcm_s16le", subtitles=frozenset({"xsub"}), more_channels="ac3",
        wrong_pace_from=frozenset({("avi", "ac3"), ("rm", "ac3")}),
    ),
    "nut": Holds(unreadable_sound=_NEEDS_BLOCK_SIZE),
    "mxf": Holds(
        frozenset({"pcm_s16le", "pcm_s24le"}), "pcm_s16le", "pcm_s16le", sample_rates=(48_000,)
    ),
    "dv": Holds(frozenset({"pcm_s16le"}), "pcm_s16le", "pcm_s16le", sample_rates=(48_000,)),
    "asf": Holds(
        frozenset({"wmav1", "wmav2", "wmapro", "mp3", "ac3", "pcm_s16le"}), "wmav2", "wmav2",
        sample_rates=(44_100, 48_000), subtitles=_NO_CODEC,
    ),
    "ogg": Holds(_OGG_SOUND, "libopus", "flac", subtitles=_NO_CODEC),
    "ogv": Holds(_OGG_SOUND, "libopus", "flac", subtitles=_NO_CODEC),
    **{
        name: Holds(
            frozenset({"mp2", "mp1", "ac3", "dts", "pcm_s16be", "pcm_dvd"}), "mp2", "mp2",
            subtitles=frozenset({"dvd_subtitle"}), more_channels="ac3",
        )
        for name in ("mpeg", "vob", "svcd", "dvd")
    },
    "mpegts": Holds(
        frozenset({"aac", "aac_latm", "mp2", "mp3", "ac3", "eac3", "dts", "opus"}),
        "aac", "aac", subtitles=frozenset({"dvb_subtitle", "dvb_teletext"}),
    ),
}  # fmt: skip


def holds(format_name: str) -> Holds:
    """What containers of this format (FFmpeg's name) hold."""
    return _HOLDS.get(format_name, Holds())


TEXT_SUBTITLE_OF_FORMAT = {
    "mp4": "mov_text",
    "mov": "mov_text",
    "ipod": "mov_text",
    "matroska": "subrip",
    "webm": "webvtt",
}
"""The text subtitles that a container holds best."""


NO_LANGUAGE_FORMATS = frozenset({"avi", "flv", "mxf", "dv", "mpeg", "vob", "dvd", "svcd"})
"""Containers whose tracks do not say in which language they are."""

_MARKS = frozenset(
    {
        "forced",
        "original",
        "comment",
        "dub",
        "hearing_impaired",
        "visual_impaired",
        "lyrics",
        "karaoke",
    }
)
"""What streams are marked as that people choose by."""
_MARKS_OF_FORMAT = {
    **dict.fromkeys(
        ("matroska", "webm"),
        frozenset({"forced", "original", "comment", "hearing_impaired", "visual_impaired"}),
    ),
    "mp4": frozenset({"forced", "comment", "dub", "hearing_impaired", "visual_impaired"}),
    "mpegts": frozenset({"hearing_impaired", "visual_impaired"}),
    "nut": _MARKS,
}


def lost_marks(format_name: str, marks: Iterable[str]) -> list[str]:
    """Those that a container has no place for."""
    return sorted((_MARKS & set(marks)) - _MARKS_OF_FORMAT.get(format_name, frozenset()))


CHAPTER_FORMATS = frozenset({"mp4", "mov", "ipod", "matroska", "webm", "asf", "ogg", "ogv", "nut"})

_MP4_TAGS = frozenset(
    {"title", "artist", "album_artist", "composer", "album", "date", "comment", "genre",
     "copyright", "grouping", "lyrics", "description", "synopsis", "show", "episode_id", "network",
     "keywords", "episode_sort", "season_number", "track", "disc", "creation_time", "location",
     "media_type", "hd_video", "gapless_playback", "compilation", "language", "sort_name",
     "sort_artist", "sort_album_artist", "sort_album", "sort_composer", "sort_show"}
)  # fmt: skip
_NO_TAG = frozenset({"language"})
TAGS_OF_FORMAT: dict[str, frozenset[str]] = {
    "mp4": _MP4_TAGS,
    "ipod": _MP4_TAGS,
    "mov": _NO_TAG | {"title", "artist", "album", "date", "comment", "genre", "copyright",
                      "creation_time", "location", "make", "model"},
    "3gp": _NO_TAG | {"copyright", "location", "creation_time"},
    "avi": _NO_TAG | {"title", "artist", "copyright", "comment", "date", "genre", "track"},
    "mpegts": _NO_TAG | {"service_name", "service_provider"},
    **dict.fromkeys(("mpeg", "vob", "dvd", "svcd", "dv", "mxf", "gif", "apng", "webp",
                     "yuv4mpegpipe", "rawvideo"), _NO_TAG),
}  # fmt: skip
"""Tags of the whole that a container has a place for; formats that are not here take all."""


def clock_may_jump(container_format: av.ContainerFormat) -> bool:
    """Whether time stamps of this format may jump, as those of MPEG-TS do where recordings meet."""
    return bool(container_format.flags & cast(int, Flags.ts_discont.value))


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
