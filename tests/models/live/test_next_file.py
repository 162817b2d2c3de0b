"""A stream that stops and starts again goes on in one file, or in the next."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from instantvir_models.live.next_file import FileOfEachStretch
from instantvir_models.media import CompanionPacket, Frame
from instantvir_models.outputs.names import numbered

PIXELS = np.zeros((2, 2, 3), np.uint8)


class Kept:
    def __init__(self):
        self.shown, self.heard, self.is_closed = [], [], False

    def write(self, frame):
        self.shown.append(frame.pts)

    def write_companions(self, packets):
        self.heard += [packet.pts for packet in packets]

    def close(self):
        self.is_closed = True

    def abort(self):
        pass


def sound(milliseconds):
    return CompanionPacket(0, b"", milliseconds, milliseconds, 20, Fraction(1, 1000), True)


@pytest.mark.parametrize(("pause_seconds", "num_files"), [(1, 2), (5, 1)])
def test_a_pause_begins_the_next_file_at_time_0(pause_seconds, num_files):
    files = []

    def open_file(number):
        assert number == len(files) + 1
        files.append(Kept())
        return files[-1]

    sink = FileOfEachStretch(open_file, pause_seconds=pause_seconds)
    sink.write_companions([sound(t) for t in (30, 3990, 4030)])  # which comes before its pictures
    for milliseconds in (0, 40, 4000, 4040):
        sink.write(Frame(PIXELS, milliseconds, Fraction(1, 1000), 40))
    sink.close()
    assert [file.is_closed for file in files] == [True] * num_files
    if num_files == 1:
        assert files[0].shown == [0, 40, 4000, 4040]
        assert files[0].heard == [30, 3990, 4030]
    else:
        assert [file.shown for file in files] == [[0, 40], [10, 50]]
        assert [file.heard for file in files] == [[30], [0, 40]]


def test_files_are_numbered_before_their_suffix():
    assert [numbered(Path("a/live.mkv"), n).name for n in (1, 2)] == ["live.mkv", "live.2.mkv"]
