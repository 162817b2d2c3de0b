"""Laws of time, on pictures without a file."""

import itertools
from fractions import Fraction

import av
import numpy as np
import pytest

from instantvir_models.errors import UsageError
from instantvir_models.media import Frame, create_video, open_video
from instantvir_models.media.timeline import (
    DecodingTimes,
    OutputTimeline,
    RisingTimes,
    SourceClock,
    SourceTimeline,
    Span,
    StandingTimes,
    Trim,
)
from tests.media_clips import make_clip, picture

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


def test_a_duration_is_in_the_units_of_the_output():
    timeline = output(Fraction(1, 100))
    pts = timeline.stamp(frame_at(0, duration=250))
    assert timeline.duration_of(pts, 4) == 25


def broadcast(seed, num_stretches=4, seconds_per_stretch=2):
    """Packets of three streams as a recording has them: (stream, stretch, time, duration, time of
    the whole), around each jump of the clock in no order of the streams."""
    random = np.random.default_rng(seed)
    durations = [Fraction(1, 25), Fraction(1152, 44_100), Fraction(1, 10)]
    offsets = [Fraction(int(random.integers(0, 300)), 1000) for _ in durations]
    packets, begin = [], Fraction(0)
    for stretch in range(num_stretches):
        clock = Fraction(int(random.integers(0, 95_443_000)), 1000)
        for stream, (duration, offset) in enumerate(zip(durations, offsets, strict=True)):
            count = int(seconds_per_stretch / duration)
            for index in range(count):
                within = offset + index * duration
                late = Fraction(int(random.integers(0, 100)), 1000)
                packets.append((begin + within + late, stream, stretch, clock + within, duration))
        begin += seconds_per_stretch
    packets.sort(key=lambda packet: packet[0])
    last = {}
    for index, (_, stream, stretch, time, duration) in enumerate(packets):
        # Delays do not change the order within a stream.
        last.setdefault((stream, stretch), []).append((index, time, duration))
    for places in last.values():
        times = sorted(time for _, time, _ in places)
        for (index, _, duration), time in zip(places, times, strict=True):
            moment, stream, stretch, _, _ = packets[index]
            packets[index] = (moment, stream, stretch, time, duration)
    return packets


@pytest.mark.parametrize("seed", range(20))
def test_jumps_of_a_clock_move_all_streams_alike(seed):
    packets = broadcast(seed)
    first = min(time for _, _, stretch, time, _ in packets if stretch == 0)
    clock = SourceClock(first, has_jumps=True)
    shifts, placed = {}, {}
    for _, stream, stretch, time, duration in packets:
        shift = clock.shift(stream, time, duration)
        shifts.setdefault(stretch, set()).add(shift)
        placed.setdefault(stream, []).append(time + shift)
    assert all(len(of_one_stretch) == 1 for of_one_stretch in shifts.values())
    assert min(times[0] for times in placed.values()) == 0
    unlike = Fraction(3, 10) + Fraction(1, 10)  # by how much streams begin and end apart
    for times in placed.values():
        assert all(
            -unlike < later - earlier < unlike for earlier, later in itertools.pairwise(times)
        )


@pytest.mark.parametrize("has_jumps", [False, True])
def test_a_clock_that_does_not_jump_is_moved_to_zero_and_else_left_alone(has_jumps):
    clock = SourceClock(Fraction(40_000), has_jumps=has_jumps)
    second = Fraction(1)
    for seconds in (40_000, 40_001, 40_008, 40_009):  # with a gap
        assert clock.shift(0, Fraction(seconds), second) == -40_000
    assert clock.shift(1, Fraction(40_003), second) == -40_000
    assert clock.shift(2, Fraction(40_500), second, is_sparse=True) == -40_000


def test_one_wrong_time_costs_one_packet():
    clock = SourceClock(Fraction(0), has_jumps=True)
    step, times = Fraction(1, 25), []
    for index in range(20):
        seconds = Fraction(50_000) if index == 10 else index * step
        times.append(seconds + clock.shift(0, seconds, step))
    assert times == [index * step for index in range(20)]


def test_a_clock_whose_beginning_is_unknown_begins_with_what_is_read_first():
    clock = SourceClock(None)
    clock.begin(Fraction(7))
    assert clock.shift(0, Fraction(7), MILLISECOND) == -7


def test_long_gaps_stay_where_the_clock_does_not_jump_and_are_closed_where_it_may():
    for has_jumps, gap in ((False, 100), (True, 1)):
        clock = SourceClock(Fraction(0), has_jumps=has_jumps)
        clock.shift(0, Fraction(0), Fraction(1))
        assert 101 + clock.shift(0, Fraction(101), Fraction(1)) == (101 if gap == 100 else 1)


@pytest.mark.parametrize("seed", range(10))
def test_decoding_times_of_a_stream_rise(seed):
    random = np.random.default_rng(seed)
    rising = RisingTimes()
    given = [int(time) for time in random.integers(0, 100, 50)]
    placed = [rising.place(None, dts)[1] for dts in given]
    assert all(earlier < later for earlier, later in itertools.pairwise(placed))
    assert all(got >= wanted for got, wanted in zip(placed, given, strict=True))
    assert RisingTimes().place(5, 3) == (5, 3)


@pytest.mark.parametrize("seed", range(10))
def test_each_picture_is_shown_until_the_next(seed):
    """Decoders tell the duration of a packet, and packets come in another order."""
    times = np.cumsum(np.random.default_rng(seed).integers(1, 3000, 30)).tolist()
    timeline = source(end_seconds=lambda: (times[-1] + 77) * MILLISECOND)
    shown = [(p.pts, p.duration) for p in timeline.within(pictures_at(times), on_end=lambda: None)]
    assert [pts for pts, _ in shown] == times
    assert [duration for _, duration in shown] == [*np.diff(times), 77]


def test_pictures_of_a_container_without_times_of_showing_come_in_order():
    times = DecodingTimes()
    for dts in (0, 1, 2, None, 5, 6):
        times.decoded(dts)
    times.lost(2)
    assert [times.next_pts() for _ in range(5)] == [0, 1, 5, 6, None]


def test_durations_of_an_output_reach_to_the_next_frame():
    timeline = output()
    for pts in (0, 10, 500):
        timeline.stamp(frame_at(pts, duration=33))
    assert [timeline.duration_of(pts, None) for pts in (500, 0, 10)] == [33, 10, 490]
    assert timeline.duration_of(7, 4) == 4


def test_a_picture_that_is_shown_long_holds_no_clock_back():
    """B-frames of a screen recording in Matroska: what is decoded first is shown for 3 s, and those
    behind it are decoded meanwhile. It was taken for a clock that goes back."""
    clock = SourceClock(Fraction(0))
    times = [(Fraction(12, 10), 3), (Fraction(124, 100), Fraction(8, 100)), (Fraction(136, 100), 0)]
    assert [clock.shift(0, seconds, Fraction(duration)) for seconds, duration in times] == [0, 0, 0]


def test_a_film_in_mp4_is_as_long_as_its_pictures_are_shown(tmp_path):
    """MP4 adds up the times between packets in the order of decoding; a screen recording of 4.0 s with
    B-frames said 3.85."""
    shown = [0, 40, 120, 240, 840, 880, 3880, 3920]
    clip = make_clip(
        tmp_path / "in.mkv", pts=shown, time_base=Fraction(1, 1000), codec="ffv1", pix_fmt="bgr0"
    )
    with (
        open_video(clip) as reader,
        create_video(tmp_path / "out.mp4", info_of=reader, width=32, height=32) as writer,
    ):
        for frame in reader:
            writer.write(frame)
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert float(stream.duration * stream.time_base) == pytest.approx(3.96, abs=1e-3)


def test_a_constant_rate_says_how_far_pictures_were_moved():
    """Matroska says the average rate of a screen recording, and AVI showed its pictures up to two tenths
    of a second elsewhere, in silence."""
    timeline = OutputTimeline(Fraction(1, 10), span=None, has_constant_rate=True, is_live=False)
    for milliseconds in (0, 100, 140, 180, 600):
        timeline.stamp(Frame(NO_PIXELS, milliseconds, MILLISECOND, 40))
    assert timeline.largest_shift_seconds == Fraction(12, 100)


@pytest.mark.parametrize("has_jumps", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_a_clock_says_the_same_quickly(seed, has_jumps):
    """Packets that follow one another are not looked at closely: nothing may come of that."""
    random = np.random.default_rng(seed)
    bases = [Fraction(1, 25), Fraction(1, 48_000), MILLISECOND]
    quick, slow = (SourceClock(Fraction(7, 3), has_jumps=has_jumps) for _ in range(2))
    seconds = np.zeros(3)
    for _ in range(300):
        stream = int(random.integers(3))
        seconds[stream] += random.choice([0.04, 0.08, 0.5, 20, -3], p=[0.8, 0.1, 0.06, 0.02, 0.02])
        base, is_sparse = bases[stream], stream == 2
        time, duration = round(seconds[stream] / base), round(random.choice([0, 0.04]) / base)
        if random.random() < 0.05:
            time = None
        expected = slow.shift(
            stream, None if time is None else time * base, duration * base, is_sparse=is_sparse
        )
        got = quick.shift_ticks(stream, time, duration, base, is_sparse=is_sparse)
        assert got == round(expected / base)


def test_sound_whose_clock_stands_is_heard_packet_after_packet():
    """RealMedia gives a block of packets one time: of 31 of them 6 were heard, in silence."""
    times = StandingTimes()
    assert [times.place(pts, 20) for pts in (0, 0, 0, 60, 60, 200)] == [0, 20, 40, 60, 80, 200]


def test_all_of_the_sound_of_realmedia_comes_along(tmp_path):
    with av.open(str(tmp_path / "in.rm"), "w") as container:
        video = container.add_stream("rv20", rate=25, width=64, height=48, pix_fmt="yuv420p")
        sound = container.add_stream("real_144", rate=8000)
        sound.codec_context.layout = "mono"
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 3200), np.int16), "s16", "mono")
        silence.sample_rate, silence.pts = 8000, 0
        for index in range(10):
            frame = av.VideoFrame.from_ndarray(picture(index, 64, 48), format="rgb24")
            frame.pts = index
            container.mux(video.encode(frame.reformat(format="yuv420p")))
        resampler = av.AudioResampler("s16", "mono", 8000, frame_size=160)
        heard = [p for f in [*resampler.resample(silence), None] for p in sound.encode(f)]
        container.mux(heard)
    with open_video(tmp_path / "in.rm") as reader:
        list(reader)
        times = [float(p.pts * p.time_base) for p in reader.demuxer.waiting.drain()]
    assert len(times) >= 20
    assert times == pytest.approx([0.02 * i for i in range(len(times))], abs=0.002)
