"""The small parts of a live stream, each on its own."""

import threading
import time

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from instantvir_models.errors import UsageError, VideoWriteError
from instantvir_models.live.controls import Controls
from instantvir_models.live.fit import blended, fitted
from instantvir_models.live.output import Restored
from instantvir_models.live.overload import LoadGauge, Overload, Relief, Way
from instantvir_models.live.status import Counters, Percentiles
from instantvir_models.live.stream import LiveSettings
from instantvir_models.live.virtual_camera import VirtualCamera
from instantvir_models.live.watchdog import Watchdog
from instantvir_models.media import to_unit
from instantvir_models.operators.blur import GaussianBlur, TemporalBlur
from instantvir_models.operators.compose import Identity
from instantvir_models.operators.consistency import relative_residual
from instantvir_models.operators.mask import Mask
from instantvir_models.operators.measurement import Degradation, Measurement
from instantvir_models.run.session import Session
from instantvir_models.run.stages import Link, Stopped
from instantvir_models.solvers.amortised import Amortised
from tests.live_tools import Sink, frame, output_to, small_student
from tests.media_clips import picture


def test_a_full_link_gives_up_its_oldest_items():
    link = Link(threading.Event(), 3)
    assert [link.offer(n) for n in range(5)] == [[], [], [], [0], [1]]
    assert [link.get() for _ in range(3)] == [2, 3, 4]


def test_a_link_whose_run_has_stopped_lets_nobody_wait():
    stop = threading.Event()
    link = Link(stop, 1)
    assert link.put_within(1, 0.01)
    assert not link.put_within(2, 0.01)
    stop.set()
    with pytest.raises(Stopped):
        link.put(2)
    assert link.get() == 1, "what was handed over is not lost"
    with pytest.raises(Stopped):
        link.get()


def test_relief_comes_late_and_stays_until_the_queue_is_short():
    gauge = LoadGauge(9, 3)
    assert [gauge.is_behind(n) for n in (0, 5, 6, 5, 4, 3, 5)] == [
        False, False, True, True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(("queue_size", "block"), [(4, 1), (6, 2), (9, 3)])
def test_relief_ends_on_an_empty_queue(queue_size, block):
    gauge = LoadGauge(queue_size, block)
    assert gauge.is_behind(queue_size)
    assert not gauge.is_behind(0)


@pytest.mark.parametrize(
    ("overload", "when_behind"),
    [(Overload.BLOCK, Way.RESTORE), (Overload.DROP, Way.RESTORE), (Overload.SKIP, Way.PASS),
     (Overload.DEGRADE, Way.DEGRADE)],
)  # fmt: skip
def test_relief_is_what_the_policy_says_and_ends_with_the_load(overload, when_behind):
    waiting = iter([0, 9, 4, 3])
    relief = Relief(overload, LoadGauge(9, 3), lambda: next(waiting))
    assert [relief.way() for _ in range(4)] == [Way.RESTORE, when_behind, when_behind, Way.RESTORE]


def test_the_bound_of_the_delay_is_the_queue_two_blocks_and_what_completes_one():
    settings = LiveSettings(overload=Overload.DROP, frames_per_block=3)
    seen = {"slowest_block_seconds": 0.2, "look_ahead": 2}
    assert settings.delay_bound_seconds(fps=10, **seen) == pytest.approx(5 * 0.2 + 4 / 10)
    assert settings.delay_bound_seconds(fps=0, **seen) is None
    assert LiveSettings().delay_bound_seconds(fps=10, **seen) is None


def test_percentiles_are_measurements():
    assert Percentiles.of([3.0, 1.0, 2.0]) == Percentiles(2.0, 3.0, 3.0)
    assert Percentiles.of([]) == Percentiles(0, 0, 0)


def test_counters_count_from_many_threads():
    counters = Counters()
    threads = [
        threading.Thread(target=lambda: [counters.add("in") for _ in range(500)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.count("in") == 2000
    assert counters.fps("in") > 0


def test_a_fitted_frame_keeps_its_proportions():
    tall = np.full((40, 10, 3), 200, np.uint8)
    out = fitted(tall, (20, 30))
    assert out.shape == (20, 30, 3)
    assert (out[:, 12:17] == 200).all()
    assert (out[:, :12] == 0).all()
    assert (out[:, 17:] == 0).all()
    assert fitted(tall, (40, 10)) is tall


def test_sixteen_bits_are_fitted_and_blended_as_sixteen_bits():
    deep = picture(0, 32, 24).astype(np.uint16) * 257
    assert fitted(deep, (48, 64)).dtype == np.uint16
    half = blended(deep, np.zeros_like(deep), 0.5)
    assert np.abs(half.astype(int) * 2 - deep).max() <= 1


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_out_of_range_changes_nothing(strength):
    controls = Controls()
    with pytest.raises(UsageError, match="a number from 0 to 1"):
        controls.change(strength=strength)
    assert controls.settings.strength == 1


def test_the_watchdog_names_the_stage_once_and_again_when_it_goes_on():
    said, long = [], []
    watchdog = Watchdog(0.02, said.append, long.append)
    first, second = watchdog.add("input"), watchdog.add("output x")
    with first.busy("waiting for a frame"):
        time.sleep(0.05)
        watchdog.check()
        watchdog.check()
    watchdog.check()
    with second.busy("writing"):
        watchdog.check()
    assert said == ["input: waiting for a frame for 0 s so far", "input goes on"]
    assert long == ["input"]


def test_a_source_that_is_always_slow_is_told_of_once(monkeypatch):
    """One picture every 15 seconds was called stuck, and going on, for each of them."""
    now, said = [0.0], []
    monkeypatch.setattr("instantvir_models.live.watchdog.time.monotonic", lambda: now[0])
    watchdog = Watchdog(10.0, said.append)
    pulse = watchdog.add("input")

    def pause(seconds):
        with pulse.busy("waiting for a frame"):
            for _ in range(int(2 * seconds)):
                now[0] += 0.5
                watchdog.check()

    for _ in range(4):
        pause(15)  # no check between two frames: the next wait has begun by then
    assert said == ["input: waiting for a frame for 10 s so far", "input goes on"]
    pause(60)
    assert said[2:] == ["input: waiting for a frame for 30 s so far"]
    watchdog.check()
    assert said[3:] == ["input goes on"]


def test_an_idle_stage_is_not_reported():
    said = []
    watchdog = Watchdog(0.0, said.append)
    watchdog.add("output")
    time.sleep(0.01)
    watchdog.check()
    assert said == []


def test_an_output_that_cannot_be_opened_is_told_and_counted():
    events = []

    def open_sink():
        raise VideoWriteError("nobody listens")

    output = output_to(open_sink, "net", events=events)
    output.start()
    output.offer(Restored(frame(), time.monotonic()), may_wait=True)
    output.finish(grace_seconds=5, may_wait=lambda: False)
    assert str(output.failure) == "nobody listens"
    assert (output.status.frames_offered, output.status.frames_dropped) == (1, 1)
    assert not output.is_alive


def test_a_bug_in_a_sink_is_not_swallowed():
    output = output_to(Sink(fails_at=0, error=RuntimeError("a bug")))
    output.start()
    output.offer(Restored(frame(), time.monotonic()), may_wait=True)
    output.finish(grace_seconds=5, may_wait=lambda: False)
    assert str(output.bug) == "a bug"


@pytest.mark.parametrize("frames_per_block", [1, 2])
def test_smaller_blocks_come_sooner(frames_per_block):
    degradation = Degradation(operator=GaussianBlur(1.0), noise_std=0.02)
    session = Session(
        Amortised(small_student()),
        degradation,
        height=24,
        width=32,
        frames_per_block=frames_per_block,
    )
    frames = np.stack([picture(t, 32, 24) for t in range(4)])
    counts = [len(session.push(frames[t : t + 1])) for t in range(4)]
    assert counts == [frames_per_block * (t % frames_per_block == frames_per_block - 1) for t in range(4)]  # fmt: skip


def test_a_block_of_one_does_not_see_the_next_frame():
    degradation = Degradation(operator=GaussianBlur(1.0), noise_std=0.02)
    outs = []
    for last in (0, 255):
        session = Session(
            Amortised(small_student()), degradation, height=24, width=32, frames_per_block=1
        )
        frames = np.stack([picture(0, 32, 24), picture(1, 32, 24)])
        frames[1] = last
        outs.append(session.push(frames))
    np.testing.assert_array_equal(outs[0][0], outs[1][0])
    assert not np.array_equal(outs[0][1], outs[1][1])


@pytest.mark.parametrize("frames_per_block", [0, 4])
def test_blocks_the_student_was_not_made_for_are_refused(frames_per_block):
    degradation = Degradation(operator=GaussianBlur(1.0), noise_std=0.02)
    with pytest.raises(UsageError, match=f"blocks of {frames_per_block} frames do not suit"):
        Session(
            Amortised(small_student()),
            degradation,
            height=24,
            width=32,
            frames_per_block=frames_per_block,
        )


def test_without_the_student_the_measurement_still_counts():
    degradation = Degradation(operator=GaussianBlur(1.5), noise_std=0.01)
    frames = np.stack([picture(t, 32, 24) for t in range(6)])
    session = Session(Amortised(small_student()), degradation, height=24, width=32)
    session.is_student_skipped = True
    assert len(session.push(frames)) == 6
    y = to_unit(frames)
    measurement = Measurement(y, degradation)
    assert session.report.residual < 0.8 * relative_residual(y, measurement)


@pytest.mark.parametrize("operator", [Identity(), GaussianBlur(1.5), GaussianBlur(2, 1)])
def test_half_size_is_the_video_of_half_the_size(operator):
    """Averages over 2x2 pixels were blurred by half the sigma: the same law, in larger pixels."""
    x = to_unit(np.stack([picture(t, 64, 48) for t in range(2)]))
    x = GaussianBlur(1.5).A(x)  # no detail that half the pixels could not hold
    expected = F.avg_pool2d(operator.A(x)[0], 2)
    found = operator.halved().A(F.avg_pool2d(x[0], 2)[None])[0]
    assert (found - expected).abs().max() < 0.02


def test_a_shrunk_block_is_the_restored_half_enlarged():
    frames = np.stack([picture(t, 32, 24) for t in range(6)])
    session = Session(
        Amortised(small_student(), torch.float32), Degradation(operator=GaussianBlur(1.0), noise_std=0.02),
        height=24, width=32,
    )  # fmt: skip
    session.push(frames[:3])
    session.is_shrunk = True
    shown = session.push(frames[3:])
    half = Session(
        Amortised(small_student(), torch.float32), Degradation(operator=GaussianBlur(0.5), noise_std=0.01),
        height=12, width=16,
    )  # fmt: skip
    small = frames[3:].reshape(3, 12, 2, 16, 2, 3).mean((2, 4)).round().astype(np.uint8)
    expected = np.stack([
        cv2.resize(pixels, (32, 24), interpolation=cv2.INTER_CUBIC) for pixels in half.push(small)
    ])  # fmt: skip
    assert np.abs(shown.astype(int) - expected).mean() < 1
    assert session.report.frames_out == 6


def test_after_shrunk_blocks_the_student_begins_anew():
    degradation = Degradation(operator=GaussianBlur(1.0), noise_std=0.02)
    frames = np.stack([picture(t, 32, 24) for t in range(9)])
    session, fresh = (
        Session(Amortised(small_student()), degradation, height=24, width=32) for _ in range(2)
    )
    session.push(frames[:3])
    session.is_shrunk = True
    session.push(frames[3:6])
    session.is_shrunk = False
    np.testing.assert_array_equal(session.push(frames[6:]), fresh.push(frames[6:]))


@pytest.mark.parametrize(
    ("operator", "height", "expected"),
    [(GaussianBlur(1.0), 24, True), (Identity(), 24, True), (GaussianBlur(1.0), 25, False),
     (Mask(torch.ones(1, 1, 24, 32)), 24, False), (TemporalBlur.uniform(3), 24, False)],
)  # fmt: skip
def test_a_session_knows_whether_it_can_shrink(operator, height, expected):
    degradation = Degradation(operator=operator, noise_std=0.02)
    session = Session(Amortised(small_student()), degradation, height=height, width=32)
    assert session.can_shrink is expected


def test_a_virtual_camera_without_its_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyvirtualcam", None)
    with pytest.raises(VideoWriteError, match="pyvirtualcam") as caught:
        VirtualCamera(None, height=24, width=32, fps=25)
    assert "instantvir[live]" in caught.value.hint


def test_the_student_of_these_tests_does_something():
    degradation = Degradation(operator=GaussianBlur(1.5), noise_std=0.02)
    frames = np.stack([picture(t, 32, 24) for t in range(3)])
    with_student, without = (
        Session(Amortised(small_student()), degradation, height=24, width=32) for _ in range(2)
    )
    without.is_student_skipped = True
    assert not np.array_equal(with_student.push(frames), without.push(frames))
