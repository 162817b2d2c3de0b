"""What a card will be asked is asked of the CPU first, in small; one step's failure is not the others'."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks import card, card_steps
from benchmarks.card import Result, kept, run_all, table
from benchmarks.card_steps import STEPS, Row, Step, place_of

STAND_IN = place_of(stand_in=True)


ELSEWHERE = ("tests", "kernels", "distillation", "students-lean")
"""Steps that have a test of their own, or are tests."""


@pytest.mark.parametrize(
    "step", [s for s in STEPS if s.name not in ELSEWHERE], ids=lambda step: step.name
)
def test_every_step_runs_on_the_stand_in(step):
    rows = list(step.run(STAND_IN))
    assert rows
    assert not [
        row for row in rows if "Error" in row.measured and "RuntimeError" not in row.measured
    ]


def test_students_are_measured_with_graphs_off_and_on_beside_plan_and_prediction():
    rows = {row.what: row for row in card_steps.student_rows("lean")(STAND_IN)}
    for past in STAND_IN.past_blocks:
        for graphs in ("off", "on"):
            name = f"lean, {past} past blocks, graphs {graphs}"
            # that of the size the card runs, also where the stand-in runs a small one
            assert "FPS at its peak" in rows[f"{name}: FPS"].predicted
            assert "832x480, networks alone" in rows[f"{name}: FPS"].predicted
            assert "GB planned" in rows[f"{name}: most memory"].predicted
            assert "student" in rows[f"{name}: ms a frame by stage"].measured
    assert "362 at 60 % of it" in rows["lean, 0 past blocks, graphs off: FPS"].predicted  # an H200


def test_the_loss_of_distillation_falls():
    """It was 0.5 at each step: that of every gradient that is normalised."""
    rows = {row.what.split(": ")[1]: row.measured for row in card_steps.distillation_rows(STAND_IN)}
    losses = [float(loss) for loss in rows["losses"].split(", ")]
    assert losses[0] > losses[1] > losses[2]


def test_what_a_row_of_kernels_names_is_what_ran():
    """On a CPU keys in 8 bits are attended to by the reference; the row said Triton."""
    rows = {row.what: row.measured for row in card_steps.kernel_rows(STAND_IN)}
    assert not [what for what, measured in rows.items() if "triton" in what and " ms" in measured]
    assert " ms" in rows["attention, 1 past blocks, reference, int8 keys, float32"]


def step(name, rows=("x",), error=None):
    return Step(name, "about it", lambda place: None, 60)


class Runs:
    """Runs steps by name: fine, failed, or broken off as by Ctrl-C."""

    def __init__(self, bad=()):
        self.bad, self.ran = bad, []

    def __call__(self, step, *, stand_in, seconds):
        self.ran.append(step.name)
        if step.name in self.bad:
            return Result(step=step.name, status="failed", seconds=1, problem="CUDA error")
        return Result(
            step=step.name, status="ok", seconds=1, rows=(Row("speed", "1 FPS", "2 FPS"),)
        )


ABC = [step("a"), step("b"), step("c")]


def test_a_step_that_fails_does_not_stop_the_others_and_is_tried_again(tmp_path):
    first, second = Runs(bad=("b",)), Runs()
    results = run_all(ABC, tmp_path, stand_in=True, minutes=1, runs=first)
    assert [result.status for result in results] == ["ok", "failed", "ok"]
    assert "| b | failed | CUDA error | |" in (tmp_path / "card.md").read_text(encoding="utf-8")
    run_all(ABC, tmp_path, stand_in=True, minutes=1, runs=second)
    assert second.ran == ["b"]


def test_what_time_does_not_suffice_for_waits_for_the_next_call(tmp_path):
    results = run_all(ABC, tmp_path, stand_in=True, minutes=0, runs=Runs())
    assert {result.status for result in results} == {"left for the next call"}
    assert kept(tmp_path, ABC[0]) is None


def test_the_table_holds_measured_beside_predicted(tmp_path):
    result = Result(step="a", status="ok", seconds=1, rows=(Row("speed", "1 FPS", "2 FPS"),))
    assert "| a | speed | 1 FPS | 2 FPS |" in table([result])


def test_a_step_in_its_own_process_gives_its_rows():
    result = card.run_step(STEPS[0], stand_in=True, seconds=120)
    assert result.status == "ok", result.problem
    assert any(row.what == "torch" for row in result.rows)


def test_a_step_that_takes_too_long_is_ended():
    assert card.run_step(STEPS[0], stand_in=True, seconds=0.1).status == "too slow"


def test_without_a_card_the_script_says_what_runs_without_one(monkeypatch):
    monkeypatch.setattr(card_steps.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="--stand-in"):
        place_of(stand_in=False)
