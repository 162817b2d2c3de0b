"""What is said of how far a restoration is."""

import pytest

from instantvir_cli import console
from instantvir_cli.progress import announce, in_words, note_of, shown_progress
from instantvir_models.run.restore_report import Progress


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (4200, "70 min"), (19_200, "5 h 20 min")],
)
def test_times_are_said_as_people_say_them(seconds, words):
    assert in_words(seconds) == words


def test_a_long_run_is_announced_once_and_a_short_one_never(capsys):
    console.set_up(quiet=False)
    with shown_progress() as shown, shown.file() as advance:
        advance(Progress(3, 9000, 30.0))
        advance(Progress(9, 9000, 32.0, fps=2.14, seconds_left=4200.0, is_kept=True))
        advance(Progress(12, 9000, 33.0, fps=2.14, seconds_left=4190.0, is_kept=True))
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("about 70 min to go at 2.1 FPS; it may be stopped") == 1
    announce(None, Progress(9, 90, 3.0, fps=3.0, seconds_left=27.0))
    assert capsys.readouterr().err == ""


def test_nothing_is_claimed_before_it_was_measured():
    assert note_of(Progress(3, 9000, 30.0)) == ""
    assert note_of(Progress(9, None, 32.0, fps=2.14)) == "2.14 FPS"
