"""A stream of any length becomes one page."""

from dataclasses import replace
from itertools import pairwise

from instantvir_models.live.page import MOST_EVENTS, MOST_STATUSES, History, stream_page
from instantvir_models.live.status import LiveStatus, OutputStatus, Percentiles
from instantvir_models.report.page import html
from tests.models.test_report import content

STATUS = LiveStatus(
    seconds=1.0, frames_in=100, frames_out=90, frames_dropped=10, frames_abandoned=0, frames_passed=0,
    frames_degraded=0, frames_guarded=0, fps_in=25.0, fps_out=22.5, queue_depth=3, queue_size=9,
    block_seconds=Percentiles(0.1, 0.2, 0.3), delay=Percentiles(0.2, 0.3, 0.4),
    delay_bound_seconds=None, first_frame_seconds=0.5, reconnects=1, input_stalls=0, size_changes=0,
    resident_bytes=2**20, outputs=(
        OutputStatus(
            name="out.mkv", state="closed", frames_offered=90, frames_written=88, frames_dropped=2,
            frames_waiting=0, reconnects=0, delay=Percentiles(0.2, 0.3, 0.4),
        ),
    ),
)  # fmt: skip


def test_a_long_stream_keeps_few_statuses_from_all_of_it():
    history = History()
    for second in range(10_000):
        history.add(replace(STATUS, seconds=float(second)))
        history.happened(f"{second}")
    seconds = [status.seconds for status in history.statuses]
    assert len(seconds) < MOST_STATUSES
    assert len(history.events) == MOST_EVENTS
    steps = {after - before for before, after in pairwise(seconds)}
    assert len(steps) == 1
    assert seconds[0] == 0
    assert seconds[-1] > 9_900


def test_the_page_says_delays_losses_and_what_happened():
    history = History()
    history.add(STATUS)
    history.happened("the source was lost")
    text = html(stream_page(STATUS, history, version="0", command="instantvir stream"))
    assert "200 ms" in text
    assert "the source was lost" in text
    lost = next(item for item in content(text)["items"] if "lost" in item["title"])
    assert [line["values"] for line in lost["lines"]] == [[3.0], [10.0], [2.0]]
