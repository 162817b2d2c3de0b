"""The validation beside a run: which crops, and the picture of what became of one."""

import sys
import time

import cv2
import numpy as np
import pytest

from instantvir_distill import evaluate
from instantvir_distill.evaluate import COLUMNS, CROPS, crops, strips, write_strips
from instantvir_models.errors import UsageError
from instantvir_models.students.fused import FusedStudent
from tests.media_clips import make_clip
from tests.small_runs import SMALL, clip


def test_clips_of_anybody_are_compared_with_where_ours_are_not():
    """Without our own held-out clips there was a KeyError."""
    name, x = next(crops([clip("mine", size=(64, 80))], frames=3))
    assert (name, x.shape) == ("mine", (1, 3, 3, 48, 72))
    ours = clip(CROPS[0][0], size=(130, 210))
    found = list(crops([clip("mine"), ours], frames=3))
    assert [(name, x.shape) for name, x in found] == [(ours.name, (1, 3, 3, 120, 208))]


@pytest.mark.parametrize(("size", "frames"), [((16, 80), 3), ((64, 80), 20)])
def test_a_clip_that_is_too_short_or_too_small_is_named(size, frames):
    with pytest.raises(UsageError, match="`mine` is too short or too small"):
        next(crops([clip("mine", size=size)], frames=frames))


def test_a_picture_shows_start_result_and_truth_of_each_column(tmp_path):
    student = FusedStudent(SMALL.student).eval()
    picture = strips(student, [clip("mine")], frames=3, columns=COLUMNS[:2])
    assert picture.shape == (2 * 48, 3 * 72, 3)
    truth = picture[:48, 2 * 72 :]
    np.testing.assert_array_equal(truth, clip("mine").frames[2, 8:56, 4:76])
    assert np.abs(picture[48:, :72].astype(int) - truth).mean() > 0.5  # noise is seen
    write_strips(picture, tmp_path / "new" / "a.png")
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "new" / "a.png"))[..., ::-1], picture)


def asks(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, args)])
    with pytest.raises(SystemExit) as ended:
        evaluate.main()
    return ended.value.code


def test_what_is_wrong_is_a_sentence(tmp_path, monkeypatch):
    """It was a traceback, in a command that the docs tell people to give."""
    given = ("--clips", tmp_path / "none", "--cache", tmp_path / "cache")
    assert asks(monkeypatch, "tiny", *given).startswith("error: there is no `")
    make_clip(tmp_path / "a.mp4", num_frames=3)
    given = ("--clips", tmp_path / "a.mp4", "--cache", tmp_path / "cache")
    assert "gone.safetensors" in asks(monkeypatch, tmp_path / "gone.safetensors", *given)
    assert asks(monkeypatch, "tiny", *given, "--every", "0") == 2


def test_weights_that_a_run_has_not_written_yet_are_waited_for(tmp_path, monkeypatch, capsys):
    """Given when the run begins, as the docs say, it died: the first weights come after two minutes."""
    make_clip(tmp_path / "a.mp4", num_frames=3)
    weights = tmp_path / "student.safetensors"
    seen = []

    def sleep(seconds):
        if seen:
            raise KeyboardInterrupt
        weights.touch()

    monkeypatch.setattr(time, "sleep", sleep)
    loaded = evaluate.LoadedStudent(FusedStudent(SMALL.student), "it", "sha")
    monkeypatch.setattr(evaluate, "load_student", lambda name: loaded)
    monkeypatch.setattr(evaluate, "_look", lambda *looked: seen.append(looked))
    given = ("--clips", tmp_path / "a.mp4", "--cache", tmp_path / "cache", "--every", "1")
    assert asks(monkeypatch, weights, *given) == 130
    assert [looked[0] for looked in seen] == [loaded]
    assert "waiting for `" in capsys.readouterr().err
