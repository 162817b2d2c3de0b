"""Where live frames come from: a pipe, a camera, an address or a growing file, again if it is lost."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from instantvir_models.errors import VideoOpenError, VideoWriteError
from instantvir_models.live.backoff import Backoff
from instantvir_models.live.interruptions import ContinuedTime, RisingPackets
from instantvir_models.live.watchdog import Pulse
from instantvir_models.media import (
    USUAL_RULES,
    CompanionPacket,
    Frame,
    InputRules,
    StreamSummary,
    VideoInfo,
    VideoReader,
    open_video,
)
from instantvir_models.media.fields import WEAVE, FieldChoice
from instantvir_models.media.live_io import GrowingFile, StandardInput
from instantvir_models.media.names import is_network_address
from instantvir_models.media.nut import NutPieces

SILENCE_SECONDS = 20.0
"""Usual patience with a network: longer than a hiccup of ten seconds."""


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """What is captured and how."""

    source: str
    """`-`, a path, an address, or what the device calls itself."""
    input_format: str | None = None
    input_options: tuple[tuple[str, str], ...] = ()
    reconnect: bool = False
    """Open the source again when it is lost."""
    silence_seconds: float = SILENCE_SECONDS
    """A network source that says nothing for so long counts as lost."""
    fields: FieldChoice = WEAVE
    """How the pictures of an interlaced source become whole."""
    follow_seconds: float | None = None
    """The file is still being written; it has ended when it did not grow for so long."""
    rules: InputRules = USUAL_RULES
    """How far it may reach, and how large its pictures may be."""

    @property
    def is_network(self) -> bool:
        """Whether it is an address."""
        return is_network_address(self.source)

    @property
    def can_come_back(self) -> bool:
        """Whether opening it again can give more: not so for a pipe or a file."""
        return self.is_network or self.input_format in DEVICE_FORMATS

    @property
    def is_to_come_back(self) -> bool:
        """Whether it is opened again when it is lost."""
        return self.reconnect and self.can_come_back

    @property
    def ends_by_itself(self) -> bool:
        """Whether it ends when the stream is to, with all it has delivered: pipes and growing files."""
        return self.source == "-" or self.follow_seconds is not None

    @property
    def cannot_wait(self) -> bool:
        """Whether frames are lost when nobody takes them: cameras and networks."""
        return self.can_come_back


DEVICE_FORMATS = frozenset({"v4l2", "avfoundation", "dshow", "x11grab", "gdigrab"})


class SourceOpener:
    """Opens what the settings name, once or until it works; arguments as `LiveSource`."""

    def __init__(
        self,
        settings: SourceSettings,
        *,
        stop: threading.Event,
        on_event: Callable[[str], None],
        pulse: Pulse,
    ) -> None:
        self._settings, self._stop = settings, stop
        self._on_event, self._pulse = on_event, pulse

    def first(self) -> VideoReader:
        """The source; VideoOpenError if it cannot be opened, or not before `stop`."""
        if not self._settings.is_to_come_back:
            return self._open()
        reader = self.again()
        if reader is None:
            raise VideoOpenError(
                f"`{self._settings.source}` was not there before the stream was stopped"
            )
        return reader

    def again(self) -> VideoReader | None:
        """The source, opened with growing pauses between attempts; None if stopped meanwhile."""
        backoff = Backoff()
        while not self._stop.is_set():
            try:
                return self._open()
            except VideoOpenError as error:
                wait_seconds = backoff.next_seconds()
                self._on_event(f"{error}; next attempt in {wait_seconds:g} s")
            if self._stop.wait(wait_seconds):
                break
        return None

    def _open(self) -> VideoReader:
        settings = self._settings
        pipe = self._as_file()
        try:
            with self._pulse.busy("opening the input"):
                return open_video(
                    settings.source if pipe is None else pipe,  # type: ignore[arg-type]
                    input_format=settings.input_format,
                    input_options=dict(settings.input_options),
                    is_live=True,
                    fields=settings.fields,
                    timeout_seconds=settings.silence_seconds if settings.is_network else None,
                    rules=settings.rules,
                )
        except VideoOpenError as error:
            if pipe is not None and pipe.num_bytes == 0 and not self._stop.is_set():
                raise VideoOpenError(
                    f"{pipe.name} is empty",
                    hint="pipe a video into it, for example `ffmpeg ... -f nut - | ...`",
                ) from error
            raise

    def _as_file(self) -> NutPieces | None:
        settings = self._settings
        if settings.source == "-":
            return NutPieces(StandardInput(self._stop))
        if settings.follow_seconds is not None:
            idle_seconds = settings.follow_seconds
            return NutPieces(
                GrowingFile(Path(settings.source), self._stop, idle_seconds=idle_seconds)
            )
        return None


def _companions_of(info: VideoInfo) -> tuple[StreamSummary, ...]:
    return info.audio_streams + info.subtitle_streams


class LiveSource:
    """Frames as they come, each later than the one before, across interruptions.

    Opening waits for the first frame. After a reconnection time goes on: the outage shows as a gap
    as long as it was.

    Args:
        stop: set it to end the source; frames already decoded still come.
        on_event: called with a sentence when something happens.
        on_companions: called with audio and subtitle packets, in the order they came.
        pulse: tells a watchdog what the source is waiting for.

    Raises:
        VideoOpenError: if the source cannot be opened (the first time, or without `reconnect`).
    """

    def __init__(
        self,
        settings: SourceSettings,
        *,
        stop: threading.Event,
        on_event: Callable[[str], None],
        on_companions: Callable[[list[CompanionPacket]], None],
        pulse: Pulse,
    ) -> None:
        self._settings = settings
        self._stop, self._on_event, self._on_companions = stop, on_event, on_companions
        self._pulse = pulse
        self._time, self._rising = ContinuedTime(), RisingPackets()
        self.reconnects = 0
        self.loss: str | None = None
        """How the source ended, if it did not end well."""
        self._swapping = threading.Lock()
        self._is_away = False
        self._has_same_companions = True
        self._opener = SourceOpener(settings, stop=stop, on_event=on_event, pulse=pulse)
        self.reader = self._opener.first()

    def __iter__(self) -> Iterator[Frame]:
        """Every frame, until the source has ended for good or `stop` is set."""
        while True:
            yield from self._frames_of(self.reader)
            if self._stop.is_set():
                return
            self.loss = self.reader.damage.message
            if not self._settings.is_to_come_back:
                return
            self._on_event(f"the input is lost ({self.loss or 'it ended'}); connecting again")
            if not self._reopen():
                return

    def close(self) -> None:
        """Release the source."""
        with suppress(OSError):
            self.reader.close()

    def _frames_of(self, reader: VideoReader) -> Iterator[Frame]:
        frames = iter(reader)
        is_first = True
        while True:
            if self._stop.is_set() and not self._settings.ends_by_itself:
                reader.end_input()
            with self._pulse.busy("waiting for a frame"):
                frame = next(frames, None)
            if frame is not None and is_first:
                self._time.connect(frame)  # before any sound of this connection goes on
                is_first = False
                self._forward_at_once(reader)
            self._forward_companions(reader)
            if frame is None:
                return
            # rows that a field lacks are part of the measurement: no time to correct them
            yield replace(self._time.continued(frame), guessed=None)

    def _forward_at_once(self, reader: VideoReader) -> None:
        """From now on hand sound on when it is read: a container of several streams holds back
        each frame until it has the sound of that moment."""
        if reader.demuxer is not None:
            reader.demuxer.on_companion = partial(self._forward_companions, reader)

    def _forward_companions(self, reader: VideoReader) -> None:
        if reader.demuxer is None or not reader.demuxer.others:
            return
        packets = reader.demuxer.take_waiting()
        if not self._has_same_companions:
            return
        shift_seconds = self._time.shift_seconds
        wanted = self._rising.later(packet.delayed(shift_seconds) for packet in packets)
        if wanted:
            self._on_companions(wanted)

    @contextmanager
    def open_reader(self) -> Iterator[VideoReader]:
        """The reader, which stays open meanwhile: what an output takes streams and colours from.

        Raises:
            VideoWriteError: while the source is away.
        """
        with self._swapping:
            if self._is_away:
                raise VideoWriteError("the output cannot be opened while the input is lost")
            yield self.reader

    def _reopen(self) -> bool:
        before = self.reader.info
        with self._swapping, suppress(OSError):
            self._is_away = True
            self.reader.close()
        reader = self._opener.again()
        if reader is None:
            return False
        with self._swapping:
            self.reader, self._is_away = reader, False
        self.loss = None
        self.reconnects += 1
        if _companions_of(reader.info) != _companions_of(before):
            self._has_same_companions = False
            self._on_event("the input came back with other sound, which is left out")
        self._on_event("the input is back")
        return True
