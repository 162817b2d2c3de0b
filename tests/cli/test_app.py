"""The frame of the command: help, versions, verbs, and what a start may cost."""

import json
import logging
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from instantvir_cli import __version__, console
from instantvir_cli.app import app
from instantvir_cli.exit_status import ExitStatus

VERBS = ["restore", "degrade", "benchmark", "distill", "stream", "control"]


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb):
    result = run(verb, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_no_verb_is_cut_short_in_the_list_of_them():
    listed = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).stdout
    assert "restore    Restore videos into files" in listed
    assert "..." not in listed.partition("Commands:")[2]


def test_the_version_is_that_of_the_package():
    assert run("--version").stdout.strip() == f"instantvir {__version__}"


def test_an_unknown_option_is_a_usage_error():
    assert run("restore", "--bogus").exit_code == ExitStatus.USAGE


def test_a_bug_is_not_swallowed(monkeypatch):
    def bug(_):
        raise RuntimeError("oops")

    monkeypatch.setattr("instantvir_cli.restore.restore_all", bug)
    assert isinstance(run("restore", "x.mp4").exception, RuntimeError)


@pytest.mark.parametrize(("given", "then"), [(None, "passive"), ("active", "active")])
def test_threads_sleep_while_they_wait_unless_somebody_says_otherwise(given, then):
    """On a busy machine a restoration took five times as long."""
    code = (
        "import os, sys\n"
        "from instantvir_cli import app\n"
        "app.occupy_closed = lambda: print('torch' in sys.modules)\n"
        "try:\n    app.app(['info', 'nothing-there'])\n"
        "except SystemExit:\n    print(os.environ['OMP_WAIT_POLICY'])\n"
    )
    env = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    env |= {} if given is None else {"OMP_WAIT_POLICY": given}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env
    )
    assert done.stdout.split() == ["False", then], done.stderr


@pytest.mark.parametrize("args", [["--help"], ["restore", "--help"], ["--version"]])
def test_help_does_not_import_the_heavy_packages(args):
    code = (
        f"import sys; sys.argv = ['instantvir', *{args!r}]\n"
        "from instantvir_cli.app import app\n"
        "try: app()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'av', 'cv2', 'numpy', 'triton', 'huggingface_hub', 'safetensors'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_benchmark_reports_the_whole_command():
    result = run(
        "benchmark", "--size", "64x48", "--frames", 6, "--repeats", 2, "--warmup", 0, "--json"
    )
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["frames"] == 6
    assert report["fps"]["low"] <= report["fps"]["median"] <= report["fps"]["high"]
    assert set(report["block_ms"]) == {"p50", "p95", "p99"}
    assert report["hardware"]["torch"]
    assert report["first_frame_seconds"]["median"] > 0


def test_benchmark_sweeps_and_compares_with_what_it_printed_before(tmp_path):
    args = (
        "benchmark", "--size", "32x24,24x24", "--frames", 3, "--repeats", 1, "--warmup", 0,
        "--threads", 1, "--json",
    )  # fmt: skip
    first = run(*args, "--report", tmp_path / "speed.html")
    assert first.exit_code == 0, first.stderr
    speeds = json.loads(first.stdout)
    assert [speed["request"]["size"] for speed in speeds] == ["32x24", "24x24"]
    assert "<h1>instantvir benchmark: speed</h1>" in (tmp_path / "speed.html").read_text()

    before = tmp_path / "before.json"
    speeds[0]["fps"]["median"] *= 1e6
    before.write_text(json.dumps(speeds[0]))
    slower = run(*args, "--baseline", before)
    assert slower.exit_code == ExitStatus.FAILURE
    assert "1 of 1 configurations are slower than the baseline" in " ".join(slower.stderr.split())
    assert json.loads(slower.stdout)  # what was measured is told all the same
    speeds[0]["fps"]["median"] = 1e-6
    before.write_text(json.dumps(speeds[0]))
    assert run(*args, "--baseline", before).exit_code == 0


def test_benchmark_prints_a_table():
    result = run(
        "benchmark", "--size", "32x32", "--frames", 3, "--repeats", 1, "--warmup", 0, "--task", "sr"
    )
    assert result.exit_code == 0, result.stderr
    assert "whole command, FPS" in result.stdout


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--task", "magic"], "no task called `magic`"),
        (["--size", "big"], "`--size` is `big`"),
        (["--dtype", "int4"], "`--dtype` is `int4`"),
        (["--repeats", "0"], "at least 1"),
    ],
)
def test_benchmark_names_mistakes(args, sentence):
    result = run("benchmark", *args)
    assert result.exit_code == ExitStatus.USAGE
    assert sentence in " ".join(result.stderr.split())


def test_an_unknown_recipe_is_named(tmp_path):
    result = run("distill", "--clips", tmp_path, "-o", tmp_path / "run", "--recipe", "tinny")
    assert result.exit_code == ExitStatus.USAGE
    assert "did you mean `tiny`" in result.stderr


def test_distill_without_clips_is_named(tmp_path):
    result = run("distill", "--clips", tmp_path, "-o", tmp_path / "run")
    assert result.exit_code == ExitStatus.BAD_INPUT
    assert "no video in" in result.stderr


def test_what_the_library_logs_looks_like_everything_else(capsys):
    console.set_up(quiet=False)
    logging.getLogger("instantvir_models.any").info("chose [this]")
    logging.getLogger("instantvir_models.any").warning("careful with [that]")
    assert capsys.readouterr().err == "chose [this]\nwarning: careful with [that]\n"
