"""`instantvir distill` as a person meets it."""

import json
import shutil
import signal
import time

import pytest
import torch
from torch.distributed.elastic.multiprocessing import SignalException
from typer.testing import CliRunner

from instantvir_cli import training_board, training_view
from instantvir_cli.app import app
from instantvir_cli.training_view import rows_of, shown
from instantvir_distill import launch
from instantvir_distill.recipes import RECIPES
from instantvir_distill.saved import alone, claim
from instantvir_models.checkpoints.config import WanCheckpoint
from instantvir_models.checkpoints.folder import save_folder
from instantvir_models.checkpoints.load import load_student, save_student
from instantvir_models.errors import CheckpointError
from tests.media_clips import make_clip
from tests.small_runs import SMALL, clip, trainer
from tests.wan_small import small_student

TINY_STEPS = (
    "--workers", "1", "--set", "phases.0.steps=1", "--set", "phases.0.crop=16",
    "--set", "phases.0.samples=1", "--set", "phases.0.frames=3",
)  # fmt: skip


def run(*args):
    return CliRunner().invoke(app, ["distill", *map(str, args)])


@pytest.fixture
def bad(tmp_path):
    """A folder of measured videos, one of them no video at all."""
    folder = tmp_path / "bad"
    (folder / "inner").mkdir(parents=True)
    make_clip(folder / "inner" / "noisy.mkv", width=48, height=48, num_frames=6)
    (folder / "broken.mp4").write_bytes(b"not a video")
    return folder


def test_measured_videos_alone_adapt_the_embedded_student(bad, tmp_path, capfd):
    """In subfolders and any container; what cannot be read is left out, counted and named, once."""
    args = ("--measurements", bad, "--operator", "identity+noise:std=10", "-o", tmp_path / "run")
    done = run(*args, *TINY_STEPS)
    assert done.exit_code == 0, done.stderr
    assert "left out 1 of 2 clips: `broken.mp4`" in done.stderr
    assert "left out" not in capfd.readouterr().err  # of a worker
    assert load_student(str(tmp_path / "run" / "student.safetensors"))
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["method"]["name"] == "self_supervised"

    other = run(*args, *TINY_STEPS, "--set", "muon_lr=0.5")
    assert other.exit_code == 2
    assert "`muon_lr` was 0.001 and is 0.5" in other.stderr

    other = run(*args[:3], "identity+noise:std=20", *args[4:], *TINY_STEPS)
    assert other.exit_code == 2
    assert "`measured_by` was" in other.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "there is nothing to learn from"),
        (("--clips", "a", "--measurements", "b"), "give one of them"),
        (("--measurements", "b"), "it has to be said how they came about"),
        (("--clips", "a", "--operator", "identity"), "and there are none"),
        (("--measurements", "b", "--operator", "blurr"), "no operator called `blurr`"),
        (
            ("--measurements", "b", "--operator", "identity", "--recipe", "tiny-teacher"),
            "a teacher learns from clean videos",
        ),
        (("--clips", "a", "--recipe", "tiny-teachr"), "no recipe called `tiny-teachr`"),
        (("--clips", "a", "--recipe", ""), "no recipe called ``"),
        (("--clips", "a", "--set", "muon_rl=1"), "no setting `muon_rl`"),
        (
            ("--clips", "a", "--recipe", "refine", "--set", "student.fine_channels=8"),
            "`student.fine_channels` would have no effect",
        ),
        (("--clips", "a", "--set", "method=amortise"), "learns from a teacher, and none was named"),
    ],
)
def test_what_makes_no_sense_is_told_before_anything_starts(args, message, tmp_path):
    done = run(*args, "-o", tmp_path / "run")
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("material", "recipe"),
    [
        (("--clips", "a"), "refine"),
        (("--measurements", "a", "--operator", "identity+noise:std=20"), "adapt"),
    ],
)
def test_without_a_recipe_the_student_in_the_package_is_trained_on(tmp_path, material, recipe):
    (tmp_path / "a").mkdir()
    given = (material[0], tmp_path / "a", *material[2:], "-o", tmp_path / "run", "--plan")
    named = run(*given, "--recipe", recipe)
    assert named.exit_code == 0
    assert run(*given).stderr == named.stderr
    assert RECIPES[recipe]().initial_weights == "tiny"


@pytest.mark.parametrize(
    ("said", "workers"), [((), 4), (("--workers", "2"), 2), (("--set", "workers=8"), 8)]
)
def test_torchrun_says_how_many_workers_there_are(tmp_path, monkeypatch, said, workers):
    """It had to be said twice, and a machine that came or went ended the run."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")
    monkeypatch.setenv("WORLD_SIZE", "4")
    done = run("-o", tmp_path / "run", "--recipe", "tiny", *said, "--plan")
    assert done.exit_code == 0, done.stderr
    assert f"{workers} workers" in done.stderr


@pytest.mark.parametrize("recipe", ["tiny", "tiny-teacher", "enlarge"])
def test_a_plan_is_shown_and_nothing_starts(recipe, tmp_path):
    done = run("--clips", tmp_path, "-o", tmp_path / "run", "--recipe", recipe, "--plan")
    assert done.exit_code == 0, done.stderr
    assert "TFLOP a step" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_plan_needs_nothing_to_learn_from(tmp_path):
    done = run("-o", tmp_path / "run", "--recipe", "tiny", "--plan")
    assert done.exit_code == 0, done.stderr
    assert "TFLOP a step" in done.stderr
    assert run("-o", tmp_path / "run", "--recipe", "tiny").exit_code == 2


def test_the_view_of_a_run_shows_losses_and_nothing_else(tmp_path):
    log = tmp_path / "log.jsonl"
    assert rows_of(log) == []
    rows = [
        {"step": 50 * i, "rate": 1.0, "spikes": 0, "norm": 0.1, "denoise": 1 / i, "sr": 0.5}
        for i in (1, 2, 4)
    ]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 200, "cut')
    assert rows_of(log) == rows
    assert shown(rows, []) == "denoise 0.25 █▃▁  sr 0.5 ▁▁▁"
    rows[-1]["memory_mb"] = 1234
    beside = [
        {"psnr": {"noise 5": 30.0, "holes": 28.0}},
        {"psnr": {"noise 5": 31.0, "holes": 29.0}},
    ]
    whole = "denoise 0.25 █▃▁  sr 0.5 ▁▁▁  validation 30.00 dB ▁█  1,234 MB"
    assert shown(rows, beside) == whole


def test_how_long_a_long_run_takes_is_said_once_it_is_known(tmp_path, capsys, monkeypatch):
    """A recipe takes hours or days, and nothing said so."""
    monkeypatch.setattr(training_view, "LOOK_EVERY_SECONDS", 0.01)
    now = time.time() + 1
    rows = [
        {"step": 10, "time": now},
        {"step": 50, "time": now + 40},
        {"step": 60, "time": now + 50},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with training_view.watched(tmp_path, steps=86_460):
        time.sleep(0.2)
    told = capsys.readouterr().err
    assert told.count("about 24 h 0 min to go at 60 steps a minute") == 1
    with training_view.watched(tmp_path, steps=100):
        time.sleep(0.2)
    assert not capsys.readouterr().err


def test_of_a_run_that_is_ended_it_is_said_what_stays(tmp_path, monkeypatch):
    make_clip(tmp_path / "clips.mp4", width=48, height=48, num_frames=6)
    ended = SignalException("ended", signal.SIGTERM)

    def engine(config, worker):
        def ends(*args):
            raise ended

        return ends

    monkeypatch.setattr(launch, "elastic_launch", engine)
    args = ("--clips", tmp_path / "clips.mp4", "-o", tmp_path / "run", "--recipe", "refine")
    done = run(*args, *TINY_STEPS)
    assert done.exit_code == 143
    assert "ended by SIGTERM; the run had not come to its first checkpoint" in done.stderr
    (tmp_path / "run" / "checkpoints" / "step-00000001").mkdir(parents=True)
    done = run(*args, *TINY_STEPS)
    assert "1 of 1 steps are kept" in done.stderr


def test_a_folder_of_something_else_is_left_as_it_is(tmp_path):
    """The clips were decoded into it first."""
    make_clip(tmp_path / "clips.mp4", width=48, height=48, num_frames=6)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "student.safetensors").touch()
    done = run("--clips", tmp_path / "clips.mp4", "-o", tmp_path / "out", *TINY_STEPS)
    assert done.exit_code == 2
    assert "exists already, and no run made it" in done.stderr
    assert not (tmp_path / "out" / "clips").exists()


def test_a_second_run_in_a_folder_shows_nothing_of_the_first(tmp_path, monkeypatch):
    """Its board took the place of the numbers that the first one wrote."""
    monkeypatch.setattr(training_board, "check_installed", lambda: None)
    make_clip(tmp_path / "clips.mp4", width=48, height=48, num_frames=6)
    with alone(tmp_path / "run"):
        args = ("--clips", tmp_path / "clips.mp4", "-o", tmp_path / "run", "--tensorboard")
        done = run(*args, *TINY_STEPS)
    assert done.exit_code == 2
    assert "another run is at work" in done.stderr
    assert not (tmp_path / "run" / training_board.FOLDER).exists()


def export(*args):
    return CliRunner().invoke(app, ["export", *map(str, args)])


def test_what_a_run_made_is_exported_and_is_a_model(tmp_path):
    run_folder = tmp_path / "run"
    made = trainer(SMALL, [clip("a_1")], run_folder)
    claim(SMALL, run_folder)
    made.save()
    row = {"sha256": "0", "psnr": {"noise 10": 33.25}}
    (run_folder / "validation.jsonl").write_text(json.dumps(row) + "\n")
    made = export(run_folder, "-o", tmp_path / "out")
    assert made.exit_code == 0, made.output
    loaded = load_student(str(tmp_path / "out"))
    original = load_student(str(run_folder / "student.safetensors"))
    for name, weight in original.student.state_dict().items():
        assert torch.equal(loaded.student.state_dict()[name], weight)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| noise 10 | 33.25 |" in card
    assert "`regression`" in card
    told = CliRunner().invoke(app, ["info", str(tmp_path / "out"), "--json"])
    assert json.loads(told.stdout)["recipe"]["adam_lr"] == SMALL.adam_lr

    (tmp_path / "out" / "student.safetensors").write_bytes(b"something else")
    told = CliRunner().invoke(app, ["info", str(tmp_path / "out")])
    assert told.exit_code != 0


def test_the_folder_of_a_run_is_told_from_that_of_a_student(tmp_path):
    """Who gave it as a model was told to convert something."""
    claim(SMALL, tmp_path)
    (tmp_path / "student.safetensors").touch()
    with pytest.raises(CheckpointError) as refused:
        load_student(str(tmp_path))
    assert f"it is `{tmp_path / 'student.safetensors'}`" in refused.value.hint


def test_a_full_size_student_is_exported_whole(tmp_path):
    """With what made it, and how good it was found to be."""
    save_folder(small_student(), tmp_path / "run" / "student", WanCheckpoint(task="denoise"))
    claim(RECIPES["wan-1.3b-lean"](), tmp_path / "run")
    row = json.dumps({"sha256": "0", "psnr": {"noise 10": 33.25}})
    (tmp_path / "run" / "validation.jsonl").write_text(row + "\n")
    assert export(tmp_path / "run", "-o", tmp_path / "out").exit_code == 0
    assert load_student(str(tmp_path / "out")).checkpoint.task == "denoise"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "* trained by: `variational`, all settings in recipe.json" in card
    assert "| noise 10 | 33.25 |" in card
    assert json.loads((tmp_path / "out" / "recipe.json").read_text())["teacher_guidance"] == 4.5
    shutil.rmtree(tmp_path / "run" / "student")
    save_folder(small_student(), tmp_path / "other", WanCheckpoint())
    assert export(tmp_path / "other", "-o", tmp_path / "out", "--overwrite").exit_code == 0
    assert not (tmp_path / "out" / "recipe.json").exists()


def test_what_is_exported_says_nothing_of_the_folders_of_this_machine(tmp_path):
    """The settings of a run named files by their paths, and were pushed with it."""
    made = trainer(SMALL, [clip("a_1")], tmp_path / "run")
    claim(SMALL, tmp_path / "run")
    made.save()
    written = tmp_path / "run" / "config.json"
    files = {
        "teacher": f"{tmp_path}/secret/teacher.safetensors",
        "measured_by": f"psf:path={tmp_path}/secret/kernel.png",
    }
    written.write_text(json.dumps(json.loads(written.read_text()) | files))
    assert export(tmp_path / "run", "-o", tmp_path / "out").exit_code == 0
    for file in (tmp_path / "out").iterdir():
        assert b"secret" not in file.read_bytes()
    told = CliRunner().invoke(app, ["info", str(tmp_path / "out"), "--json"])
    recipe = json.loads(told.stdout)["recipe"]
    assert (recipe["teacher"], recipe["measured_by"]) == (
        "teacher.safetensors", "psf:path=kernel.png"
    )  # fmt: skip


def test_a_line_of_a_log_that_is_none_stops_nobody_who_watches(tmp_path):
    log = tmp_path / "validation.jsonl"
    log.write_text('{"psnr": {"noise 10": 33.0}}\nnotes {of mine}\n{"psnr": "good"}\n[1]\n{"ps')
    assert "validation 33.00 dB" in shown([{"step": 50, "denoise": 0.5}], rows_of(log))


def test_what_cannot_be_exported_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    made = export(tmp_path / "empty", "-o", tmp_path / "out")
    assert made.exit_code == 4
    assert "holds no student" in made.output
    made = export(tmp_path / "empty", "-o", tmp_path / "empty")
    assert made.exit_code == 2
    (tmp_path / "file").touch()
    made = export(tmp_path / "empty", "-o", tmp_path / "file")
    assert made.exit_code == 2
    assert "is a file" in made.output
    save_folder(small_student(), tmp_path / "whole", WanCheckpoint())
    made = export(tmp_path / "whole", "-o", tmp_path / "out", "--push", "not a name")
    assert made.exit_code == 4
    assert "no repository on the Hub" in made.output


def test_a_run_without_a_student_says_why_it_is_not_exported(tmp_path):
    """It was told to give the folder of a run."""
    claim(SMALL, tmp_path)
    (tmp_path / "lock").touch()
    made = export(tmp_path, "-o", tmp_path / "out")
    assert made.exit_code == 4
    assert "has made no student so far" in made.output
    (tmp_path / "teacher.safetensors").touch()
    assert "holds a teacher" in export(tmp_path, "-o", tmp_path / "out").output


@pytest.mark.parametrize("line", ['{"psnr": 3}', '{"psnr": {"a": "b"}}', '{"a": }', "[3]}"])
def test_a_validation_that_nothing_of_ours_wrote_is_told(line, tmp_path):
    """A half line at the end, which a validation that was ended leaves, is none; each was a traceback."""
    shipped = load_student()
    save_student(shipped.student, tmp_path / "student.safetensors", dtype=torch.float32)
    log = tmp_path / "validation.jsonl"
    log.write_text('{"psnr": {"noise 10": 33.25}}\n{"psnr": {"noi')
    assert export(tmp_path, "-o", tmp_path / "out").exit_code == 0
    assert "33.25" in (tmp_path / "out" / "README.md").read_text()
    log.unlink()
    assert "instantvir_distill.evaluate" in export(tmp_path, "-o", tmp_path / "bare").output
    log.write_text(line)
    made = export(tmp_path, "-o", tmp_path / "other")
    assert made.exit_code == 4
    assert "not as a run or its validation writes it" in made.output
    assert not (tmp_path / "other").exists()
