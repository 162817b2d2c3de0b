"""Which session restores what, asked of a session that only keeps books."""

from types import SimpleNamespace

import numpy as np
import pytest

from instantvir_models.errors import UsageError
from instantvir_models.live.capture import Captured
from instantvir_models.live.sessions import Sessions
from tests.live_tools import frame


class Books:
    """A session that gives its frames back in blocks of three, `radius` frames late."""

    def __init__(self, *, radius=0, can_shrink=True):
        self._waiting, self._radius, self.can_shrink = [], radius, can_shrink
        operator = SimpleNamespace(temporal_radius=radius, changes_over_time=False)
        self.degradation = SimpleNamespace(operator=operator)
        self.output_size, self.skipped, self.texts, self.ways = (24, 32), None, [], []
        self.sharpnesses = []

    frames_guarded, sharpness = 0, 0.0
    frames_held = property(lambda self: len(self._waiting))
    frames_until_ready = property(lambda self: 3 + self._radius - len(self._waiting))

    def push(self, frames, known=None):
        self.ways.append((self.is_shrunk, self.is_student_skipped))
        self._waiting.extend(frames)
        num_ready = max(0, len(self._waiting) - self._radius) // 3 * 3
        return self._taken(num_ready)

    def flush(self):
        return self._taken(len(self._waiting))

    def _taken(self, number):
        taken, self._waiting = self._waiting[:number], self._waiting[number:]
        return np.stack(taken) if taken else np.empty((0, 24, 32, 3), np.uint8)

    def restarted(self):
        return Books(radius=self._radius, can_shrink=self.can_shrink)

    def skip(self, number):
        self.skipped = number

    def change_text(self, text):
        self.texts.append(text)

    def change_sharpness(self, sharpness):
        self.sharpness = sharpness
        self.sharpnesses.append(sharpness)


def item(index, **size):
    return Captured(frame(index, **size), 0.0, index)


def new_sessions(first, *later, events=None):
    made = iter([first, *later])

    def new_session(height, width):
        session = next(made)
        if isinstance(session, Exception):
            raise session
        return session

    return Sessions(
        new_session, item(0).kind, frames_per_block=3,
        on_event=(events if events is not None else []).append,
    )  # fmt: skip


def restored(sessions, indices, **how):
    how = {"text": None, "sharpness": 0.0, "is_cheap": False, **how}
    return [pair[0].index for pair in sessions.restore([item(n) for n in indices], **how)]


def test_frames_come_out_with_what_was_captured_of_them():
    sessions = new_sessions(Books(radius=2))
    assert sessions.frames_to_gather == 5
    assert restored(sessions, range(5)) == [0, 1, 2]
    assert sessions.num_held == 2
    held = sessions.give_out()
    assert [pair[0].index for pair in held] == [3, 4]
    for captured, pixels in held:
        np.testing.assert_array_equal(captured.frame.pixels, pixels)
    assert sessions.give_out() == []


@pytest.mark.parametrize(("radius", "matters"), [(0, False), (1, True)])
def test_a_gap_matters_only_to_an_operator_that_counts_frames(radius, matters):
    sessions = new_sessions(Books(radius=radius))
    restored(sessions, [0, 1, 2])
    assert not sessions.misses_frames_before(3)
    assert sessions.misses_frames_before(7) is matters


def test_a_session_that_begins_anew_knows_where():
    sessions = new_sessions(Books(radius=1))
    restored(sessions, [0, 1, 2, 3])
    sessions.give_out()
    sessions.begin_anew(7)
    assert not sessions.misses_frames_before(7)
    assert sessions._session.skipped == 7


def test_frames_that_were_guarded_are_told_once_over_all_sessions():
    first, told = Books(), []
    sessions = new_sessions(first)
    for number in (2, 2, 5):
        first.frames_guarded = number
        told.append(sessions.newly_guarded())
    sessions.begin_anew(7)
    sessions._session.frames_guarded = 1
    assert [*told, sessions.newly_guarded()] == [2, 0, 3, 1]


@pytest.mark.parametrize(("can_shrink", "way"), [(True, (True, False)), (False, (False, True))])
def test_the_cheap_way_is_half_the_size_or_no_student_and_ends(can_shrink, way):
    books = Books(can_shrink=can_shrink)
    sessions = new_sessions(books)
    restored(sessions, [0, 1, 2], is_cheap=True)
    restored(sessions, [3, 4, 5])
    assert books.ways == [way, (False, False)]


def test_a_session_is_told_another_sharpness_only_where_it_is_another():
    books = Books()
    sessions = new_sessions(books)
    for first, sharpness in ((0, 0.0), (3, 1.0), (6, 1.0), (9, 0.0)):
        restored(sessions, range(first, first + 3), sharpness=sharpness)
    assert books.sharpnesses == [1.0, 0.0]


def test_a_session_is_told_a_prompt_only_if_somebody_gave_one():
    books = Books()
    sessions = new_sessions(books)
    restored(sessions, [0, 1, 2])
    restored(sessions, [3, 4, 5], text="rows")
    assert books.texts == ["rows"]


def test_frames_no_session_can_be_made_for_wait_for_none_and_the_next_kind_has_one():
    events, later = [], Books()
    sessions = new_sessions(Books(), UsageError("the mask does not fit"), later, events=events)
    sessions.change_kind(item(0, width=64).kind)
    assert not sessions.can_restore
    assert sessions.frames_to_gather == 3
    assert not sessions.counts_frames
    assert events == [
        "the input changes to 64x24 (uint8); a new session begins",
        "frames of 64x24 are passed through unrestored: the mask does not fit",
    ]
    sessions.change_kind(item(0).kind)
    assert sessions.can_restore


def test_a_degradation_that_does_not_fit_the_first_frames_is_an_error():
    with pytest.raises(UsageError, match="does not fit"):
        new_sessions(UsageError("the mask does not fit"))
