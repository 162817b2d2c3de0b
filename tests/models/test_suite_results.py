"""What a suite has found survives the disk, row by row."""

import json

import numpy as np
import pytest

from instantvir_models.errors import UsageError
from instantvir_models.suite.results import (
    Curve,
    Film,
    Measure,
    MeasuredClip,
    Published,
    Row,
    Stage,
    Suite,
    SuiteClip,
    SuiteReceipt,
    SuiteSolver,
    SuiteTask,
    load_film,
    load_suite,
    save_film,
    save_row,
    save_suite,
)

FILM = Film(path="films/a.png", frames=2, height=4, width=6)


def suite(**changed):
    receipt = SuiteReceipt(
        command="instantvir benchmark --suite paper", instantvir="0", python="3", torch="2", cpu="x",
        cores=2, threads=1, seed=0, started="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    parts = {
        "name": "paper",
        "receipt": receipt,
        "measures": (Measure(name="psnr", label="PSNR dB", is_higher_better=True),),
        "clips": (
            SuiteClip(name="a", frames=2, height=4, width=6, frames_per_second=25.0, truth=FILM),
            SuiteClip(name="b", frames=2, height=4, width=6, frames_per_second=25.0),
        ),
        "tasks": (SuiteTask(name="denoise", about="noise", spec="identity+noise:std=25"),),
        "solvers": (
            SuiteSolver(name="DPS", about="x", family="iterative", deviations=("one",)),
            SuiteSolver(name="student (ours)", about="x", family="one pass"),
        ),
        "measured": (MeasuredClip(task="denoise", clip="a", film=FILM, metrics={"psnr": 20.0}),),
        "published": (Published(system="DPS", task="sr", measure="fvd", value=1.0),),
        "missing": ("LPIPS is missing",),
    }
    return Suite(**parts | changed)


def row(solver, clip, **changed):
    return Row(solver=solver, task="denoise", clip=clip, **changed)


def test_a_suite_comes_back_from_its_folder(tmp_path):
    rows = (
        row(
            "DPS", "b", metrics={"psnr": 30.5}, curves=(Curve(measure="psnr", values=(30.0, 31.0)),),
            evaluations_per_frame=100.0, stages=(Stage(name="prior", seconds_per_frame=0.5),),
            film=FILM,
        ),
        row("student (ours)", "a", failure="out of memory"),
    )  # fmt: skip
    save_suite(suite(rows=rows), tmp_path)
    for each in reversed(rows):
        save_row(each, tmp_path)
    found = load_suite(tmp_path)
    assert found == suite(rows=rows)
    assert not found.is_complete
    assert found.rows_wanted == 4
    assert found.row("DPS", "denoise", "b") == rows[0]


def test_a_row_again_replaces_the_one_before(tmp_path):
    save_suite(suite(), tmp_path)
    save_row(row("DPS", "a", failure="stopped"), tmp_path)
    save_row(row("DPS", "a", seconds_per_frame=1.0), tmp_path)
    assert load_suite(tmp_path).rows == (row("DPS", "a", seconds_per_frame=1.0),)


def test_a_film_is_lossless(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), dtype=np.uint8)
    film = save_film(frames, tmp_path, "student (ours)", "denoise", "a/b")
    assert film.path == "films/student-ours__denoise__a-b.png"
    np.testing.assert_array_equal(load_film(film, tmp_path), frames)
    with pytest.raises(UsageError, match="is not the film"):
        load_film(FILM, tmp_path)


def test_what_is_no_suite_is_refused_in_words(tmp_path):
    with pytest.raises(UsageError, match="there is no suite in"):
        load_suite(tmp_path)
    save_suite(suite(), tmp_path)
    path = tmp_path / "suite.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"schema": 99}))
    with pytest.raises(UsageError, match="has schema 99, this version reads 1"):
        load_suite(tmp_path)
    path.write_text(json.dumps(stored | {"colour": 1}))
    with pytest.raises(UsageError, match="is no part of a suite"):
        load_suite(tmp_path)


@pytest.mark.parametrize("way", ["../private.png", "link.png", "absolute"])
def test_a_film_that_lies_elsewhere_is_not_shown(tmp_path, way):
    """A folder of rows may come from a stranger, and its page would hold a picture of ours."""
    folder, private = tmp_path / "suite", tmp_path / "private.png"
    film = save_film(np.zeros((2, 4, 6, 3), np.uint8), folder, "a")
    (folder / film.path).rename(private)
    (folder / "link.png").symlink_to(private)
    named = Film(path=str(private) if way == "absolute" else way, frames=2, height=4, width=6)
    with pytest.raises(UsageError, match="films of its own"):
        load_film(named, folder)
