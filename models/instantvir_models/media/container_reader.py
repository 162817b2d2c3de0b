"""The video of a container: a file, a pipe, a device or an address."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial

import av
import numpy as np
from av.codec.context import Flags
from av.container import InputContainer
from av.video.stream import VideoStream

from instantvir_models.errors import VideoOpenError
from instantvir_models.media.attached import (
    NOTHING_ATTACHED,
    attached_to,
    companions_of,
    left_out_of_streams,
)
from instantvir_models.media.base import VideoReader
from instantvir_models.media.coding import EXPORT_OPTIONS, CodingNotes
from instantvir_models.media.companions import described
from instantvir_models.media.crop import crop_of
from instantvir_models.media.damage import Damage, counted
from instantvir_models.media.demux import Demuxer, main_video_stream
from instantvir_models.media.describe import described_stream, found_instead
from instantvir_models.media.fields import (
    LOOKED_AT,
    WEAVE,
    FieldChoice,
    Fields,
    WholePictures,
    fields_in,
    whole_pictures,
)
from instantvir_models.media.frame import Frame
from instantvir_models.media.limits import clock_may_jump
from instantvir_models.media.mended import strictness
from instantvir_models.media.names import is_picture
from instantvir_models.media.picture import PictureFormat
from instantvir_models.media.reach import PROBED_BYTES, InputRules
from instantvir_models.media.source import ContainerSource
from instantvir_models.media.timeline import SourceTimeline, Trim

logger = logging.getLogger(__name__)

LATER_PLACES = (0.35, 0.7)
"""Parts of a file's length at which its fields are looked for where nothing moves at first."""

SHORTEST_SECONDS = 4
"""A file that is shorter is looked at once."""

READ_ERRORS_ALLOWED = 1000
"""Damaged places in a row, of up to 64 KiB each, behind which nothing more is expected."""

_USUAL_THREADS = 4


class ContainerReader(VideoReader):
    """The main video stream of a container; audio and subtitles wait in `demuxer` for a writer.

    Args:
        source: what is opened; the first frame is decoded at once.
        trim: what is wanted of it.
        threads: of the decoder; None takes up to 4.
        other_streams: keep audio and subtitle packets.
        fields: how interlaced pictures become whole ones; None takes them as they are.

    Raises:
        VideoOpenError: if the source is missing or unreadable, has no video, or holds no frame.
    """

    demuxer: Demuxer

    def __init__(
        self,
        source: ContainerSource,
        *,
        trim: Trim,
        threads: int | None,
        other_streams: bool,
        fields: FieldChoice | None = None,
    ) -> None:
        self._opening = _Opening(source, trim, threads, other_streams)
        decoding = self._opening.decoding()
        self.demuxer = decoding.demuxer
        try:
            first = decoding.first_picture()
            if source.is_live and other_streams:
                _tell_what_is_left_out(self.demuxer)
            whole = whole_pictures(
                self._noted(itertools.chain([first], decoding.pictures)),
                fields or WEAVE,
                time_base=self.demuxer.time_base,
                look_elsewhere=partial(_fields_later, source, self.demuxer, threads),
            )
            self.fields = whole.fields
            if fields is not None and first.interlaced_frame and whole.fields is None:
                logger.warning(
                    "%s says it is interlaced; its fields are treated as one picture", source.name
                )
            picture_format = PictureFormat.of(
                first,
                name=source.name,
                time_base=whole.time_base,
                may_change_size=source.is_live,
                crop=crop_of(self.demuxer.video),
                on_other_size=self.demuxer.account.note_other_size,
            )
            info = described_stream(first, picture_format, self.demuxer, trim)
            super().__init__(
                source.name,
                info=replace(
                    info.at_rate(whole.rate_factor),
                    has_fields=info.is_interlaced and not whole.are_whole,
                ),
                span=decoding.timeline.span_from(first),
                frames=_delivered(whole, picture_format, self.demuxer.codings),
            )
            self._frames_per_picture = whole.rate_factor
        except BaseException:
            self.close()
            raise

    @property
    def damage(self) -> Damage:
        """What could not be read so far; complete once the last frame was delivered."""
        return self.demuxer.account.damage(self._name)

    def expected_frames(self) -> int | None:
        """How many frames there are in all, as far as is known by now; None where nothing tells."""
        pictures = self.demuxer.expected_pictures()
        if pictures is None:
            return self.info.num_frames
        return max(1, round(pictures * self._frames_per_picture))

    def again(self) -> Demuxer:
        """The same source opened once more, at its beginning."""
        return self._opening.demuxer(self._opening.source.open())

    def end_input(self) -> None:
        """Read no more of an endless source; frames already read still come. From any thread."""
        self.demuxer.end_input()

    def close(self) -> None:
        """Release the source; reading further is an error."""
        self.demuxer.close()

    def _noted(self, pictures: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        for picture in pictures:
            self.demuxer.account.note_delivered(picture)
            yield picture


def _tell_what_is_left_out(demuxer: Demuxer) -> None:
    for stream in left_out_of_streams(demuxer.container, demuxer.video):
        logger.warning("not carried over: the %s, of a live source", described(stream))


def _delivered(
    whole: WholePictures, picture_format: PictureFormat, codings: CodingNotes
) -> Iterator[Frame]:
    """The pictures as frames, which tell which of their rows a field lacked."""
    frames = picture_format.frames(whole.pictures, codings.coding_of)
    if whole.measured_rows is None:
        yield from frames
        return
    size = (picture_format.height, picture_format.width)
    seen, upright = picture_format.crop.visible, picture_format.orientation.upright
    masks = (np.repeat(whole.guessed(i, *size)[..., None], 3, -1) for i in (0, 1))
    by_turns = [upright(seen(mask.astype(np.uint8)))[..., 0] > 0 for mask in masks]
    for index, frame in enumerate(frames):
        yield replace(frame, guessed=by_turns[index % 2])


def _fields_later(source: ContainerSource, demuxer: Demuxer, threads: int | None) -> Fields | None:
    """What a file tells of its fields behind its beginning; None where that tells nothing, either."""
    if source.is_live or not source.is_file:
        return None
    seconds = (demuxer.video.duration or 0) * demuxer.time_base or Fraction(
        demuxer.container.duration or 0, 1_000_000
    )
    for part in LATER_PLACES if seconds > SHORTEST_SECONDS else ():
        with suppress(VideoOpenError):
            decoding = _Opening(source, Trim.of(part * seconds, 1.0), threads, False).decoding()
            with closing(decoding.demuxer):
                pictures = itertools.chain([decoding.first_picture()], decoding.pictures)
                found = fields_in(list(itertools.islice(pictures, LOOKED_AT)))
            if found is not None and found.scan != "unknown":
                return found
    return None


@dataclass(frozen=True)
class _Decoding:
    """A container that is being decoded, up to its first wanted picture."""

    demuxer: Demuxer
    timeline: SourceTimeline
    pictures: Iterator[av.VideoFrame]
    """The wanted ones behind the first."""
    first: av.VideoFrame | None

    @classmethod
    def begin(cls, demuxer: Demuxer, name: str, trim: Trim, *, is_live: bool) -> _Decoding:
        """Decode until there is a picture."""
        timeline = SourceTimeline(
            name,
            time_base=demuxer.time_base,
            trim=trim,
            first_seconds=demuxer.first_seconds,
            frame_rate=demuxer.account.average_rate,
            end_seconds=demuxer.end_seconds,
            looks_ahead=not is_live,
        )
        pictures = timeline.within(demuxer.frames(), on_end=demuxer.stop_decoding)
        return cls(demuxer, timeline, pictures, first=next(pictures, None))

    def first_picture(self) -> av.VideoFrame:
        """The first one, or VideoOpenError."""
        if self.first is not None:
            return self.first
        if self.demuxer.shortage is not None:
            raise self.demuxer.shortage
        if self.demuxer.container.format.name == "webp_pipe":
            raise self.timeline.no_picture(
                "animated WebP is read from files alone: name one, or convert it to APNG or GIF"
            )
        undecodable = self.demuxer.account.undecodable_packets
        raise self.timeline.no_picture(
            f"{counted(undecodable, 'packet')} could not be decoded"
            if undecodable
            else "the file holds a video stream without a decodable picture"
        )


@dataclass(frozen=True)
class _Opening:
    """From a source to the decoding that has every wanted picture, by seeking where that works."""

    source: ContainerSource
    trim: Trim
    threads: int | None
    other_streams: bool

    def decoding(self) -> _Decoding:
        """Begun and open, or VideoOpenError."""
        container = self.source.open()
        can_seek = (
            bool(self.trim.start_seconds)
            and self.source.is_file
            and not clock_may_jump(container.format)
        )
        decoding = self._begun(container, seek=can_seek)
        if not (can_seek and decoding.timeline.began_late()):
            return decoding
        # Some files (MPEG-TS) have no index, and the seek went to a place without a keyframe.
        decoding.demuxer.close()
        return self._begun(self.source.open(), seek=False)

    def _begun(self, container: InputContainer, *, seek: bool) -> _Decoding:
        try:
            demuxer = self.demuxer(container)
            if seek:
                demuxer.seek_to_start()
            return _Decoding.begin(
                demuxer, self.source.name, self.trim, is_live=self.source.is_live
            )
        except BaseException:
            container.close()
            raise

    def demuxer(self, container: InputContainer) -> Demuxer:
        """What reads an open container."""
        video = main_video_stream(container)
        if video is None:
            raise VideoOpenError(
                f"{self.source.name} has no video stream",
                hint=f"{found_instead(container)}{self._where_looked()}",
            )
        if video.codec_context is None:
            raise VideoOpenError(
                f"{self.source.name} is of a kind that this FFmpeg cannot decode",
                hint=f"convert it to {self._readable_kind} with another program first",
            )
        rules, context = self.source.rules, video.codec_context
        if self.source.codec not in (None, context.codec.canonical_name):
            raise VideoOpenError(
                f"{self.source.name} is not the {self.source.codec} that was to come",
                hint="the file is damaged or hostile",
            )
        rules.check_size(self.source.name, context.width, context.height)
        is_file = self.source.is_file and not self.source.is_live
        _prepare_decoder(video, self.threads, rules, may_hold_back=is_file)
        # Else FFmpeg leaves columns at the left that are cropped, for the sake of alignment.
        video.codec_context.flags |= Flags.unaligned
        return Demuxer(
            container,
            video,
            companions_of(container, video, is_live=self.source.is_live)
            if self.other_streams
            else (),
            attached=attached_to(container) if self.other_streams else NOTHING_ATTACHED,
            trim=self.trim,
            read_errors_allowed=READ_ERRORS_ALLOWED,
            largest_packet_bytes=rules.largest_packet_bytes,
            open_next=self.source.open_next_piece,
            path=self.source.path,
            checks_sound=self.source.codec is None,
        )

    @property
    def _readable_kind(self) -> str:
        return "PNG" if is_picture(self.source.path) else "H.264"

    def _where_looked(self) -> str:
        """Nothing of a file that was looked through."""
        path = self.source.path
        is_small = path is not None and path.stat().st_size <= PROBED_BYTES
        return "" if is_small else f" in its first {PROBED_BYTES / 1e6:.0f} MB"


def _prepare_decoder(
    video: VideoStream, threads: int | None, rules: InputRules, *, may_hold_back: bool
) -> None:
    context = video.codec_context
    context.thread_count = threads or min(_USUAL_THREADS, os.cpu_count() or 1)
    # Frame threads hold back as many frames as there are threads; a live source cannot wait.
    may_hold_back = may_hold_back and context.thread_count > 1
    context.thread_type = "AUTO" if may_hold_back else "SLICE"
    # With frame threads FFmpeg exports the quantisers of a frame that another thread still decodes.
    exported = {} if may_hold_back else EXPORT_OPTIONS
    strict = strictness(context.codec.canonical_name)
    context.options = {**exported, **strict, **rules.decoder_options}
