"""The simulation of a farm obeys what can be counted by hand."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.sizing import Farm, lengths, needed, rows, simulated

FARM = Farm(video_hours=20, worker_fps=25, days_between_failures=1e9, slow_share=0)


def test_one_worker_without_trouble_takes_as_long_as_the_videos():
    run = simulated(FARM, 1)
    assert run.days == pytest.approx(sum(lengths(FARM, 0)) / 86400)
    assert (run.busy, run.deaths, run.set_aside) == (pytest.approx(1), 0, 0)


def test_a_worker_at_half_speed_takes_twice_as_long():
    slow = replace(FARM, slow_share=1, slowness=2)
    assert simulated(slow, 1).days == pytest.approx(2 * simulated(FARM, 1).days)


def test_failures_and_stragglers_cost_machines():
    farm = Farm(video_hours=20, worker_fps=3.5)
    calm = replace(farm, days_between_failures=1e9, slow_share=0)
    assert farm.ideal_workers <= needed(calm) <= needed(farm)
    assert simulated(replace(farm, days_between_failures=0.5), 8).deaths > 0


def test_the_table_has_a_row_for_each_case():
    assert len(list(rows(Farm(video_hours=30, worker_fps=3.5)))) == 7
