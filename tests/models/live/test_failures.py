"""What a live output does when something fails that nobody expected."""

import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from instantvir_models.errors import VideoWriteError
from instantvir_models.live.backoff import Backoff
from instantvir_models.live.output import Restored
from instantvir_models.live.serve.preview import pair_jpeg
from instantvir_models.live.virtual_camera import VirtualCamera
from instantvir_models.outputs.names import scheme_of
from tests.live_tools import Sink, frame, output_to


def test_an_output_with_a_bug_says_so_at_once_and_counts_as_failed():
    events = []
    output = output_to(Sink(fails_at=1, error=KeyError("a bug")), "out.mkv", events=events)
    output.start()
    for number in range(2):
        output.offer(Restored(frame(number), time.monotonic()), may_wait=True)
    deadline = time.monotonic() + 20
    while output.is_alive and time.monotonic() < deadline:
        time.sleep(0.01)
    assert output.status.state == "failed"
    output.finish(grace_seconds=5, may_wait=lambda: False)
    assert events == ["out.mkv has ended: KeyError: 'a bug'"]
    assert isinstance(output.bug, KeyError), "to be raised when the stream has ended"
    assert output.status.state == "failed"


class FailingCamera:
    """As pyvirtualcam's, with a device that was pulled out."""

    def __init__(self, *args, **options) -> None:
        self.fails_with = RuntimeError("no such device")

    def send(self, pixels) -> None:
        raise self.fails_with

    def close(self) -> None:
        raise self.fails_with


@pytest.fixture
def camera(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyvirtualcam", SimpleNamespace(Camera=FailingCamera))
    return VirtualCamera(None, height=24, width=32, fps=25)


@pytest.mark.parametrize("error", [RuntimeError("gone"), OSError("gone"), ValueError("gone")])
def test_a_virtual_camera_that_fails_is_a_sentence(camera, error):
    camera._camera.fails_with = error
    for call in (lambda: camera.write(frame()), camera.close, camera.abort):
        with pytest.raises(VideoWriteError, match="the virtual camera has failed: gone"):
            call()


@pytest.mark.parametrize("error", [RuntimeError, OSError, ValueError])
def test_a_virtual_camera_that_cannot_be_opened_is_a_sentence(monkeypatch, error):
    def refuse(*args, **options):
        raise error("busy")

    monkeypatch.setitem(sys.modules, "pyvirtualcam", SimpleNamespace(Camera=refuse))
    with pytest.raises(VideoWriteError, match="no virtual camera can be opened: busy"):
        VirtualCamera("/dev/video9", height=24, width=32, fps=25)


def test_a_virtual_camera_that_fails_ends_its_output_only(camera):
    events = []
    output = output_to(camera, "camera:", events=events)
    output.start()
    output.offer(Restored(frame(), time.monotonic()), may_wait=True)
    output.finish(grace_seconds=5, may_wait=lambda: False)
    assert output.bug is None
    assert isinstance(output.failure, VideoWriteError)
    assert events == ["camera: has ended: the virtual camera has failed: no such device"]


def test_sixteen_bits_are_shown_as_they_are_written(monkeypatch):
    """Page, camera and file agree on the eight bits of a deep frame: rounded, not cut."""
    sent = []
    fake = SimpleNamespace(send=lambda pixels: sent.append(pixels.copy()), close=lambda: None)
    monkeypatch.setitem(
        sys.modules, "pyvirtualcam", SimpleNamespace(Camera=lambda *args, **options: fake)
    )
    deep = np.full((24, 32, 3), 255, np.uint16)  # 0.99 of a step of eight bits
    VirtualCamera(None, height=24, width=32, fps=25).write(replace(frame(), pixels=deep))
    assert (sent[0] == 1).all()
    shown = cv2.imdecode(
        np.frombuffer(pair_jpeg(*2 * [replace(frame(), pixels=deep)]), np.uint8), 1
    )
    assert (shown == 1).all()


class Clock:
    """Time that passes only when somebody sleeps, or when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("paused_seconds", "jump_frames"),
    [(0, 0), (60, 0), (60, 1500), (0, 90_000), (0, -3000)],
    ids=["no pause", "we were slow", "the source paused", "new count ahead", "new count behind"],
)
def test_after_a_pause_a_virtual_camera_shows_frames_at_their_rate_again(
    monkeypatch, paused_seconds, jump_frames
):
    """It rushed for as long as it had lagged, or slept a second before each frame for ever."""
    clock, shown_at = Clock(), []
    fake = SimpleNamespace(send=lambda pixels: shown_at.append(clock.now), close=lambda: None)
    monkeypatch.setitem(
        sys.modules, "pyvirtualcam", SimpleNamespace(Camera=lambda *args, **options: fake)
    )
    monkeypatch.setattr("instantvir_models.live.virtual_camera.time", clock)
    camera = VirtualCamera(None, height=24, width=32, fps=25)
    for number in range(4):
        camera.write(frame(number))
    clock.now += paused_seconds
    for number in range(4, 8):
        camera.write(frame(number + jump_frames))
    gaps = np.diff(shown_at)
    assert gaps[:3] == pytest.approx(0.04)
    assert gaps[4:] == pytest.approx(0.04)
    assert paused_seconds <= gaps[3] <= paused_seconds + 0.041


def test_pauses_between_attempts_grow_and_begin_again_after_a_success():
    backoff = Backoff()
    pauses = [backoff.next_seconds() for _ in range(8)]
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30]
    backoff.reset()
    assert backoff.next_seconds() == 0.5


@pytest.mark.parametrize(
    ("text", "scheme"),
    [("rtsp://camera/1", "rtsp"), ("RTMPS://x", "rtmps"), ("file:x.mp4", "file"), ("x.mp4", None),
     ("C:\\x.mp4", None), ("./a:b", None), ("-", None), ("", None)],
)  # fmt: skip
def test_an_address_is_told_from_a_path(text, scheme):
    assert scheme_of(text) == scheme
