"""What is known about a video once its first picture is decoded: from PyAV's objects to `VideoInfo`."""

from __future__ import annotations

from fractions import Fraction

import av
from av.audio.codeccontext import AudioCodecContext
from av.container import InputContainer
from av.stream import Stream
from av.video.stream import VideoStream

from instantvir_models.media import color
from instantvir_models.media.attached import timecode_of
from instantvir_models.media.damage import counted, frame_rate_of
from instantvir_models.media.demux import Demuxer
from instantvir_models.media.hdr import hdr_metadata_of
from instantvir_models.media.info import StreamSummary, VideoInfo
from instantvir_models.media.limits import LOSSLESS_CODECS
from instantvir_models.media.orientation import Orientation
from instantvir_models.media.picture import PictureFormat
from instantvir_models.media.side_data import SideData, picture_side_data, side_data_of
from instantvir_models.media.timeline import Trim

_AV_TIME_BASE = 1_000_000
_FASTEST_OF_PICTURES = 120
_TOP_FIRST, _BOTTOM_FIRST = frozenset({2, 4}), frozenset({3, 5})
"""FFmpeg's AVFieldOrder, by which field is shown first."""
_LIGHT = {
    "mastering_display_metadata": "MASTERING_DISPLAY_METADATA",
    "content_light_level": "CONTENT_LIGHT_LEVEL",
    "ambient_viewing_environment": "AMBIENT_VIEWING_ENVIRONMENT",
}
"""Names of the same in streams and in pictures."""
_UNWRITABLE = {
    "A53_CC": "closed captions (CEA-608/708) in the pictures",
    "DYNAMIC_HDR_PLUS": "HDR10+ dynamic metadata",
    "DOVI_METADATA": "Dolby Vision metadata",
    "DOVI_RPU_BUFFER": "Dolby Vision metadata",
    "DYNAMIC_HDR_VIVID": "HDR Vivid metadata",
}
"""Side data of pictures that is lost with their coding."""


def described_images(
    first: av.VideoFrame,
    picture_format: PictureFormat,
    *,
    codec_name: str,
    frame_rate: Fraction,
    num_images: int,
    trim: Trim,
) -> VideoInfo:
    """Of a sequence of image files that are shown at `frame_rate`."""
    count = num_images
    if not trim.is_whole:
        skipped = int((trim.start_seconds or 0) * frame_rate)
        duration = trim.duration_seconds
        wanted = count if duration is None else round(duration * frame_rate)
        count = max(1, min(count - skipped, wanted))
    return _described(
        first,
        picture_format,
        codec_name=codec_name,
        frame_rate=frame_rate,
        num_frames=count,
        duration_seconds=count / frame_rate,
    )


def described_stream(
    first: av.VideoFrame, picture_format: PictureFormat, demuxer: Demuxer, trim: Trim
) -> VideoInfo:
    """Of the video in a container, with the streams that come along."""
    video, streams = demuxer.video, demuxer.container.streams
    frame_rate = frame_rate_of(video)
    seconds = _expected_seconds(demuxer, trim)
    num_frames = video.frames if video.frames and trim.is_whole else None
    if num_frames is None and seconds is not None and frame_rate:
        num_frames = max(1, round(seconds * frame_rate))
    return _described(
        first,
        picture_format,
        codec_name=_codec_name(video),
        frame_rate=frame_rate,
        num_frames=num_frames,
        duration_seconds=seconds,
        stored_aspect=Fraction(video.sample_aspect_ratio) if video.sample_aspect_ratio else None,
        audio_streams=tuple(_summary(stream) for stream in streams.audio),
        subtitle_streams=tuple(_summary(stream) for stream in streams.subtitles),
        stored_order=video.codec_context.field_order,
        fastest_rate=_fastest_rate(video, frame_rate),
        timecode=timecode_of(demuxer.container, video),
        says_alpha=video.metadata.get("alpha_mode") == "1",
        side_data=_carried_side_data(first, video, picture_format),
    )


def found_instead(container: InputContainer) -> str:
    """`found 1 audio stream (aac)`, for a container without video."""
    found = []
    for kind in ("audio", "subtitle", "data"):
        streams = [s for s in container.streams if s.type == kind]
        if streams:
            names = ", ".join(_codec_name(s) for s in streams)
            found.append(f"{counted(len(streams), f'{kind} stream')} ({names})")
    return f"found {' and '.join(found)}" if found else "found no streams at all"


def _described(
    first: av.VideoFrame,
    picture_format: PictureFormat,
    *,
    codec_name: str,
    frame_rate: Fraction | None,
    num_frames: int | None,
    duration_seconds: Fraction | None,
    stored_aspect: Fraction | None = None,
    audio_streams: tuple[StreamSummary, ...] = (),
    subtitle_streams: tuple[StreamSummary, ...] = (),
    stored_order: int = 0,
    fastest_rate: Fraction | None = None,
    timecode: str | None = None,
    says_alpha: bool = False,
    side_data: SideData = (),
) -> VideoInfo:
    tags, pix_fmt, orientation = (
        color.color_tags_of(first), first.format.name, picture_format.orientation,
    )  # fmt: skip
    size = picture_format.visible_size
    width, height = size[::-1] if orientation.is_transposed else size
    aspect = 1 / stored_aspect if stored_aspect and orientation.is_transposed else stored_aspect
    return VideoInfo(
        width=width,
        height=height,
        frame_rate=frame_rate,
        time_base=picture_format.time_base,
        num_frames=num_frames,
        duration_seconds=None if duration_seconds is None else float(duration_seconds),
        bit_depth=color.bit_depth_of(pix_fmt),
        pix_fmt=pix_fmt,
        codec_name=codec_name,
        is_lossless=codec_name in LOSSLESS_CODECS,
        color=tags,
        conversion=color.resolved(tags, pix_fmt=pix_fmt, height=first.height),
        rotation_degrees=orientation.degrees_clockwise,
        is_mirrored=orientation.is_mirrored,
        sample_aspect_ratio=aspect,
        is_interlaced=bool(first.interlaced_frame) or stored_order in _TOP_FIRST | _BOTTOM_FIRST,
        is_top_field_first=stored_order in _TOP_FIRST
        or (stored_order not in _BOTTOM_FIRST and codec_name != "dvvideo"),
        has_alpha=color.has_alpha(pix_fmt),
        is_transparent=color.is_transparent(color.alpha_of(first)),
        hdr=hdr_metadata_of(first),
        fastest_rate=fastest_rate,
        timecode=timecode,
        side_data=side_data,
        unwritable=_unwritable(first, says_alpha=says_alpha and not color.has_alpha(pix_fmt)),
        audio_streams=audio_streams,
        subtitle_streams=subtitle_streams,
    )


def _fastest_rate(video: VideoStream, average: Fraction | None) -> Fraction | None:
    """The rate that all time stamps fit, where it is one of pictures and not of a clock."""
    rate = video.base_rate
    is_one = rate and (average or 0) <= rate <= _FASTEST_OF_PICTURES
    return Fraction(rate) if rate and is_one else average


def _carried_side_data(
    first: av.VideoFrame, video: VideoStream, picture_format: PictureFormat
) -> SideData:
    """What of the video's side data is true of the frames, too."""
    is_turned = picture_format.orientation != Orientation()
    kinds = () if is_turned else ("spherical", "stereo_3d")
    carried = [(kind, data) for kind, data in side_data_of(video) if kind in kinds]
    for kind, name in _LIGHT.items():
        said = picture_side_data(first, name)
        if said is not None:
            carried.append((kind, said))
    return tuple(carried)


def _unwritable(first: av.VideoFrame, *, says_alpha: bool) -> tuple[str, ...]:
    found = [
        words for name, words in _UNWRITABLE.items() if picture_side_data(first, name) is not None
    ]
    if says_alpha:
        found.append("the transparency (alpha) of the video, which its decoder does not read")
    return tuple(dict.fromkeys(found))


def _expected_seconds(demuxer: Demuxer, trim: Trim) -> Fraction | None:
    """How long the wanted stretch is, as far as the container tells."""
    whole = _whole_seconds(demuxer)
    if whole is None:
        return trim.duration_seconds
    rest = max(Fraction(0), whole - (trim.start_seconds or 0))
    return rest if trim.duration_seconds is None else min(rest, trim.duration_seconds)


def _whole_seconds(demuxer: Demuxer) -> Fraction | None:
    if demuxer.video.duration:
        return demuxer.video.duration * demuxer.time_base
    if (end := demuxer.account.promised_end_seconds) is not None:
        return end - demuxer.clock.origin_seconds - demuxer.first_seconds
    duration = demuxer.container.duration
    return Fraction(duration, _AV_TIME_BASE) if duration else None


def _codec_name(stream: Stream) -> str:
    """The name of the format (`h264`), not of the decoder that was picked (`libdav1d`)."""
    context = stream.codec_context
    return context.codec.canonical_name if context is not None else "unknown"


def _summary(stream: Stream) -> StreamSummary:
    context = stream.codec_context
    return StreamSummary(
        kind=stream.type,
        codec_name=_codec_name(stream),
        language=stream.language,
        sample_rate=context.sample_rate if isinstance(context, AudioCodecContext) else None,
        channels=context.layout.nb_channels if isinstance(context, AudioCodecContext) else None,
    )
