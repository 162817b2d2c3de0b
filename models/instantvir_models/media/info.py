"""What is known about a video before its frames are read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from instantvir_models.media.color import ColorTags
from instantvir_models.media.hdr import HdrMetadata
from instantvir_models.media.side_data import SideData


@dataclass(frozen=True)
class StreamSummary:
    """One audio or subtitle stream of the source."""

    kind: str
    """`audio` or `subtitle`."""
    codec_name: str
    language: str | None
    sample_rate: int | None = None
    channels: int | None = None


@dataclass(frozen=True)
class VideoInfo:
    """Size, timing, format and company of one video stream."""

    width: int
    """Columns of the frames as delivered: upright, after the source's rotation was applied."""
    height: int
    """Rows of the frames as delivered."""
    frame_rate: Fraction | None
    """Average frames per second; None where the source has no constant idea of it."""
    time_base: Fraction
    """Seconds per unit of the frames' `pts`."""
    num_frames: int | None
    """An estimate; only reading tells the exact number."""
    duration_seconds: float | None
    bit_depth: int
    pix_fmt: str
    codec_name: str
    is_lossless: bool
    """True where the codec never loses anything (H.264 with crf 0 cannot be told: False)."""
    color: ColorTags
    """As tagged by the source."""
    conversion: ColorTags
    """The same with the range and matrix filled in that the conversion to RGB uses."""
    rotation_degrees: int
    """Clockwise turn that the source asked for and that the delivered frames already have."""
    is_mirrored: bool
    sample_aspect_ratio: Fraction | None
    """Width over height of one delivered pixel; None or 1 where square."""
    is_interlaced: bool
    has_fields: bool = False
    """Whether the delivered frames hold two fields each, for nothing took them apart."""
    is_top_field_first: bool = True
    """Which field of an interlaced picture is the earlier one."""
    has_alpha: bool = False
    is_transparent: bool = False
    """Whether something shows through the first picture; every picture of a GIF has alpha, most show
    nothing of it."""
    hdr: HdrMetadata | None = None
    fastest_rate: Fraction | None = None
    """Frames per second where they come fastest; None where nothing is known of it."""
    timecode: str | None = None
    """What the source's clock showed at its first frame, such as `01:00:00:00`."""
    side_data: SideData = ()
    """What the video says of its projection, stereo and mastering display, as FFmpeg has it."""
    unwritable: tuple[str, ...] = ()
    """What the pictures say besides that no output is given, in words."""
    audio_streams: tuple[StreamSummary, ...] = ()
    subtitle_streams: tuple[StreamSummary, ...] = ()

    def at_rate(self, factor: Fraction) -> VideoInfo:
        """The same video with `factor` times as many frames in the same time."""
        if factor == 1:
            return self
        return replace(
            self,
            frame_rate=None if self.frame_rate is None else self.frame_rate * factor,
            fastest_rate=None if self.fastest_rate is None else self.fastest_rate * factor,
            num_frames=None if self.num_frames is None else round(self.num_frames * factor),
        )
