"""The promise of a live stream: the frames of `restore`, however they arrive; or an exact account."""

import threading
import time
from fractions import Fraction
from itertools import pairwise, repeat

import av
import numpy as np
import pytest
import torch

from instantvir_models.errors import DeviceMemoryError, VideoOpenError, VideoWriteError
from instantvir_models.live import stream as live_stream
from instantvir_models.live.controls import Controls
from instantvir_models.live.overload import Overload
from instantvir_models.live.source import LiveSource, SourceSettings
from instantvir_models.live.stream import LiveSettings, LiveStream
from instantvir_models.live.watchdog import Pulse
from instantvir_models.media import open_video
from instantvir_models.operators.blur import GaussianBlur, TemporalBlur
from instantvir_models.operators.compose import Identity
from instantvir_models.operators.mask import Mask
from instantvir_models.operators.measurement import Degradation
from instantvir_models.run.pipeline import restore_video
from instantvir_models.run.session import Session
from instantvir_models.solvers.amortised import Amortised
from tests.live_tools import Sink, output_to, random_sizes, small_student, stdin_from
from tests.media_clips import make_clip, picture
from tests.wan_small import small_student as small_wan

WIDTH, HEIGHT = 40, 24
NO_DELAY = {"tune": "zerolatency"}
BLUR = Degradation(operator=GaussianBlur(1.5), noise_std=0.02)
TEMPORAL = Degradation(operator=TemporalBlur.uniform(5), noise_std=0.01)


@pytest.fixture(scope="module")
def student():
    return small_student()


def sessions(student, degradation, frames_per_block=None):
    def new_session(height, width):
        return Session(
            Amortised(student),
            degradation,
            height=height,
            width=width,
            frames_per_block=frames_per_block,
        )

    return new_session


def clip(tmp_path, name="in.nut", num_frames=14, **options):
    options = {"codec": "ffv1", "pix_fmt": "bgr0", **options}
    return make_clip(tmp_path / name, width=WIDTH, height=HEIGHT, num_frames=num_frames, **options)


def restored_offline(path, new_session):
    sink = Sink()
    with open_video(path) as reader:
        restore_video(iter(reader), new_session(HEIGHT, WIDTH), sink)
    return sink.frames


def streamed(
    source, new_session, *, settings=None, controls=None, sinks=1, events=None,
    stop_after_seconds=None,
):  # fmt: skip
    """(frames of each sink, status) of a live run."""
    events = events if events is not None else []
    stream = LiveStream(
        source, settings or LiveSettings(), controls=controls, on_event=events.append
    )
    stream.start()
    if stop_after_seconds is not None:
        threading.Timer(stop_after_seconds, stream.stop).start()
    kept = [Sink() for _ in range(sinks)]
    status = stream.run(
        new_session, lambda h, w: [output_to(sink, events=events, only=sinks == 1) for sink in kept]
    )
    assert all(sink.is_closed for sink in kept)
    assert status.frames_abandoned == 0, "the outputs stayed to the end"
    return [sink.frames for sink in kept], status


def numbers_of(frames):
    """Which frame of a clip at 25 frames per second each one is."""
    return [round(25 * frame.pts_seconds) for frame in frames]


def assert_same(live, offline):
    assert len(live) == len(offline)
    for a, b in zip(live, offline, strict=True):
        np.testing.assert_array_equal(a.pixels, b.pixels)
        assert a.pts * a.time_base == b.pts * b.time_base


@pytest.mark.parametrize("degradation", [BLUR, TEMPORAL], ids=["blur", "temporal"])
@pytest.mark.parametrize("largest", [7, 500, 100_000])
def test_a_pipe_gets_what_a_file_gets_whatever_its_chunks(
    student, tmp_path, monkeypatch, degradation, largest
):
    path = clip(tmp_path)
    new_session = sessions(student, degradation)
    with stdin_from(monkeypatch, path.read_bytes(), random_sizes(largest, largest)):
        (live,), status = streamed(SourceSettings(source="-"), new_session)
    assert_same(live, restored_offline(path, new_session))
    assert (status.frames_in, status.frames_out, status.frames_dropped) == (14, 14, 0)


@pytest.mark.parametrize("frames_per_block", [1, 2, 3])
def test_every_block_size_streams_what_it_restores_offline(
    student, tmp_path, monkeypatch, frames_per_block
):
    path = clip(tmp_path, num_frames=7)
    new_session = sessions(student, BLUR, frames_per_block)
    settings = LiveSettings(frames_per_block=frames_per_block)
    with stdin_from(monkeypatch, path.read_bytes(), repeat(1000)):
        (live,), _ = streamed(SourceSettings(source="-"), new_session, settings=settings)
    assert_same(live, restored_offline(path, new_session))


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("in.mkv", "ffv1", "bgr0"),
        ("in.ts", "libx264", "yuv420p"),
        ("in.y4m", "wrapped_avframe", "yuv420p"),
        ("in.nut", "rawvideo", "rgb24"),
        ("in.flv", "libx264", "yuv420p"),
    ],
)
def test_every_container_streams_what_it_restores_offline(
    student, tmp_path, monkeypatch, name, codec, pix_fmt
):
    path = clip(tmp_path, name, codec=codec, pix_fmt=pix_fmt)
    new_session = sessions(student, BLUR)
    with stdin_from(monkeypatch, path.read_bytes(), random_sizes(1, 3000)):
        (live,), _ = streamed(SourceSettings(source="-"), new_session)
    assert_same(live, restored_offline(path, new_session))


def test_a_variable_frame_rate_keeps_its_times(student, tmp_path, monkeypatch):
    pts = [0, 40, 55, 200, 201, 700, 703, 1500, 1540]
    path = clip(tmp_path, "in.mkv", num_frames=9, pts=pts, time_base=Fraction(1, 1000))
    with stdin_from(monkeypatch, path.read_bytes(), random_sizes(2, 900)):
        (live,), _ = streamed(SourceSettings(source="-"), sessions(student, BLUR))
    assert [round(1000 * frame.pts_seconds) for frame in live] == pts


def test_raw_frames_need_only_their_size(student, tmp_path, monkeypatch):
    frames = [picture(index, WIDTH, HEIGHT) for index in range(5)]
    source = SourceSettings(
        source="-",
        input_format="rawvideo",
        input_options=(("video_size", f"{WIDTH}x{HEIGHT}"), ("pixel_format", "rgb24"), ("framerate", "10")),
    )  # fmt: skip
    new_session = sessions(student, BLUR)
    with stdin_from(monkeypatch, np.stack(frames).tobytes(), random_sizes(3, 999)):
        (live,), _ = streamed(source, new_session)
    session = new_session(HEIGHT, WIDTH)
    expected = [*session.push(np.stack(frames)), *session.flush()]
    np.testing.assert_array_equal([frame.pixels for frame in live], expected)
    assert [frame.pts_seconds for frame in live] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_a_silence_changes_nothing_and_is_reported(student, tmp_path, monkeypatch):
    path, events = clip(tmp_path), []
    data = path.read_bytes()
    settings = LiveSettings(stuck_seconds=0.1)
    with stdin_from(monkeypatch, data, repeat(50), pause_at=len(data) * 9 // 10):
        (live,), status = streamed(
            SourceSettings(source="-"), sessions(student, BLUR), settings=settings, events=events
        )
    assert_same(live, restored_offline(path, sessions(student, BLUR)))
    assert status.input_stalls >= 1
    assert any(event.startswith("input: waiting for a frame") for event in events)
    assert "input goes on" in events


def test_a_growing_file_is_followed_until_it_stands_still(student, tmp_path):
    path = clip(tmp_path, "whole.nut")
    data, growing = path.read_bytes(), tmp_path / "growing.nut"
    growing.write_bytes(data[:5000])

    def grow():
        with growing.open("ab", buffering=0) as file:
            for start in range(5000, len(data), 4000):
                time.sleep(0.05)
                file.write(data[start : start + 4000])

    thread = threading.Thread(target=grow)
    thread.start()
    source = SourceSettings(source=str(growing), follow_seconds=1.0)
    (live,), _ = streamed(source, sessions(student, BLUR))
    thread.join()
    assert_same(live, restored_offline(path, sessions(student, BLUR)))


def two_sizes(tmp_path):
    """A transport stream that changes from WIDTHxHEIGHT to twice that."""
    small = clip(
        tmp_path, "small.ts", num_frames=7, codec="libx264", pix_fmt="yuv420p", options=NO_DELAY
    )
    large = make_clip(
        tmp_path / "large.ts", width=2 * WIDTH, height=2 * HEIGHT, num_frames=7,
        codec="libx264", pix_fmt="yuv420p", options=NO_DELAY,
    )  # fmt: skip
    return small, large


def test_a_new_size_begins_a_new_session_and_loses_nothing(student, tmp_path, monkeypatch):
    small, large = two_sizes(tmp_path)
    events = []
    with stdin_from(monkeypatch, small.read_bytes() + large.read_bytes(), repeat(4000)):
        (live,), status = streamed(
            SourceSettings(source="-"), sessions(student, TEMPORAL), events=events
        )
    assert status.size_changes == 1
    assert len(live) == status.frames_in == 14
    assert {frame.pixels.shape for frame in live} == {(HEIGHT, WIDTH, 3)}
    before = restored_offline(small, sessions(student, TEMPORAL))
    np.testing.assert_array_equal(
        [frame.pixels for frame in live[:7]], [frame.pixels for frame in before]
    )
    times = [frame.pts * frame.time_base for frame in live]
    assert all(b > a for a, b in pairwise(times))
    assert any("changes to 80x48" in event for event in events)


def test_frames_a_mask_does_not_fit_pass_unrestored(student, tmp_path, monkeypatch):
    small, large = two_sizes(tmp_path)
    mask = (np.arange(WIDTH * HEIGHT).reshape(1, 1, HEIGHT, WIDTH) % 3 > 0).astype(np.float32)
    import torch

    degradation = Degradation(operator=Mask(torch.from_numpy(mask)), noise_std=0.0)
    events = []
    with stdin_from(monkeypatch, small.read_bytes() + large.read_bytes(), repeat(4000)):
        (live,), status = streamed(
            SourceSettings(source="-"), sessions(student, degradation), events=events
        )
    assert len(live) == 14
    assert status.frames_passed == 7
    assert any("passed through unrestored" in event for event in events)


def test_a_new_size_that_memory_does_not_suffice_for_passes_unrestored(
    student, tmp_path, monkeypatch
):
    """And each size has one session: a full-size student is brought to its card for each."""
    small, large = two_sizes(tmp_path)
    events, made = [], []

    def new_session(height, width):
        made.append((height, width))
        if height > HEIGHT:
            raise DeviceMemoryError("the device ran out of memory")
        return Session(Amortised(student), TEMPORAL, height=height, width=width)

    with stdin_from(monkeypatch, small.read_bytes() + large.read_bytes(), repeat(4000)):
        (live,), status = streamed(SourceSettings(source="-"), new_session, events=events)
    assert made == [(HEIGHT, WIDTH), (2 * HEIGHT, 2 * WIDTH)]
    assert len(live) == 14
    assert status.frames_passed == 7
    assert any("passed through unrestored: the device ran out" in event for event in events)


class SlowSession(Session):
    """Takes its time, as a slow machine does; the cheap ways help."""

    seconds_per_block = 0.06
    frames_shrunk = frames_skipped = 0

    def push(self, frames, known=None):
        SlowSession.frames_skipped += len(frames) * self.is_student_skipped
        SlowSession.frames_shrunk += len(frames) * self.is_shrunk
        is_cheap = self.is_student_skipped or self.is_shrunk
        time.sleep(0.002 if is_cheap else self.seconds_per_block)
        return super().push(frames, known)


def slow_sessions(student, degradation=BLUR):
    return lambda height, width: SlowSession(
        Amortised(student), degradation, height=height, width=width
    )


def camera(tmp_path, num_frames=90):
    """A source several times faster than `SlowSession`, at 1 ms a frame or so."""
    return SourceSettings(source=str(clip(tmp_path, "camera.nut", num_frames)))


@pytest.mark.parametrize("overload", list(Overload))
def test_every_frame_is_accounted_for_under_overload(student, tmp_path, overload):
    settings = LiveSettings(overload=overload)
    (live,), status = streamed(camera(tmp_path), slow_sessions(student), settings=settings)
    assert status.frames_in == 90
    assert status.frames_in == status.frames_out + status.frames_dropped
    (output,) = status.outputs
    assert output.frames_offered == status.frames_out
    assert output.frames_offered == output.frames_written + output.frames_dropped
    assert output.frames_written == len(live)
    times = [frame.pts for frame in live]
    assert times == sorted(set(times))


def test_back_pressure_loses_nothing(student, tmp_path):
    (live,), status = streamed(camera(tmp_path), slow_sessions(student))
    assert len(live) == 90
    assert status.frames_dropped == 0


def test_drop_loses_late_frames_and_keeps_the_times_of_the_others(student, tmp_path):
    settings = LiveSettings(overload=Overload.DROP)
    (live,), status = streamed(camera(tmp_path), slow_sessions(student), settings=settings)
    assert status.frames_dropped > 0
    assert status.frames_passed == status.frames_degraded == 0
    assert numbers_of(live)[-1] == 89, "the newest frame wins"


def test_skip_passes_blocks_as_they_came(student, tmp_path):
    settings = LiveSettings(overload=Overload.SKIP)
    (live,), status = streamed(camera(tmp_path), slow_sessions(student), settings=settings)
    assert status.frames_passed > 0
    unrestored = sum(
        np.array_equal(frame.pixels, picture(number, WIDTH, HEIGHT))
        for frame, number in zip(live, numbers_of(live), strict=True)
    )
    assert 0 < unrestored < len(live)


def test_degrade_restores_at_half_size(student, tmp_path):
    SlowSession.frames_shrunk = SlowSession.frames_skipped = 0
    settings = LiveSettings(overload=Overload.DEGRADE)
    (live,), status = streamed(camera(tmp_path), slow_sessions(student), settings=settings)
    assert status.frames_degraded == SlowSession.frames_shrunk > 0
    assert status.frames_passed == SlowSession.frames_skipped == 0
    assert {frame.pixels.shape for frame in live} == {(HEIGHT, WIDTH, 3)}


def test_degrade_leaves_the_student_out_where_half_size_means_nothing(student, tmp_path):
    SlowSession.frames_shrunk = SlowSession.frames_skipped = 0
    settings = LiveSettings(overload=Overload.DEGRADE)
    half = Degradation(operator=Mask(torch.ones(1, 1, HEIGHT, WIDTH)), noise_std=0.02)
    _, status = streamed(camera(tmp_path), slow_sessions(student, half), settings=settings)
    assert status.frames_degraded == SlowSession.frames_skipped > 0
    assert status.frames_passed == SlowSession.frames_shrunk == 0


def test_one_stuck_output_stalls_no_other(student, tmp_path):
    events, good, stuck = [], Sink(), Sink()
    stuck.may_go_on.clear()
    stream = LiveStream(
        camera(tmp_path, 60), LiveSettings(grace_seconds=0.5), on_event=events.append
    )
    stream.start()
    outputs = [output_to(good, "good"), output_to(stuck, "stuck", events=events, queue_size=4)]
    status = stream.run(sessions(student, BLUR), lambda h, w: outputs)
    stuck.may_go_on.set()
    assert len(good.frames) == 60
    assert status.outputs[0].frames_dropped == 0
    assert status.outputs[1].frames_dropped + status.outputs[1].frames_written == 60
    assert "stuck does not keep up and loses frames" in events
    assert "stuck is stuck and was left behind" in events


def test_an_output_that_fails_leaves_the_others_alone(student, tmp_path):
    events, good = [], Sink()
    full = Sink(fails_at=5, error=VideoWriteError("no space is left for `x`"))
    stream = LiveStream(camera(tmp_path, 30), LiveSettings(), on_event=events.append)
    stream.start()
    outputs = [output_to(good, "good"), output_to(full, "full", events=events)]
    status = stream.run(sessions(student, BLUR), lambda h, w: outputs)
    assert len(good.frames) == 30
    assert full.is_aborted
    assert status.outputs[1].state == "failed"
    assert (status.outputs[1].frames_written, status.outputs[1].frames_dropped) == (5, 25)
    assert events == ["full has ended: no space is left for `x`"]


def test_a_stream_without_outputs_left_ends(student, tmp_path):
    sink = Sink(fails_at=3, error=VideoWriteError("gone"))
    stream = LiveStream(camera(tmp_path), LiveSettings(), on_event=lambda event: None)
    stream.start()
    status = stream.run(sessions(student, BLUR), lambda h, w: [output_to(sink, only=True)])
    assert status.frames_in == status.frames_out + status.frames_abandoned
    assert status.frames_dropped == 0, "none was late"
    assert len(sink.frames) == 3


def test_a_lost_output_comes_back_and_its_frames_are_counted(student, tmp_path):
    events, sinks = [], []

    def open_sink():
        sinks.append(Sink(fails_at=4 if not sinks else None, error=VideoWriteError("lost")))
        return sinks[-1]

    stream = LiveStream(camera(tmp_path, 60), LiveSettings(), on_event=events.append)
    stream.start()
    new_session = slow_sessions(student)
    output = output_to(open_sink, "net", events=events, only=True, reconnect=True)
    status = stream.run(new_session, lambda h, w: [output])
    assert len(sinks) == 2
    assert status.outputs[0].reconnects == 1
    assert status.outputs[0].frames_written == 4 + len(sinks[1].frames)
    assert status.outputs[0].frames_written + status.outputs[0].frames_dropped == 60
    assert events == ["net is lost: lost; connecting again", "net is back"]


def test_off_shows_the_measured_frames(student, tmp_path):
    controls = Controls()
    controls.change(is_on=False)
    path = clip(tmp_path)
    (live,), status = streamed(
        SourceSettings(source=str(path)), sessions(student, BLUR), controls=controls
    )
    assert status.frames_passed == 14
    with open_video(path) as reader:
        np.testing.assert_array_equal(
            [frame.pixels for frame in live], [frame.pixels for frame in reader]
        )


@pytest.mark.parametrize("masks_per_clip", [1, 14])
def test_frames_passed_through_do_not_shift_the_masks_of_later_ones(
    student, tmp_path, masks_per_clip
):
    """Frame 9 was restored with the mask of frame 0, after 9 frames that were not restored."""
    rng = np.random.default_rng(0)
    masks = torch.from_numpy(rng.random((masks_per_clip, 1, HEIGHT, WIDTH)) < 0.5).float()
    degradation = Degradation(operator=Mask(masks), noise_std=0.0)
    controls = Controls()
    controls.change(is_on=False)
    path = clip(tmp_path, codec="ffv1")
    made = []

    def new_session(height, width):
        made.append(Session(Amortised(student), degradation, height=height, width=width))
        return made[-1]

    shown = []
    stream = LiveStream(
        SourceSettings(source=str(path)), LiveSettings(), controls=controls, on_event=shown.append
    )
    stream.start()
    sink = Sink()

    def on_pair(measured, restored):
        if len(numbers) == 8:
            controls.change(is_on=True)
        numbers.append(measured)

    numbers = []
    stream.run(
        new_session, lambda h, w: [output_to(sink, events=shown, only=True)], on_pair=on_pair
    )
    with open_video(path) as reader:
        frames = np.stack([frame.pixels for frame in reader])
    session = Session(Amortised(student), degradation, height=HEIGHT, width=WIDTH)
    session.skip(9)
    expected = np.concatenate([session.push(frames[9:]), session.flush()])
    np.testing.assert_array_equal([frame.pixels for frame in sink.frames[9:]], expected)
    np.testing.assert_array_equal([frame.pixels for frame in sink.frames[:9]], frames[:9])


def test_after_frames_passed_through_no_student_is_asked_for_again(student, tmp_path):
    """A full-size one would be planned and brought to its card anew, to run out of memory again."""
    controls, made, numbers, sink = Controls(), [], [], Sink()

    def new_session(height, width):
        made.append((height, width))
        return Session(Amortised(student), TEMPORAL, height=height, width=width)

    def on_pair(measured, restored):
        numbers.append(measured)
        controls.change(is_on=len(numbers) % 4 < 2)

    stream = LiveStream(
        SourceSettings(source=str(clip(tmp_path, codec="ffv1"))), LiveSettings(),
        controls=controls, on_event=lambda text: None,
    )  # fmt: skip
    stream.start()
    status = stream.run(
        new_session, lambda h, w: [output_to(sink, events=[], only=True)], on_pair=on_pair
    )
    assert status.frames_passed > 0
    assert len(sink.frames) == 14
    assert made == [(HEIGHT, WIDTH)]


def test_no_frame_waits_for_more_than_its_block_needs(tmp_path):
    """A full-size student's first block is shorter; its frames waited for a later block's number."""
    pushed = []

    class Noting(Session):
        def push(self, frames, known=None):
            restored = super().push(frames, known)
            pushed.append((len(frames), len(restored)))
            return restored

    full_size = small_wan("lean", window_latents=6)
    settings = LiveSettings(frames_per_block=full_size.frames_per_block)
    (live,), _ = streamed(
        SourceSettings(source=str(clip(tmp_path, num_frames=23))),
        lambda height, width: Noting(Amortised(full_size), BLUR, height=height, width=width),
        settings=settings,
    )
    assert pushed == [(9, 9), (12, 12), (2, 0)]
    assert len(live) == 23


def test_look_ahead_waits_for_its_frames_and_no_more(student, tmp_path):
    pushed = []

    class Noting(Session):
        def push(self, frames, known=None):
            restored = super().push(frames, known)
            pushed.append((len(frames), len(restored)))
            return restored

    streamed(
        SourceSettings(source=str(clip(tmp_path, num_frames=11))),
        lambda height, width: Noting(Amortised(student), TEMPORAL, height=height, width=width),
    )
    assert pushed == [(5, 3), (3, 3), (3, 3)]


def test_strength_blends(student, tmp_path):
    path = clip(tmp_path, num_frames=6)
    frames = {}
    for strength in (0.0, 0.5, 1.0):
        controls = Controls()
        controls.change(strength=strength)
        (live,), _ = streamed(
            SourceSettings(source=str(path)), sessions(student, BLUR), controls=controls
        )
        frames[strength] = np.stack([frame.pixels for frame in live]).astype(int)
    middle = (frames[0.0] + frames[1.0]) / 2
    assert np.abs(frames[0.5] - middle).max() <= 0.5
    assert np.abs(frames[1.0] - frames[0.0]).max() > 2


def test_stop_writes_what_was_captured(student, tmp_path, monkeypatch):
    path = clip(tmp_path)
    read_on = threading.Event()

    def chunks():
        yield len(path.read_bytes()) - 1  # all but the end: the pipe stays open
        read_on.wait(10)
        yield 1

    with stdin_from(monkeypatch, path.read_bytes(), chunks()):
        sink = Sink()
        stream = LiveStream(SourceSettings(source="-"), LiveSettings(), on_event=lambda event: None)
        stream.start()
        threading.Timer(1.0, stream.stop).start()
        status = stream.run(sessions(student, BLUR), lambda h, w: [output_to(sink, only=True)])
        read_on.set()
    assert len(sink.frames) == status.frames_in >= 13
    assert status.frames_dropped == 0


def test_stop_gives_out_what_the_decoder_still_holds(student, tmp_path, monkeypatch):
    """B-frames wait in the decoder: a stop that only closed the source lost three of twenty."""
    path = clip(tmp_path, "in.mkv", num_frames=20, codec="libx264", pix_fmt="yuv420p")
    may_end = threading.Event()

    def chunks():
        yield len(path.read_bytes()) - 1
        may_end.wait(20)
        yield 1

    with stdin_from(monkeypatch, path.read_bytes(), chunks()):
        (live,), status = streamed(
            SourceSettings(source="-"), sessions(student, BLUR), stop_after_seconds=1.5
        )
        may_end.set()
    assert numbers_of(live) == list(range(20))
    assert status.frames_dropped == 0


def test_stop_ends_a_file_with_the_frames_it_has_read(student, tmp_path):
    source = SourceSettings(source=str(clip(tmp_path, num_frames=400)))
    (live,), status = streamed(source, slow_sessions(student), stop_after_seconds=0.5)
    assert status.frames_dropped == 0
    assert numbers_of(live) == list(range(status.frames_in))
    assert status.frames_in < 400


def test_a_sample_ends_where_the_size_changes(student, tmp_path, monkeypatch):
    small, large = two_sizes(tmp_path)
    with stdin_from(monkeypatch, small.read_bytes() + large.read_bytes(), repeat(4000)):
        stream = LiveStream(SourceSettings(source="-"), LiveSettings(), on_event=lambda event: None)
        stream.start()
        assert len(stream.sample(12)) == 7
        sink = Sink()
        stream.run(sessions(student, BLUR), lambda h, w: [output_to(sink, only=True)])
    assert len(sink.frames) == 14


def test_a_closed_standard_input_is_a_sentence(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    stream = LiveStream(SourceSettings(source="-"), LiveSettings(), on_event=lambda event: None)
    with pytest.raises(VideoOpenError, match="standard input is closed"):
        stream.start()
    stream.close()


def test_a_source_that_fails_before_its_first_frame_is_no_empty_stream(student, monkeypatch):
    """It was, without a word: only later failures were raised."""

    class Broken:
        reconnects = 0

        def __iter__(self):
            raise RuntimeError("a bug")

        def close(self):
            pass

    monkeypatch.setattr(live_stream, "LiveSource", lambda *args, **others: Broken())
    stream = LiveStream(SourceSettings(source="-"), LiveSettings(), on_event=lambda event: None)
    stream.start()
    with pytest.raises(RuntimeError, match="a bug"):
        stream.run(sessions(student, BLUR), lambda h, w: [])


def test_an_output_that_dies_of_a_bug_says_so_at_once(student, tmp_path):
    events, good, bad = [], Sink(), Sink(fails_at=2, error=RuntimeError("a bug"))
    stream = LiveStream(camera(tmp_path, 30), LiveSettings(), on_event=events.append)
    stream.start()
    outputs = [output_to(good, "good"), output_to(bad, "bad", events=events)]
    with pytest.raises(RuntimeError, match="a bug"):
        stream.run(sessions(student, BLUR), lambda h, w: outputs)
    assert "bad has ended: RuntimeError: a bug" in events
    assert len(good.frames) == 30


def test_an_empty_pipe_is_told(monkeypatch):
    stream = LiveStream(SourceSettings(source="-"), LiveSettings(), on_event=lambda event: None)
    with (
        stdin_from(monkeypatch, b"", repeat(1)),
        pytest.raises(VideoOpenError, match="standard input is empty"),
    ):
        stream.start()


def test_sound_reaches_the_outputs_with_its_picture(student, tmp_path):
    path = clip(tmp_path, "in.mkv", num_frames=20, audio=True)
    with av.open(str(path)) as container:
        expected = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    sink = Sink()
    stream = LiveStream(
        SourceSettings(source=str(path)), LiveSettings(), on_event=lambda event: None
    )
    stream.start()
    stream.run(sessions(student, BLUR), lambda h, w: [output_to(sink, only=True)])
    assert [packet.data for packet in sink.packets] == expected


def test_no_output_is_opened_on_a_source_that_is_away(tmp_path):
    """A closed container must not be asked for its streams; the output tries again later."""
    source = LiveSource(
        SourceSettings(source=str(clip(tmp_path))),
        stop=threading.Event(),
        on_event=lambda event: None,
        on_companions=lambda packets: None,
        pulse=Pulse("input"),
    )
    with source.open_reader() as reader:
        assert reader is source.reader
    source._is_away = True
    with pytest.raises(VideoWriteError, match="while the input is lost"), source.open_reader():
        pass
    source.close()


def test_the_only_consumer_may_be_slow_to_the_end(student, tmp_path):
    """Back-pressure loses nothing: not even the last frames, however long they take."""
    sink, path = Sink(), clip(tmp_path)
    stream = LiveStream(
        SourceSettings(source=str(path)),
        LiveSettings(grace_seconds=0.05),
        on_event=lambda event: None,
    )
    stream.start()
    sink.may_go_on.clear()
    threading.Timer(1.0, sink.may_go_on.set).start()
    stream.run(sessions(student, BLUR), lambda h, w: [output_to(sink, only=True)])
    assert len(sink.frames) == 14


def test_asked_to_stop_nobody_waits_for_a_consumer_without_end(student, tmp_path):
    sink, events = Sink(), []
    stream = LiveStream(camera(tmp_path), LiveSettings(grace_seconds=0.3), on_event=events.append)
    stream.start()
    sink.may_go_on.clear()
    threading.Timer(1.0, stream.stop).start()
    output = output_to(sink, "pipe", events=events, only=True)
    output._on_give_up = sink.may_go_on.set
    status = stream.run(sessions(student, BLUR), lambda h, w: [output])
    assert "pipe is stuck and was left behind" in events
    assert status.frames_in == status.frames_out + status.frames_abandoned
    (one,) = status.outputs
    assert one.frames_offered == one.frames_written + one.frames_dropped


def test_a_source_without_video_is_refused(tmp_path):
    (tmp_path / "x.nut").write_bytes(b"nothing of the kind" * 100)
    source = SourceSettings(source=str(tmp_path / "x.nut"))
    with pytest.raises(VideoOpenError, match="is not a video"):
        LiveSource(
            source,
            stop=threading.Event(),
            on_event=lambda event: None,
            on_companions=lambda packets: None,
            pulse=Pulse("input"),
        )


def test_identity_of_nothing_is_left_alone(student, tmp_path):
    """The first frames looked at for estimates are restored like all others."""
    path = clip(tmp_path)
    degradation = Degradation(operator=Identity(), noise_std=0.05)
    stream = LiveStream(
        SourceSettings(source=str(path)), LiveSettings(), on_event=lambda event: None
    )
    stream.start()
    assert numbers_of(stream.sample(12)) == list(range(12))
    sink = Sink()
    new_session = sessions(student, degradation)
    stream.run(new_session, lambda h, w: [output_to(sink, only=True)])
    assert_same(sink.frames, restored_offline(path, new_session))
