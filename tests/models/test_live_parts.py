"""The small parts of a live stream, each on its own."""

import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from instantvir_models.errors import UsageError, VideoWriteError
from instantvir_models.live import metrics
from instantvir_models.live.controls import Controls
from instantvir_models.live.fit import blended, fitted
from instantvir_models.live.guarded_http import is_loopback
from instantvir_models.live.output import Restored
from instantvir_models.live.overload import LoadGauge
from instantvir_models.live.preview import LatestPair, PreviewServer
from instantvir_models.live.status import Counters, LiveStatus, OutputStatus, Percentiles
from instantvir_models.live.virtual_camera import VirtualCamera
from instantvir_models.live.watchdog import Watchdog
from instantvir_models.media import Frame, to_unit
from instantvir_models.operators.blur import GaussianBlur, TemporalBlur
from instantvir_models.operators.compose import Identity
from instantvir_models.operators.consistency import relative_residual
from instantvir_models.operators.mask import Mask
from instantvir_models.operators.measurement import Degradation, Measurement
from instantvir_models.run.session import Session
from instantvir_models.run.stages import Link, Stopped
from instantvir_models.solvers.amortised import Amortised
from instantvir_models.tasks import Task, TaskOptions, needs_sample, resolve
from tests.live_tools import Sink, output_to, small_student
from tests.media_clips import picture

STATUS = LiveStatus(
    seconds=12.5, frames_in=100, frames_out=80, frames_dropped=15,
    frames_abandoned=1, frames_passed=6,
    frames_degraded=3, fps_in=25.0, fps_out=20.0, queue_depth=4, queue_size=9,
    block_seconds=Percentiles(0.1, 0.2, 0.3), delay=Percentiles(0.4, 0.5, 0.6),
    delay_bound_seconds=1.5, first_frame_seconds=0.7, reconnects=2, input_stalls=1,
    size_changes=0, resident_bytes=2**28,
    outputs=(
        OutputStatus(
            name="-", state="open", frames_offered=80, frames_written=70, frames_dropped=8,
            frames_waiting=2, reconnects=1, delay=Percentiles(0.4, 0.5, 0.6),
        ),
    ),
)  # fmt: skip


def frame(number=0, width=32, height=24):
    return Frame(picture(number, width, height), number, Fraction(1, 25), 1)


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
    said, stuck = [], []
    watchdog = Watchdog(0.02, said.append, stuck.append)
    first, second = watchdog.add("input"), watchdog.add("output x")
    with first.busy("waiting for a frame"):
        time.sleep(0.05)
        watchdog.check()
        watchdog.check()
    watchdog.check()
    with second.busy("writing"):
        watchdog.check()
    assert said == ["input is stuck: waiting for a frame for 0 s", "input goes on"]
    assert stuck == ["input"]


def test_an_idle_stage_is_not_stuck():
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


class Looked(Exception):
    """The sample was looked at."""


@pytest.mark.parametrize(
    "tasks",
    [(Task.DENOISE,), (Task.DEBLUR,), (Task.SR,), (Task.DEBLUR, Task.SR), (Task.INPAINT,),
     (Task.INPAINT, Task.DEBLUR)],
)  # fmt: skip
@pytest.mark.parametrize("noise", [None, 5.0])
@pytest.mark.parametrize("sigma", [None, 2.0])
@pytest.mark.parametrize("has_mask", [False, True])
def test_a_live_stream_waits_for_a_sample_only_if_it_is_looked_at(
    monkeypatch, tmp_path, tasks, noise, sigma, has_mask
):
    if (sigma is not None and Task.DEBLUR not in tasks) or (has_mask and Task.INPAINT not in tasks):
        return  # refused: the option would do nothing
    for name in ("noise_std", "codec_noise_std", "blur_sigma", "mask"):
        monkeypatch.setattr(f"instantvir_models.tasks.estimate_{name}", looked)
    mask = tmp_path / "mask.png"
    cv2.imwrite(str(mask), np.full((24, 32), 255, np.uint8))
    options = TaskOptions(noise_levels=noise, blur_sigma=sigma, mask=mask if has_mask else None)
    was_looked_at = False
    try:
        resolve(tasks, options, sample=np.empty(0, np.uint8), is_lossy=True)
    except Looked:
        was_looked_at = True
    assert was_looked_at == needs_sample(tasks, options)


def looked(*args):
    raise Looked


def test_metrics_are_served_as_prometheus_reads_them():
    pytest.importorskip("prometheus_client")
    server = metrics.MetricsServer(lambda: STATUS, host="127.0.0.1", port=0, token=None)
    server.start()
    try:
        lines = ask(server, "/metrics")[2].decode().splitlines()
    finally:
        server.stop()
    assert "instantvir_frames_in_total 100.0" in lines
    assert "instantvir_frames_dropped_total 15.0" in lines
    assert "instantvir_frames_abandoned_total 1.0" in lines
    assert 'instantvir_delay_seconds{quantile="0.95"} 0.5' in lines
    assert 'instantvir_output_frames_dropped_total{output="-"} 8.0' in lines


def test_metrics_without_their_package_say_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "prometheus_client", None)
    with pytest.raises(UsageError, match="prometheus-client") as caught:
        metrics.MetricsServer(lambda: STATUS, host="127.0.0.1", port=1, token=None)
    assert caught.value.hint == "pip install 'instantvir[live]'"


def test_a_virtual_camera_without_its_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyvirtualcam", None)
    with pytest.raises(VideoWriteError, match="pyvirtualcam") as caught:
        VirtualCamera(None, height=24, width=32, fps=25)
    assert "instantvir[live]" in caught.value.hint


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False),
     ("192.168.1.2", False), ("evil.example", False), ("", False)],
)  # fmt: skip
def test_only_this_machine_is_loopback(host, expected):
    assert is_loopback(host) is expected


@pytest.fixture
def page():
    pairs, controls = LatestPair(), Controls()
    server = PreviewServer(
        host="127.0.0.1", port=0, pairs=pairs, controls=controls, status=lambda: STATUS
    )
    server.start()
    yield server
    server.stop()


def ask(server, path, *, body=None, headers=None):
    """(HTTP status, headers, body) of a request."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", **(headers or {})},
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def test_a_viewer_gets_the_latest_pair_side_by_side(page):
    page.pairs.put(frame(0), frame(1, 64, 48))
    page.pairs.put(frame(2), frame(3, 64, 48))
    code, headers, body = ask(page, "/pair.jpg")
    assert (code, headers["X-Number"]) == (200, "2")
    shown = cv2.cvtColor(cv2.imdecode(np.frombuffer(body, np.uint8), 1), cv2.COLOR_BGR2RGB)
    assert shown.shape == (48, 128, 3)
    assert np.abs(shown[:, 64:].astype(int) - picture(3, 64, 48)).mean() < 6
    assert np.abs(shown[:, :64].astype(int) - cv2.resize(picture(2, 32, 24), (64, 48))).mean() < 8


def test_two_viewers_share_one_encoding(page):
    page.pairs.put(frame(), frame())
    bodies = []
    threads = [
        threading.Thread(target=lambda: bodies.append(ask(page, "/pair.jpg")[2])) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bodies[0] == bodies[1]
    first = page.pairs.jpeg_after(0)
    assert page.pairs.jpeg_after(0)[1] is first[1]


def test_a_viewer_that_does_not_read_costs_the_stream_nothing(page):
    """Thousands of pairs pass while a viewer holds its connection without reading."""
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    large = replace(frame(), pixels=noise)
    with socket.create_connection(("127.0.0.1", page.port)) as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        page.pairs.put(large, large)
        for _ in range(20):
            silent.sendall(b"GET /pair.jpg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        for number in range(5000):
            page.pairs.put(frame(number), frame(number))
        code, headers, _ = ask(page, "/pair.jpg")
        assert (code, headers["X-Number"]) == (200, "5001")


def test_controls_are_changed_and_told(page):
    code, _, body = ask(page, "/controls", body={"strength": 0.25, "is_on": False})
    assert code == 200
    assert json.loads(body)["controls"] == {
        "is_on": False, "strength": 0.25, "prompt": None, "reads_text": False,
    }  # fmt: skip
    assert page.controls.settings.strength == 0.25
    ask(page, "/controls", body={"snapshot": True})
    assert page.controls.take_snapshot_wish()


@pytest.mark.parametrize(
    "body", [{"strength": 2}, {"strength": "much"}, {"is_on": 1}, {"colour": "red"}, [1], {"strength": True}]
)  # fmt: skip
def test_wishes_that_make_no_sense_are_refused(page, body):
    code, _, answer = ask(page, "/controls", body=body)
    assert code == 400
    assert "error" in json.loads(answer)
    assert page.controls.settings == Controls().settings


def test_a_form_of_another_site_changes_nothing(page):
    code, _, _ = ask(
        page, "/controls", body={"is_on": False}, headers={"Content-Type": "text/plain"}
    )
    assert code == 415
    assert page.controls.settings.is_on


def test_a_second_request_cannot_hide_in_a_refused_body(page):
    """A text/plain form of any site may carry one; read as a request it would change controls."""
    wishes = b'{"is_on": false}'
    hidden = (
        b"POST /controls HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(wishes), wishes)
    )
    for path, kind in ((b"/controls", b"text/plain"), (b"/nowhere", b"application/json")):
        with socket.create_connection(("127.0.0.1", page.port)) as client:
            client.sendall(
                b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %s\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (path, kind, len(hidden), hidden)
            )
            client.shutdown(socket.SHUT_WR)
            answers = b""
            with contextlib.suppress(ConnectionResetError):
                while data := client.recv(4096):
                    answers += data
        assert answers.count(b"HTTP/1.1") <= 1
        assert page.controls.settings.is_on


@pytest.mark.parametrize(
    ("headers", "code"),
    [({"Origin": "http://evil.example"}, 403), ({"Content-Length": "-1"}, 411)],
)
def test_requests_of_other_sites_and_without_end_are_refused(page, headers, code):
    assert ask(page, "/controls", body={"is_on": False}, headers=headers)[0] == code
    assert page.controls.settings.is_on


def test_the_page_itself_may_change_controls(page):
    origin = {"Origin": f"http://127.0.0.1:{page.port}"}
    assert ask(page, "/controls", body={"is_on": False}, headers=origin)[0] == 200


def test_a_name_that_points_here_is_not_this_machine(page):
    assert ask(page, "/status.json", headers={"Host": f"evil.example:{page.port}"})[0] == 403


def test_others_need_the_token():
    server = PreviewServer(
        host="0.0.0.0", port=0, pairs=LatestPair(), controls=Controls(), status=lambda: STATUS
    )
    server.start()
    try:
        assert len(server.token) >= 16
        assert server.token in server.url
        for path in ("/", "/status.json", "/pair.jpg", "/status.json?token=wrong"):
            assert ask(server, path)[0] == 403
        assert ask(server, "/controls", body={"is_on": False})[0] == 403
        assert ask(server, f"/status.json?token={server.token}")[0] == 200
    finally:
        server.stop()


def test_the_page_needs_nothing_from_elsewhere(page):
    code, headers, body = ask(page, "/")
    assert code == 200
    assert headers["Content-Type"].startswith("text/html")
    text = body.decode()
    assert "http://" not in text
    assert "https://" not in text
    assert ask(page, "/etc/passwd")[0] == 404


def test_the_student_of_these_tests_does_something():
    degradation = Degradation(operator=GaussianBlur(1.5), noise_std=0.02)
    frames = np.stack([picture(t, 32, 24) for t in range(3)])
    with_student, without = (
        Session(Amortised(small_student()), degradation, height=24, width=32) for _ in range(2)
    )
    without.is_student_skipped = True
    assert not np.array_equal(with_student.push(frames), without.push(frames))
