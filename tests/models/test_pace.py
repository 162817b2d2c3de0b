"""How long the rest will take, from the pace so far."""

import pytest

from instantvir_models.run.pace import Pace


def run(pace, blocks, *, block=3, seconds_each=1.0, start=20.0, first=0):
    """`blocks` blocks of frames that come at once, the first after `start` seconds of warm-up."""
    for index in range(blocks):
        for frame in range(block):
            moment = start + index * seconds_each + frame * 1e-4
            pace.note(first + index * block + frame + 1, moment)


@pytest.mark.parametrize(("block", "seconds_each"), [(3, 1.0), (1, 0.4), (21, 30.0)])
def test_the_pace_is_that_of_blocks_without_the_warm_up(block, seconds_each):
    pace = Pace(frames_per_block=block)
    run(pace, 12, block=block, seconds_each=seconds_each)
    assert pace.fps == pytest.approx(block / seconds_each, rel=0.01)
    assert pace.seconds_left(1000) == pytest.approx((1000 - 12 * block) / pace.fps)


def test_nothing_is_said_before_enough_was_measured():
    pace = Pace(frames_per_block=3)
    run(pace, 4)
    assert pace.fps is None
    quick = Pace(frames_per_block=3)
    run(quick, 12, seconds_each=0.01)
    assert quick.fps is None


def test_it_follows_what_the_last_minute_was():
    pace = Pace(frames_per_block=3)
    run(pace, 50, seconds_each=1.0)
    run(pace, 100, seconds_each=2.0, start=70.0, first=150)
    assert pace.fps == pytest.approx(1.5, rel=0.05)
    assert pace.seconds_left(None) is None


def test_memory_stays_small():
    pace = Pace(frames_per_block=3)
    run(pace, 5000, seconds_each=0.05)
    assert len(pace._beginnings) < 300
