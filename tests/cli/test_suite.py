"""`instantvir benchmark --suite`: one command, tables, files, and errors in words."""

import csv
import json
from fractions import Fraction

import numpy as np
import pytest
from typer.testing import CliRunner

from instantvir_cli.app import app
from instantvir_cli.exit_status import ExitStatus
from instantvir_models.media import EncoderSettings, Frame, create_video
from instantvir_models.outputs.claim import claim
from instantvir_models.solvers.registry import named_solver
from instantvir_models.suite.results import SuiteSolver
from instantvir_models.suite.systems import ONE_PASS, STUDENT, Made, System


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        pixels = rng.integers(60, 200, (4, 6, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        settings = EncoderSettings(codec="ffv1")
        with create_video(
            folder / f"{name}.mkv", width=48, height=32, settings=settings, frame_rate=25
        ) as writer:
            for index in range(2):
                writer.write(Frame(pixels, index, Fraction(1, 25), 1))
    return folder


@pytest.fixture
def without_networks(monkeypatch):
    """One solver in place of all."""
    about = SuiteSolver(name=STUDENT, about="x", family=ONE_PASS)
    only = System(about, lambda _: Made(named_solver("map")), 0, evaluations_per_frame=1)
    monkeypatch.setattr("instantvir_cli.suite.open_priors", lambda path: None)
    monkeypatch.setattr("instantvir_cli.suite.paper_systems", lambda priors, model: (only,))


def invoke(*words):
    return CliRunner().invoke(app, ["benchmark", "--suite", "paper", *map(str, words)])


def test_a_suite_prints_tables_and_writes_files(tmp_path, clips, without_networks):
    out = tmp_path / "results"
    words = ("--clips", clips, "--length", 2, "-o", out, "--peer", "copy=cp {in} {out}")
    done = invoke(*words)
    assert done.exit_code == 0, done.output
    assert "denoise: identity+noise:std=25" in done.stdout
    assert "The paper's own figures, not measured here" in done.stdout
    assert "failed: copy: it wrote 2 frames of 12x8, not 2 frames of 48x32" in done.stdout
    assert "…" not in done.stdout  # nothing is cut off in a terminal of 80 letters
    assert "writing" not in done.stderr
    rows = list(csv.DictReader((out / "results.csv").open(encoding="utf-8")))
    assert len(rows) == 4 * 2 * 2
    failed = {(row["solver"], row["task"]) for row in rows if row["failure"]}
    assert failed == {("copy", "sr")}  # small frames are no enlarged ones
    stored = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert len(stored["means"]) == 4 * 2
    assert "suite paper</h1>" in (out / "report.html").read_text(encoding="utf-8")
    assert "| instantvir |" in (out / "results.md").read_text(encoding="utf-8")
    again = invoke(*words, "--json")
    assert json.loads(again.stdout)["suite"]["rows"][0] == stored["suite"]["rows"][0]


def test_who_is_left_out_has_no_row(tmp_path, clips, monkeypatch):
    made = [
        System(SuiteSolver(name=name, about="x", family=ONE_PASS), lambda _: Made(named_solver("map")), 0)
        for name in (STUDENT, "DPS", "bicubic, consistent")
    ]  # fmt: skip
    monkeypatch.setattr("instantvir_cli.suite.open_priors", lambda path: None)
    monkeypatch.setattr("instantvir_cli.suite.paper_systems", lambda priors, model: tuple(made))
    out = tmp_path / "results"
    left_out = ("--without", "dps", "--without", "bicubic, consistent")
    done = invoke("--clips", clips, "--length", 2, "-o", out, *left_out)
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader((out / "results.csv").open(encoding="utf-8")))
    assert {row["solver"] for row in rows} == {STUDENT}


def test_two_suites_in_one_folder_are_refused(tmp_path, clips, without_networks):
    """Each would have read and replaced the other's rows."""
    out = tmp_path / "results"
    out.mkdir()
    with claim(out / "suite"):
        second = invoke("--clips", clips, "--length", 2, "-o", out)
    assert second.exit_code == ExitStatus.USAGE
    assert "is being written by another run" in " ".join(second.stderr.split())
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--suite", "papers"], "there is no suite called `papers`"),
        (["--suite", "paper", "--prior", "none.safetensors"], "there is no prior"),
        (["--suite", "paper", "--clips", "none", "--prior", "none"], "is no folder"),
        (["--suite", "paper", "--crop", "wide", "--clips", "."], "`--crop` is `wide`"),
        (["--suite", "paper", "--without", "DSP"], "there is no system called `DSP`"),
        (["--suite", "paper", "--without", "instantvir"], "which cannot be left out"),
        (["--suite", "paper", "--solver", "map", "--tile", "64"], "no `--solver` and no `--tile`"),
        (["--suite", "paper", "--threads", "1,2"], "one number of `--threads`"),
        (["--suite", "paper", "--task", "sr"], "a suite takes no `--task`"),
        (["--suite", "paper", "clip.mp4"], "a suite takes no clip"),
        (["--clips", "."], "a benchmark without `--suite` takes no `--clips`"),
    ],
)
def test_what_cannot_be_is_told_in_words(words, said):
    done = CliRunner().invoke(app, ["benchmark", *words])
    assert done.exit_code in {ExitStatus.USAGE, ExitStatus.NO_CHECKPOINT}
    assert said in done.stderr
