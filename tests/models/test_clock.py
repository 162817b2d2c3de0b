"""Time by step, on a device that works on while the program has long gone on."""

import numpy as np
import pytest
import torch

import instantvir_models.clock as clock_module
from instantvir_models.checkpoints.load import load_student
from instantvir_models.clock import Step, StepClock
from instantvir_models.operators.spec import parse_degradation
from instantvir_models.run.session import Session
from instantvir_models.solvers.amortised import Amortised
from tests.wan_small import small_student


class Card:
    """A device that takes its time: work is queued at once, and done when it is waited for."""

    def __init__(self, monkeypatch):
        self.queued_ms = 0.0
        self.done_ms = 0.0
        card = self

        class Event:
            def __init__(self, *, enable_timing):
                assert enable_timing
                self.at_ms = None

            def record(self):
                self.at_ms = card.queued_ms

            def elapsed_time(self, end):
                assert end.at_ms <= card.done_ms, "the device has not come this far"
                return end.at_ms - self.at_ms

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "synchronize", self.wait)

    def wait(self, *_):
        raise AssertionError("nobody asked to wait for the device")

    def work(self, milliseconds):
        self.queued_ms += milliseconds

    def finish(self):
        self.done_ms = self.queued_ms


def test_a_step_on_a_card_takes_what_the_card_took_and_nobody_waits_for_it(monkeypatch):
    """The host clock saw the milliseconds it took to ask, and gave the rest to whoever waited."""
    card, clock = Card(monkeypatch), StepClock(torch.device("cuda"))
    monkeypatch.setattr(clock_module.time, "perf_counter", lambda: 0.0)
    for _ in range(2):
        with clock.on_device(Step.ESTIMATE):
            card.work(5)
        card.work(100)  # between steps: in none
        with clock.on_device(Step.STUDENT):
            card.work(70)
        card.finish()
        clock.settle()
    assert clock.seconds(Step.ESTIMATE) == pytest.approx(0.010)
    assert clock.seconds(Step.STUDENT) == pytest.approx(0.140)


def test_a_step_on_the_cpu_is_timed_by_its_clock(monkeypatch):
    now = iter([10.0, 12.5])
    monkeypatch.setattr(clock_module.time, "perf_counter", lambda: next(now))
    clock = StepClock(torch.device("cpu"))
    with clock.on_device(Step.STUDENT):
        pass
    clock.settle()
    assert clock.seconds(Step.STUDENT) == 2.5


@pytest.mark.parametrize("make", [lambda: load_student().student, small_student])
def test_a_session_on_the_cpu_asks_no_card_for_anything(make, monkeypatch):
    def asked(*_, **__):
        raise AssertionError("a card was asked")

    for name in ("synchronize", "Event", "Stream", "current_stream", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, asked)
    session = Session(Amortised(make()), parse_degradation("blur:sigma=1"), height=16, width=16)
    session.push(np.zeros((9, 16, 16, 3), np.uint8))
    report = session.report
    assert report.frames_out == 9
    for seconds in (report.estimate_seconds, report.student_seconds, report.consistency_seconds):
        assert seconds > 0
    assert report.convert_seconds > 0


def test_a_session_reads_the_times_of_a_card_when_its_pixels_are_there(monkeypatch):
    card, student = Card(monkeypatch), small_student()
    restore_block, to_cpu = type(student).restore_block, torch.Tensor.cpu

    def slow(self, *args):
        card.work(70)
        return restore_block(self, *args)

    def waited(x):
        card.finish()
        return to_cpu(x)

    monkeypatch.setattr(type(student), "restore_block", slow)
    monkeypatch.setattr(torch.Tensor, "cpu", waited)
    session = Session(Amortised(student), parse_degradation("blur:sigma=1"), height=16, width=16)
    session._clock = StepClock(torch.device("cuda"))
    session.push(np.zeros((9, 16, 16, 3), np.uint8))
    assert session.report.student_seconds == pytest.approx(0.070)


def test_a_step_that_failed_is_not_timed(monkeypatch):
    card, clock = Card(monkeypatch), StepClock(torch.device("cuda"))
    with pytest.raises(ValueError, match="broken"), clock.on_device(Step.STUDENT):
        raise ValueError("broken")
    card.finish()
    clock.settle()
    assert clock.seconds(Step.STUDENT) == 0
