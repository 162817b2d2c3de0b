"""A speed is told with all that it is worth nothing without, or not at all."""

import json
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from instantvir_models.errors import UsageError
from instantvir_models.report.page import html
from instantvir_models.run.pipeline import PipelineReport
from instantvir_models.run.session import Session, SessionReport
from instantvir_models.speed import correctness, meters
from instantvir_models.speed.baseline import compared, read_baseline
from instantvir_models.speed.correctness import Check, IncorrectError
from instantvir_models.speed.measure import Bench, Failed, Run, Speed, Spread
from instantvir_models.speed.meters import EnergyMeter, MemoryMeter
from instantvir_models.speed.page import speed_page
from instantvir_models.speed.plan import SpeedPlan, parsed_list, parsed_numbers, swept

PLAN = SpeedPlan(size="32x24", frames=6, repeats=1, warmup=0, threads=1)


def told(notices):
    """Somebody who does not listen."""


def run_of(wall_seconds=2.0, **seconds):
    session = SessionReport(
        frames_in=4, frames_out=4, estimate_seconds=0.1, student_seconds=1.0, consistency_seconds=0.2,
        convert_seconds=0.1, block_seconds=(0.7, 0.7), frame_std=(0.1,) * 4, residual=0.1, frames_guarded=0,
        frames_replaced=0, guarded=(),
    )  # fmt: skip
    pipeline = PipelineReport(
        session=session, wall_seconds=1.8, first_frame_seconds=0.9, decode_seconds=0.5,
        encode_seconds=0.5, input_wait_seconds=0.2, output_wait_seconds=0.1,
    )  # fmt: skip
    parts = {"open_seconds": 0.1, "close_seconds": 0.1, "cpu_seconds": 2.0, "joules": None}
    return Run(wall_seconds=wall_seconds, pipeline=pipeline, **{**parts, **seconds})


def speed_of(plan, fps):
    spread = Spread(fps, fps, fps)
    return Speed(
        version="0", request=asdict(plan), model_sha256=None, dtype="float32", frames=6, fps=spread,
        first_frame_seconds=spread, stage_ms_per_frame={"decode": spread, "encode": spread},
        timeline_ms_per_frame={"student": spread}, unexplained=spread, block_ms_in_order=(1.0, 2.0),
        block_ms={"p50": 1.0, "p95": 2.0, "p99": 2.0}, cpu_seconds_per_frame=spread,
        joules_per_frame=None, load_seconds=0.1, peak_memory_mb=100.0, device="cpu",
        peak_device_memory_mb=None, load_average=(0.0, None), hardware=meters.hardware(),
        check=Check(frames=6, psnr_to_float32=100.0, least_psnr=60.0),
    )  # fmt: skip


def test_stages_and_waits_are_all_of_the_wall_time_but_what_is_said_to_be_left():
    run = run_of()
    assert sum(run.timeline_seconds.values()) == pytest.approx(1.9)
    assert run.unexplained == pytest.approx(0.05)
    assert run.fps == 2
    assert run.first_frame_seconds == pytest.approx(1.0)


def test_a_configuration_is_measured_with_its_check():
    with Bench(told) as bench:
        (speed,) = bench.all_of([PLAN])
    assert speed.frames == 6
    assert speed.check.psnr_to_float32 == 100
    assert speed.check.frames == 6
    assert set(speed.timeline_ms_per_frame) >= {"open", "wait for input", "student", "close"}
    assert len(speed.block_ms_in_order) == 2


def test_a_configuration_that_restores_something_else_gets_no_speed(monkeypatch):
    results = iter([np.zeros((6, 24, 32, 3), np.uint8), np.full((6, 24, 32, 3), 3, np.uint8)])
    monkeypatch.setattr(correctness, "_restored", lambda *_: next(results))
    with (
        Bench(told) as bench,
        pytest.raises(IncorrectError, match=r"is 38.6 dB from the same in float32, and 60 dB"),
    ):
        bench.measured(replace(PLAN, dtype="float32"))


def test_a_configuration_that_loses_frames_gets_no_speed(monkeypatch):
    monkeypatch.setattr(Session, "flush", lambda self: np.empty((0, 24, 32, 3), np.uint8))
    with Bench(told) as bench, pytest.raises(IncorrectError, match=r"should have come out"):
        bench.measured(replace(PLAN, frames=4))


def test_one_that_fails_in_a_sweep_is_told_and_the_others_go_on():
    with Bench(told) as bench:
        bad, good = bench.all_of([replace(PLAN, latency=9), replace(PLAN, latency=1)])
    assert isinstance(bad, Failed)
    assert "blocks of 9 frames do not suit" in bad.failure
    assert isinstance(good, Speed)
    page = speed_page([bad, good], "instantvir benchmark")
    assert "latency 9: blocks of 9" in page.warnings[0]
    assert "latency 1" in html(page)


def test_what_a_speed_needs_no_weights_for_says_why_it_was_not_compared():
    with Bench(told) as bench:
        speed = bench.measured(replace(PLAN, solver="wiener"))
    assert speed.check.psnr_to_float32 is None
    assert "computes in one type" in speed.check.unchecked


def test_a_sweep_has_every_combination_and_opens_a_model_as_seldom_as_it_can():
    plans = swept(
        PLAN, sizes=("8x8", "16x8"), dtypes=("float32", "bfloat16"), devices=("cpu",),
        latencies=(1, 2), windows=(None,), threads=(None,),
    )  # fmt: skip
    assert len(set(plans)) == 8
    assert [plan.dtype for plan in plans] == ["float32"] * 4 + ["bfloat16"] * 4
    assert plans[0].differences(plans) == {"size": "8x8", "dtype": "float32", "latency": "1"}


@pytest.mark.parametrize("text", ["", "a,,b", "a,a"])
def test_a_list_with_nothing_or_the_same_in_it_is_refused(text):
    with pytest.raises(UsageError, match="`--size` is"):
        parsed_list(text, "--size")


@pytest.mark.parametrize("text", ["0", "1,-2", "two"])
def test_a_list_of_what_is_no_number_is_refused(text):
    with pytest.raises(UsageError, match="whole number above 0"):
        parsed_numbers(text, "--threads")


def test_a_window_is_for_students_that_have_one():
    with Bench(told) as bench, pytest.raises(UsageError, match="`--window` has no effect"):
        bench.measured(replace(PLAN, window=9))


def stored(tmp_path, value):
    path = tmp_path / "before.json"
    path.write_text(json.dumps(value))
    return path


def test_a_speed_is_compared_with_that_of_the_same_configuration(tmp_path):
    other = replace(PLAN, size="64x48")
    before = [asdict(speed_of(PLAN, 10.0)), asdict(speed_of(other, 1.0))]
    (ratio,) = compared([speed_of(PLAN, 8.0)], read_baseline(stored(tmp_path, before)))
    assert ratio.ratio == pytest.approx(0.8)
    assert not ratio.is_other_machine


def test_a_baseline_of_an_older_version_has_fewer_settings(tmp_path):
    before = asdict(speed_of(PLAN, 10.0))
    del before["request"]["window"]
    before["hardware"]["cpu"] = "another"
    (ratio,) = compared([speed_of(PLAN, 10.0)], read_baseline(stored(tmp_path, before)))
    assert ratio.is_other_machine


def test_a_baseline_that_is_none_or_of_something_else_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no speed"):
        read_baseline(stored(tmp_path, {"rows": []}))
    with pytest.raises(UsageError, match="cannot read the baseline"):
        read_baseline(tmp_path / "nowhere.json")
    before = [asdict(speed_of(PLAN, 10.0))]
    with pytest.raises(UsageError, match="holds no configuration"):
        compared([speed_of(replace(PLAN, task="sr"), 1.0)], before)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the mark is that of the process")
def test_memory_that_was_let_go_before_does_not_count():
    cpu = torch.device("cpu")
    first = MemoryMeter(cpu)
    held = np.ones(40 * 2**20)
    high = first.peak_mb
    del held
    assert MemoryMeter(cpu).peak_mb < high - 200


class FakeNvml(SimpleNamespace):
    """A card that has used 5 J more whenever it is asked."""

    NVMLError = ValueError

    def __init__(self):
        super().__init__(asked=[], millijoules=0)

    def nvmlInit(self):
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid):
        self.asked.append(uuid)
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        self.millijoules += 5000
        return self.millijoules


def test_energy_is_that_of_the_card_that_computes(monkeypatch):
    nvml = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    card = SimpleNamespace(uuid="1234")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    assert EnergyMeter(torch.device("cuda")).joules == 5
    assert nvml.asked == ["GPU-1234"]
    assert EnergyMeter(torch.device("cpu")).joules is None


def test_a_card_that_does_not_say_costs_nothing(monkeypatch):
    nvml = FakeNvml()

    def fail(handle):
        raise ValueError("not supported")

    nvml.nvmlDeviceGetTotalEnergyConsumption = fail
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="1"))
    assert EnergyMeter(torch.device("cuda")).joules is None
    monkeypatch.setitem(sys.modules, "pynvml", None)  # importing it fails
    assert EnergyMeter(torch.device("cuda")).joules is None
