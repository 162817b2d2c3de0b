"""`distill --tensorboard`: every row of the log once, whatever the run did."""

import json
import sys

import pytest
from typer.testing import CliRunner

from instantvir_cli import training_board
from instantvir_cli.app import app
from instantvir_cli.training_board import boarded, scalars
from instantvir_distill.saved import last_step
from instantvir_models.errors import UsageError
from tests.media_clips import make_clip
from tests.small_runs import SMALL, clip, trainer


class Kept:
    """A board that keeps what it is given."""

    def __init__(self):
        self.given, self.is_closed, self.first_step = [], False, None

    def open(self, folder, first_step):
        folder.mkdir(parents=True, exist_ok=True)
        self.first_step = first_step
        return self

    def add_scalar(self, tag, value, step, *, walltime):
        self.given.append((tag, value, step, walltime))

    def close(self):
        self.is_closed = True


def row(step):
    return json.dumps({"step": step, "time": 7.0, "rate": 1.0, "spikes": 0, "denoise": 0.5}) + "\n"


def steps(board):
    return [step for tag, _, step, _ in board.given if tag == "loss/denoise"]


def test_losses_and_how_the_run_is_have_a_place_each():
    assert scalars(json.loads(row(50))) == {
        "run/rate": 1.0, "run/spikes": 0.0, "loss/denoise": 0.5
    }  # fmt: skip


def test_each_row_is_given_once_though_a_run_goes_back(tmp_path):
    board, log = Kept(), tmp_path / "log.jsonl"
    with boarded(tmp_path, last_step=0, open_board=board.open):
        log.write_text(row(50) + row(100))
        with boarded(tmp_path, last_step=50, open_board=Kept().open):
            log.write_text(row(50) + row(100) + row(150))  # a worker died and 100 came again
    assert steps(board) == [50, 100, 150]
    assert board.given[0][3] == 7.0
    assert board.is_closed


def test_a_run_that_goes_on_gives_what_comes_after_its_checkpoint(tmp_path):
    log, first, second = tmp_path / "log.jsonl", Kept(), Kept()
    log.write_text(row(50))
    with boarded(tmp_path, last_step=0, open_board=first.open):
        pass
    with boarded(tmp_path, last_step=50, open_board=second.open):
        log.write_text(row(50) + row(100))
    assert (steps(first), steps(second), second.first_step) == ([50], [100], 51)


def test_a_run_that_had_no_board_gives_all_rows(tmp_path):
    board = Kept()
    (tmp_path / "log.jsonl").write_text(row(50) + row(100))
    with boarded(tmp_path, last_step=100, open_board=board.open):
        pass
    assert steps(board) == [50, 100]


def test_one_of_several_workers_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with boarded(tmp_path, last_step=0, open_board=lambda *_: pytest.fail("a second board")):
        pass


def test_the_last_step_is_that_of_the_checkpoint(tmp_path):
    assert last_step(tmp_path) == 0
    run = trainer(SMALL, [clip("a_1")], tmp_path)
    run.update()
    run.save()
    assert last_step(tmp_path) == 1


def test_without_the_package_the_command_says_which(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    (tmp_path / "clips").mkdir()
    make_clip(tmp_path / "clips" / "a.mp4", width=64, height=64)
    args = ["distill", "--clips", tmp_path / "clips", "-o", tmp_path / "run", "--tensorboard"]
    done = CliRunner().invoke(app, list(map(str, args)))
    assert done.exit_code == 2
    assert "`--tensorboard` needs a package" in done.stderr
    with pytest.raises(UsageError, match="not installed"):
        training_board.summary_writer(tmp_path, 1)


def test_tensorboard_reads_what_was_written(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (tmp_path / "log.jsonl").write_text(row(50) + row(100))
    with boarded(tmp_path, last_step=0):
        pass
    read = events.EventAccumulator(str(tmp_path / training_board.FOLDER))
    read.Reload()
    assert [(e.step, e.value) for e in read.Scalars("loss/denoise")] == [(50, 0.5), (100, 0.5)]
