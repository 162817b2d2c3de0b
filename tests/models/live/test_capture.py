"""Frames between a source and restoration: each is taken, dropped or left, and counted."""

import threading
import time

import pytest

from instantvir_models.live.capture import Capture
from instantvir_models.live.status import Counters
from tests.live_tools import frame


class Source:
    """Frames without a video."""

    def __init__(self, frames, *, then=None):
        self._frames, self._then = frames, then
        self.is_closed = False
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __iter__(self):
        for number, item in enumerate(self._frames):
            if number == 1:
                self.may_go_on.wait(20)
            yield item
        if self._then is not None:
            raise self._then

    def close(self):
        self.is_closed = True


def captured(source, *, queue_size=4, may_wait=True):
    counters = Counters()
    capture = Capture(
        queue_size=queue_size, may_wait=may_wait, ending=threading.Event(), counters=counters
    )
    capture.start(source)
    return capture, counters


def taken(capture):
    return [item.index for item in iter(capture.take, None)]


def test_what_was_looked_at_still_comes():
    source = Source([frame(n) for n in range(6)])
    capture, _ = captured(source)
    assert capture.first().index == 0
    assert [f.pts for f in capture.sample(3)] == [0, 1, 2]
    assert taken(capture) == [0, 1, 2, 3, 4, 5]
    capture.close()
    assert source.is_closed


def test_a_sample_ends_with_its_kind():
    capture, _ = captured(Source([frame(0), frame(1), frame(2, width=64), frame(3)]))
    assert len(capture.sample(4)) == 2
    assert taken(capture) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("may_wait", "num_in", "num_dropped", "num_abandoned"), [(True, 4, 0, 1), (False, 9, 6, 0)]
)
def test_every_frame_is_dropped_left_or_abandoned(may_wait, num_in, num_dropped, num_abandoned):
    """One was looked at, two wait; the next one holds up the source or displaces the oldest."""
    source = Source([frame(n) for n in range(9)])
    source.may_go_on.clear()
    capture, counters = captured(source, queue_size=2, may_wait=may_wait)
    assert len(capture.sample(1)) == 1
    source.may_go_on.set()
    deadline = time.monotonic() + 20
    while counters.count("in") < num_in and time.monotonic() < deadline:
        time.sleep(0.01)
    capture.close()
    assert (capture.drain(), capture.drain()) == (3, 0)
    counts = [counters.count(name) for name in ("in", "dropped", "abandoned")]
    assert counts == [num_in, num_dropped, num_abandoned]


def test_a_source_that_fails_says_so_after_its_frames():
    failure = RuntimeError("a bug")
    capture, _ = captured(Source([frame(0)], then=failure))
    assert taken(capture) == [0]
    assert capture.failure is failure
