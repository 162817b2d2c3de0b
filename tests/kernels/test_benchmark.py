"""The benchmark of kernels checks before it times."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

PATH = Path(__file__).parents[2] / "benchmarks" / "kernels.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_of_kernels", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def lines_of(benchmark, run):
    """Results of one contender that should give ones, and whether it was timed."""
    timed = []

    def timer(run, repeats):
        timed.append(run)
        return [0.5] * repeats

    case = benchmark.Case(
        "case", torch.float32, 1e12, 1e9, lambda: torch.ones(3),
        (benchmark.Contender("me", run),),
    )  # fmt: skip
    (line,) = benchmark.measured(case, repeats=3, timer=timer)
    return line, bool(timed)


def test_a_right_contender_is_timed(benchmark):
    line, timed = lines_of(benchmark, lambda: [torch.ones(3)])
    assert timed
    assert line.is_correct
    assert (line.ms, line.tflops, line.gbytes_per_second) == (500.0, 2.0, 2.0)


@pytest.mark.parametrize("value", [1.01, float("nan")])
def test_a_wrong_contender_is_not_timed(benchmark, value):
    line, timed = lines_of(benchmark, lambda: [torch.full((3,), value)])
    assert not timed
    assert not line.is_correct
    assert "not timed" in line.problem


def test_a_contender_that_fails_is_named_with_its_error(benchmark):
    def fail():
        raise RuntimeError("no such card")

    line, timed = lines_of(benchmark, fail)
    assert (timed, line.is_correct, line.problem) == (False, False, "RuntimeError: no such card")


def test_a_backend_that_would_fall_back_is_not_timed_under_its_name(benchmark, monkeypatch):
    from instantvir_kernels.choice import Call, Kind

    call = Call(kind=Kind.ATTENTION, device="cpu", dtype=torch.float32, head_dim=24)
    contender = benchmark.through("triton", call, lambda: torch.ones(3))
    with pytest.raises(RuntimeError, match="triton cannot run it"):
        contender.run()


def test_every_case_of_a_cpu_is_right_here(benchmark, monkeypatch):
    """At a size that takes a moment; the exit status of the script would be 0."""
    cases = [
        *benchmark.step_cases(12, 64, 2, 96, "cpu", torch.float32),
        *benchmark.grid_cases(2, 3, 4, 8, "cpu", torch.float32),
    ]
    for case in cases:
        lines = list(benchmark.measured(case, repeats=1, timer=lambda run, repeats: [1.0]))
        assert len(lines) == 2
        assert all(line.is_correct for line in lines), lines
