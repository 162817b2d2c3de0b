"""Laws of time, on pictures without a file."""

import itertools
from fractions import Fraction

import av
import numpy as np
import pytest

from instantvir_models.errors import UsageError
from instantvir_models.media import Frame
from instantvir_models.media.timeline import OutputTimeline, SourceTimeline, Span, Trim

EVERYTHING = Trim()
MILLISECOND = Fraction(1, 1000)
NO_PIXELS = np.zeros((2, 2, 3), np.uint8)


def pictures_at(times):
    for pts in times:
        picture = av.VideoFrame(2, 2, "gray")
        picture.pts = pts
        yield picture


def source(trim=EVERYTHING, **options):
    return SourceTimeline("`a film`", time_base=MILLISECOND, trim=trim, **options)


def times_within(timeline, times, on_end=lambda: None):
    return [picture.pts for picture in timeline.within(pictures_at(times), on_end=on_end)]


@pytest.mark.parametrize("seed", range(20))
def test_times_only_ever_grow_and_good_ones_stay(seed):
    random = np.random.default_rng(seed)
    given = [None if random.random() < 0.3 else int(random.integers(0, 2000)) for _ in range(50)]
    times = times_within(source(), given)
    assert len(times) == len(given)
    assert all(earlier < later for earlier, later in itertools.pairwise(times))
    for before, wanted, got in zip([-1, *times], given, times, strict=False):
        assert got == wanted or wanted is None or wanted <= before


@pytest.mark.parametrize("first_seconds", [Fraction(0), Fraction(40_000)])
def test_a_trim_counts_from_the_beginning_of_the_source(first_seconds):
    begin = int(first_seconds / MILLISECOND)
    whole = [begin + 40 * index for index in range(50)]
    timeline = source(Trim.of(0.4, 0.2), first_seconds=first_seconds)
    ends = []
    assert times_within(timeline, whole, lambda: ends.append(1)) == whole[10:15]
    assert ends == [1]
    first = next(pictures_at(whole[10:]))
    assert timeline.span_from(first) == Span(
        first_seconds + Fraction(2, 5), first_seconds + Fraction(3, 5)
    )


def test_nothing_cut_off_means_no_span():
    timeline = source()
    times_within(timeline, [7, 8])
    assert timeline.span_from(next(pictures_at([7]))) is None


def test_decoding_that_begins_behind_the_start_is_late():
    for first, is_late in ((0, False), (400, False), (440, True)):
        timeline = source(Trim.of(0.4, None))
        times_within(timeline, [first])
        assert timeline.began_late() == is_late


@pytest.mark.parametrize(
    ("start", "duration", "message"),
    [
        (-1, None, "the start is -1 seconds; it is at least 0"),
        (float("nan"), None, "the start is nan seconds; it is at least 0"),
        (0, 0, "the duration is 0 seconds; it is more than 0"),
    ],
)
def test_an_impossible_trim_is_refused(start, duration, message):
    with pytest.raises(UsageError, match=message):
        Trim.of(start, duration)


def frame_at(pts, duration=0):
    return Frame(NO_PIXELS, pts, MILLISECOND, duration)


def output(time_base=MILLISECOND, span=None, has_constant_rate=False, is_live=False):
    return OutputTimeline(
        time_base, span=span, has_constant_rate=has_constant_rate, is_live=is_live
    )


def test_an_output_keeps_the_times_of_the_source_or_counts_from_its_span():
    times = [40_000, 40_010, 40_900]
    kept = output()
    assert [kept.stamp(frame_at(pts)) for pts in times] == times
    moved = output(span=Span(Fraction(40), None))
    assert [moved.stamp(frame_at(pts)) for pts in times] == [0, 10, 900]


def test_a_constant_rate_counts_frames_from_the_first():
    timeline = output(Fraction(1, 25), has_constant_rate=True)
    assert [timeline.stamp(frame_at(pts)) for pts in (1000, 1001, 1080)] == [0, 1, 2]


def test_frames_too_close_together_are_moved_apart_live_and_refused_in_a_file():
    live = output(Fraction(1, 25), is_live=True)
    assert [live.stamp(frame_at(pts)) for pts in (0, 1, 2, 200)] == [0, 1, 2, 5]
    file = output()
    file.stamp(frame_at(5))
    with pytest.raises(ValueError, match="in order of time: 5 after 5"):
        file.stamp(frame_at(5))


def test_a_duration_is_told_once_and_in_the_units_of_the_output():
    timeline = output(Fraction(1, 100))
    pts = timeline.stamp(frame_at(0, duration=250))
    assert timeline.duration_of(pts, 4) == 25
    assert timeline.take_duration(pts, 4) == 4
