"""Time in and out: which stretch of a source is wanted, and time stamps that only ever grow."""

from __future__ import annotations

import logging
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from heapq import heapify, heappop, heappush

import av

from instantvir_models.errors import UsageError, VideoOpenError
from instantvir_models.media.frame import Frame

logger = logging.getLogger(__name__)

DEFAULT_FRAME_RATE = Fraction(25)

# Containers round time stamps (Matroska to milliseconds), and a frame at the cut belongs inside.
_CUT_TOLERANCE_SECONDS = Fraction(1, 2000)

# What a clock that may jump does within a stretch: packets follow each other, and what FFmpeg takes
# for a discontinuity too is a step back of a tenth of a second or a gap of ten seconds.
_CONTINUOUS_SECONDS = Fraction(1, 10)
_LONGEST_GAP_SECONDS = Fraction(10)
_INTERLEAVED_SECONDS = Fraction(1)
"""Streams are interleaved within about a second, also around a jump."""
_LONGEST_REORDER = 256
"""Frames that an encoder may hold back or give out in another order."""
_REPEATED_SECONDS = Fraction(1)
"""No clock goes back so far unless another file begins."""


@dataclass(frozen=True)
class Trim:
    """What is wanted of a source, in seconds from its beginning; None where there is no limit."""

    start_seconds: Fraction | None = None
    duration_seconds: Fraction | None = None

    @classmethod
    def of(
        cls, start_seconds: float | Fraction | None, duration_seconds: float | Fraction | None
    ) -> Trim:
        """From a caller's numbers; UsageError if they are negative or the duration is 0."""
        return cls(
            _checked_seconds(start_seconds, "start", allow_zero=True),
            _checked_seconds(duration_seconds, "duration", allow_zero=False),
        )

    @property
    def is_whole(self) -> bool:
        """Whether nothing is cut off, so that time need not be moved."""
        return self.start_seconds is None and self.duration_seconds is None

    @property
    def end_seconds(self) -> Fraction | None:
        """Where the stretch ends, counted like its start."""
        if self.duration_seconds is None:
            return None
        return (self.start_seconds or Fraction(0)) + self.duration_seconds


@dataclass(frozen=True)
class Span:
    """The stretch of the source that the output shows, in the source's time stamps."""

    begin_seconds: Fraction
    """Time 0 of the output."""
    end_seconds: Fraction | None

    def holds(self, seconds: Fraction) -> bool:
        return seconds >= self.begin_seconds and (
            self.end_seconds is None or seconds < self.end_seconds
        )

    def touches(self, begin_seconds: Fraction, end_seconds: Fraction) -> bool:
        """Whether something that is shown from one time to the other is seen in the stretch."""
        is_early = self.end_seconds is None or begin_seconds < self.end_seconds
        return is_early and (end_seconds > self.begin_seconds or self.holds(begin_seconds))


@dataclass
class _Flow:
    """Packets of one stream that follow one another, in its own units of time."""

    time_base: Fraction
    shift: int
    end: int
    """Of those so far, before the shift."""
    last: int
    """When the last one is decoded, likewise."""
    near: int
    """How far from the end the next one may be, and still follow."""

    def follows(self, time: int, time_base: Fraction) -> bool:
        """Whether a packet that is decoded then follows those so far."""
        return time_base is self.time_base and abs(time - self.end) <= self.near


class SourceClock:
    """One count of time for all streams of a source: from 0, whatever the source's clock says.

    Where the clock jumps (a recording put together, a wrap of its counter, damage) all streams get
    one common shift, so that what follows goes on where the stream that jumped first had ended.
    Streams come to a jump one after the other, so earlier shifts are remembered.

    Args:
        origin_seconds: the source's time stamp that becomes 0; None leaves it to `begin`.
        has_jumps: whether the format's clock may jump, as that of MPEG-TS. Gaps of other formats
            are kept, however long.
    """

    def __init__(self, origin_seconds: Fraction | None, *, has_jumps: bool = False) -> None:
        self.has_begun = origin_seconds is not None
        self.origin_seconds = origin_seconds or Fraction(0)
        self._longest_gap = _LONGEST_GAP_SECONDS if has_jumps else None
        self._longest_step_back = _CONTINUOUS_SECONDS if has_jumps else _REPEATED_SECONDS
        self._shifts = [-self.origin_seconds]
        self._shift_of: dict[int, Fraction] = {}
        self._ends: dict[int, Fraction] = {}
        self._last: dict[int, Fraction] = {}
        self._flows: dict[int, _Flow] = {}

    def begin(self, seconds: Fraction) -> None:
        """Let this time stamp, the first that is read, become 0."""
        self.has_begun, self.origin_seconds, self._shifts = True, seconds, [-seconds]

    def shift_ticks(
        self, stream: int, time: int | None, duration: int, time_base: Fraction, *, is_sparse: bool
    ) -> int:
        """What `shift` says, in units of the stream's `time_base`, quickly where a packet follows the
        one before."""
        flow = self._flows.get(stream)
        if flow is not None and time is not None and flow.follows(time, time_base):
            flow.end, flow.last = max(flow.end, time + duration), time
            return flow.shift
        self._remember_flows()
        shift_seconds = self.shift(
            stream,
            None if time is None else time * time_base,
            duration * time_base,
            is_sparse=is_sparse,
        )
        shift = round(shift_seconds / time_base)
        if time is not None and not is_sparse:
            end = (self._ends[stream] - shift_seconds) / time_base
            if end.denominator == 1:
                near = _CONTINUOUS_SECONDS // time_base
                self._flows[stream] = _Flow(time_base, shift, end.numerator, time, near)
        return shift

    def _remember_flows(self) -> None:
        """Say when the streams end, and begin to look at each packet."""
        for stream, flow in self._flows.items():
            shift_seconds = self._shift_of[stream]
            self._ends[stream] = flow.end * flow.time_base + shift_seconds
            self._last[stream] = flow.last * flow.time_base + shift_seconds
        self._flows.clear()

    def shift(
        self, stream: int, seconds: Fraction | None, duration: Fraction, *, is_sparse: bool = False
    ) -> Fraction:
        """What to add to the times of the packet of `stream` that is decoded at `seconds`; None
        where it does not say.

        Args:
            is_sparse: the stream has long pauses by its nature, as subtitles have.
        """
        if seconds is None:
            return self._shift_of.get(stream, self._shifts[-1])
        is_known = stream in self._ends and not is_sparse
        found = self._continued(stream, seconds) if is_known else self._nearest(seconds)
        end = seconds + found + duration
        self._shift_of[stream], self._last[stream] = found, seconds + found
        self._ends[stream] = max(end, self._ends.get(stream, end))
        return found

    def _nearest(self, seconds: Fraction) -> Fraction:
        """The shift that brings a packet closest to where the other streams are."""
        if not self._ends:
            return self._shifts[-1]
        now = max(self._ends.values())
        return min(reversed(self._shifts), key=lambda shift: abs(seconds + shift - now))

    def _continued(self, stream: int, seconds: Fraction) -> Fraction:
        expected, current = self._ends[stream], self._shift_of[stream]
        gap = seconds + current - expected
        if abs(gap) <= _CONTINUOUS_SECONDS:
            return current
        others = [shift for shift in self._shifts if shift != current]
        best = min(others, key=lambda shift: abs(seconds + shift - expected), default=None)
        if best is not None and abs(seconds + best - expected) <= _INTERLEAVED_SECONDS:
            return best
        # A picture before a long gap is shown for all of it, while those behind it are decoded.
        step_back = self._last[stream] - seconds - current if self._longest_gap is None else -gap
        if step_back <= self._longest_step_back and (
            self._longest_gap is None or gap <= self._longest_gap
        ):
            return current
        shift = expected - seconds
        logger.debug("the clock jumps by %.3f s", gap)
        self._shifts = [*self._shifts[-3:], shift]
        return shift


class RisingTimes:
    """Decoding times of one stream that only ever grow, as containers want them.

    Args:
        may_repeat: they may stay as they were, as decoders take them, but not fall.
    """

    def __init__(self, *, may_repeat: bool = False) -> None:
        self._last_dts: int | None = None
        self._step = 0 if may_repeat else 1

    def place(self, pts: int | None, dts: int | None) -> tuple[int | None, int | None]:
        """The times, moved just behind those of the packet before where they are not later."""
        decoded = dts if dts is not None else pts
        if decoded is None:
            return pts, dts
        if self._last_dts is not None and decoded < self._last_dts + self._step:
            decoded = self._last_dts + self._step
            dts = decoded if dts is not None else None
            pts = decoded if pts is None else max(pts, decoded)
        self._last_dts = decoded
        return pts, dts


class StandingTimes:
    """Times of one track of sound whose clock stands while packet after packet comes, as RealMedia has
    it: a block of packets has one time.
    """

    def __init__(self) -> None:
        self._said: int | None = None
        self._end = 0

    def place(self, pts: int, duration: int) -> int:
        """When the packet begins: behind the one before it, where it says the same time."""
        begin = self._end if pts == self._said else pts
        self._said, self._end = pts, begin + duration
        return begin


class DecodingTimes:
    """Times of pictures whose container tells only when they are decoded, as AVI does.

    Pictures come out in another order than their packets went in, with as many times: so each gets
    the earliest that was not given yet.
    """

    def __init__(self) -> None:
        self._times: list[int] = []

    def decoded(self, dts: int | None) -> None:
        """A packet with this time goes to the decoder."""
        if dts is not None:
            heappush(self._times, dts)

    def lost(self, dts: int | None) -> None:
        """The packet with this time gave no picture."""
        if dts in self._times:
            self._times.remove(dts)
            heapify(self._times)

    def next_pts(self) -> int | None:
        """When the next picture is shown."""
        return heappop(self._times) if self._times else None


class SourceTimeline:
    """Gives pictures their times, each later than the one before, and keeps those that are wanted.

    Args:
        name: of the source, for messages.
        time_base: seconds per unit of the pictures' time stamps.
        trim: what is wanted.
        first_seconds: time stamp at which the source begins.
        frame_rate: pictures per second, for pictures that come without a time; None means 25.
        end_seconds: asked once the last picture came: when the source says that it ends.
        looks_ahead: deliver each picture when the next one has come, with the exact time between
            them as its duration; the durations of decoders are those of their packets, which come
            in another order.
    """

    def __init__(
        self,
        name: str,
        *,
        time_base: Fraction,
        trim: Trim,
        first_seconds: Fraction = Fraction(0),
        frame_rate: Fraction | None = None,
        end_seconds: Callable[[], Fraction | None] = lambda: None,
        looks_ahead: bool = True,
    ) -> None:
        self._name, self._time_base, self._trim = name, time_base, trim
        self._first_seconds = first_seconds
        self._usual_duration = max(1, round(1 / ((frame_rate or DEFAULT_FRAME_RATE) * time_base)))
        self._end_seconds, self._looks_ahead = end_seconds, looks_ahead
        self._first_decoded_pts: int | None = None
        self._last_pts: int | None = None
        self._has_ended = False

    def within(
        self, pictures: Iterable[av.VideoFrame], *, on_end: Callable[[], None]
    ) -> Iterator[av.VideoFrame]:
        """The wanted pictures, with their times set; `on_end` is called once no more are wanted."""
        held: av.VideoFrame | None = None
        for picture in pictures:
            if self._has_ended:
                continue  # what the decoder still held
            picture.pts = self._last_pts = self._pts_of(picture)
            if held is not None:
                held.duration = picture.pts - (held.pts or 0)
                yield held
                held = None
            if not self._is_wanted(picture.pts, on_end):
                continue
            if self._looks_ahead:
                held = picture
            else:
                yield picture
        if held is not None:
            held.duration = self._last_duration(held)
            yield held

    def _is_wanted(self, pts: int, on_end: Callable[[], None]) -> bool:
        if self._first_decoded_pts is None:
            self._first_decoded_pts = pts
        seconds = pts * self._time_base + _CUT_TOLERANCE_SECONDS - self._first_seconds
        if self._trim.start_seconds is not None and seconds < self._trim.start_seconds:
            return False
        if self._trim.end_seconds is not None and seconds >= self._trim.end_seconds:
            self._has_ended = True
            on_end()
            return False
        return True

    def _last_duration(self, last: av.VideoFrame) -> int:
        """How long the last picture is shown: to the end of the source, where that is known."""
        end = self._end_seconds()
        if end is not None and (rest := round(end / self._time_base) - (last.pts or 0)) > 0:
            return rest
        return min(last.duration or self._usual_duration, self._usual_duration)

    def began_late(self) -> bool:
        """Whether decoding began after the start, so that pictures before it may be missing."""
        if self._first_decoded_pts is None:
            return True
        begin = self._first_seconds + (self._trim.start_seconds or 0)
        return self._first_decoded_pts * self._time_base > begin + _CUT_TOLERANCE_SECONDS

    def no_picture(self, hint: str) -> VideoOpenError:
        """That there is no wanted picture; `hint` says why, where nothing was cut off."""
        if not self._trim.is_whole:
            hint = "the span asked for may lie behind the end of the video"
        return VideoOpenError(f"{self._name} holds no video frames", hint=hint)

    def span_from(self, first: av.VideoFrame) -> Span | None:
        """What an output shows that begins with the wanted picture `first`; None if nothing is
        cut off."""
        if self._trim.is_whole:
            return None
        end = self._trim.end_seconds
        return Span(
            (first.pts or 0) * self._time_base, None if end is None else self._first_seconds + end
        )

    def _pts_of(self, picture: av.VideoFrame) -> int:
        """The picture's time stamp, or a guess that is later than the last one."""
        pts = picture.pts if picture.pts is not None else picture.dts
        if self._last_pts is None:
            return pts if pts is not None else 0
        if pts is not None and pts > self._last_pts:
            return pts
        logger.debug("%s: a frame without a usable time stamp after %d", self._name, self._last_pts)
        return self._last_pts + max(1, picture.duration or self._usual_duration)


class OutputTimeline:
    """Time stamps and durations of the output's pictures, from those of the frames.

    Args:
        time_base: seconds per unit of the output's time stamps.
        span: the stretch of the source that is shown, if it was trimmed.
        has_constant_rate: the container stores no times: count from the first frame.
        may_begin_late: it does say when the first frame is shown.
        is_live: move time stamps apart that are too close together, instead of refusing them.
    """

    def __init__(
        self,
        time_base: Fraction,
        *,
        span: Span | None,
        has_constant_rate: bool,
        is_live: bool,
        may_begin_late: bool = False,
    ) -> None:
        self.time_base = time_base
        self._begin_seconds = span.begin_seconds if span else None
        self._has_constant_rate = has_constant_rate
        self._may_move = has_constant_rate or is_live
        self._may_begin_late = may_begin_late
        self._first_seconds: Fraction | None = None
        self._first_pts = 0
        self._times: list[int] = []
        self._last_duration = 0
        self.largest_shift_seconds = Fraction(0)
        """How far pictures were moved to where a constant rate has a place for them."""

    @property
    def last_pts(self) -> int | None:
        """The stamp of the last frame so far."""
        return self._times[-1] if self._times else None

    @property
    def end_pts(self) -> int | None:
        """When the last frame so far has been shown."""
        return None if self.last_pts is None else self.last_pts + self._last_duration

    def stamp(self, frame: Frame) -> int:
        """The frame's pts in the output; ValueError unless it is later than the one before."""
        pts = self._pts_of(frame)
        self._times.append(pts)
        self._last_duration = round(frame.duration * frame.time_base / self.time_base)
        return pts

    def duration_of(self, pts: int | None, otherwise: int | None) -> int | None:
        """How long the frame with this stamp is shown: until the next one, and the last so far as
        long as it said. Frames are asked for in the order of decoding, each once or again."""
        place = bisect_left(self._times, pts) if pts is not None else len(self._times)
        if place == len(self._times) or self._times[place] != pts:
            return otherwise
        if place + 1 == len(self._times):
            return self._last_duration or otherwise
        duration = self._times[place + 1] - self._times[place]
        if place > _LONGEST_REORDER:
            del self._times[: place - _LONGEST_REORDER]
        return duration

    def _pts_of(self, frame: Frame) -> int:
        seconds = frame.pts * frame.time_base
        if self._begin_seconds is None:
            self._begin_seconds = Fraction(0)
        if self._has_constant_rate and self._first_seconds is None:
            # In whole periods from the first frame, so that a constant rate stays one.
            self._first_seconds = seconds
            late = round((seconds - self._begin_seconds) / self.time_base)
            self._first_pts = max(0, late) if self._may_begin_late else 0
        first = self._begin_seconds if self._first_seconds is None else self._first_seconds
        pts = self._first_pts + round((seconds - first) / self.time_base)
        last = self.last_pts
        if last is not None and pts <= last and self._may_move:
            pts = last + 1
        if last is None or pts > last:
            shown = first + (pts - self._first_pts) * self.time_base
            self.largest_shift_seconds = max(self.largest_shift_seconds, abs(shown - seconds))
            return pts
        raise ValueError(
            f"frames must come in order of time: {pts} after {last} (x {self.time_base} s)"
        )


def as_fraction(value: float | Fraction) -> Fraction:
    """The number itself, or a neighbour with a denominator that containers can hold."""
    return value if isinstance(value, Fraction) else Fraction(value).limit_denominator(1_000_000)


def _checked_seconds(
    value: float | Fraction | None, name: str, *, allow_zero: bool
) -> Fraction | None:
    if value is None:
        return None
    if not (0 < value < math.inf or (value == 0 and allow_zero)):
        least = "at least" if allow_zero else "more than"
        raise UsageError(f"the {name} is {float(value):g} seconds; it is {least} 0")
    return as_fraction(value)
