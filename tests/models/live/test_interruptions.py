"""Time and sound of a source that was lost and came back."""

from fractions import Fraction

import pytest

from instantvir_models.live import interruptions
from instantvir_models.live.interruptions import ContinuedTime, RisingPackets
from instantvir_models.media import CompanionPacket
from tests.live_tools import frame


def test_time_goes_on_after_a_reconnection(monkeypatch):
    """A camera that comes back counts from 0 again; viewers see a gap as long as the outage."""
    now = 100.0
    monkeypatch.setattr(interruptions.time, "monotonic", lambda: now)
    line = ContinuedTime()
    line.connect(frame(0))
    before = [line.continued(frame(number)) for number in range(5)]
    now += 3.0
    line.connect(frame(0))
    after = [line.continued(frame(number)) for number in range(5)]
    assert [f.pts for f in before] == [0, 1, 2, 3, 4]
    assert after[0].pts_seconds - before[-1].pts_seconds == pytest.approx(3.04, abs=0.5 / 25)
    assert after[1].pts - after[0].pts == 1


@pytest.mark.parametrize(("first", "shift_seconds"), [(130, 0), (2000, 3.2 - 80), (3, 3.2 - 0.12)])
def test_time_that_went_on_meanwhile_is_kept(monkeypatch, first, shift_seconds):
    """Unless it is further on than the outage explains, or behind: then it is a new count."""
    now = 100.0
    monkeypatch.setattr(interruptions.time, "monotonic", lambda: now)
    line = ContinuedTime()
    for number in range(5):
        line.continued(frame(number))
    now += 3.0
    line.connect(frame(first))
    assert float(line.shift_seconds) == pytest.approx(shift_seconds)


def test_sound_whose_time_has_passed_is_left_out():
    """After a reconnection a container would refuse it, and the output with it."""
    packet = CompanionPacket(0, b"x", 10, 10, 1, Fraction(1, 10), True)
    later = packet.delayed(Fraction(1, 10))
    packets = RisingPackets()
    assert packets.later([packet, packet, later, packet]) == [packet, later]
    assert packets.later([later]) == []
