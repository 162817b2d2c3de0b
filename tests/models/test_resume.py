"""A restoration that was ended goes on where it was, and what comes out is the same to the bit."""

import errno
import io
import json
import logging
import os

import cv2
import numpy as np
import pytest

from instantvir_models.errors import UsageError, VideoWriteError
from instantvir_models.media.segments import SegmentedWriter
from instantvir_models.operators.spec import parse_degradation
from instantvir_models.outputs.claim import Claim
from instantvir_models.run import going_on, journal, loose
from instantvir_models.run.opening import open_chosen
from instantvir_models.run.restore import restore
from instantvir_models.run.session import Session
from tests.kills import KilledRuns
from tests.media_clips import make_clip, packets_of

NOISE = "noise:std=3"
SEGMENT = 30


class Enough(Exception):
    """Raised by who has seen enough."""


@pytest.fixture(autouse=True)
def short_segments(monkeypatch):
    monkeypatch.setattr(journal, "LONGEST_SEGMENT", SEGMENT)
    monkeypatch.setattr(journal, "SHORTEST_SEGMENT", SEGMENT)
    monkeypatch.setattr(going_on, "KEEP_SECONDS", float("inf"))


@pytest.fixture
def slow(monkeypatch):
    """Every block takes so long that it would be missed."""
    monkeypatch.setattr(going_on, "KEEP_SECONDS", 0)


def restored(clip, target, *, stop_at=None, **options):
    def watch(progress):
        if progress.frames == stop_at:
            raise Enough

    options = {"operator": NOISE, "solver": "nlmeans", **options}
    return restore(clip, target, on_progress=watch, **options)


@pytest.fixture
def begun(tmp_path):
    """A clip, and an output of which two pieces of three were made."""
    clip = make_clip(tmp_path / "in.mkv", width=32, height=24, num_frames=80, audio=True)
    target = tmp_path / "out.mp4"
    with pytest.raises(Enough) as stopped:
        restored(clip, target, stop_at=75)
    assert "the first 60 frames" in stopped.value.__notes__[0]
    assert not target.exists()
    return clip, target


def hidden(target):
    return target.parent / f".{target.name}.instantvir"


def test_what_was_begun_is_gone_on_with_and_equal_to_the_bit(begun, tmp_path):
    clip, target = begun
    whole = restored(clip, tmp_path / "whole.mp4")
    seen = []
    report = restore(clip, target, operator=NOISE, solver="nlmeans",
                                 on_progress=lambda progress: seen.append(progress.frames))  # fmt: skip
    assert seen == list(range(61, 81))
    assert target.read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert (report.frames, report.residual) == (whole.frames, whole.residual)
    assert sorted(os.listdir(tmp_path)) == ["in.mkv", "out.mp4", "whole.mp4"]


def test_pieces_are_playable_meanwhile(begun):
    _, target = begun
    pieces = sorted(hidden(target).glob("*.h264"))
    assert len(pieces) == 2
    capture = cv2.VideoCapture(str(pieces[1]))
    count = 0
    while capture.read()[0]:
        count += 1
    assert count == SEGMENT


def test_another_command_is_told_what_differs_and_replaces_nothing(begun):
    clip, target = begun
    with pytest.raises(
        UsageError, match=r"was begun otherwise: the degradation was .*std=3.*std=4"
    ):
        restored(clip, target, operator="noise:std=4")
    with pytest.raises(UsageError, match=r"the sharpness was 0\.0, now 1\.0"):
        restored(clip, target, solver=None, sharpness=1.0)
    with pytest.raises(UsageError, match="the encoder was"):
        restored(clip, target, crf=30, resume=True, overwrite=True)
    assert len(list(hidden(target).glob("*.h264"))) == 2


def test_what_cannot_be_gone_on_with_is_removed_and_named_when_that_is_wanted(begun, caplog):
    clip, target = begun
    with caplog.at_level(logging.WARNING):
        restored(clip, target, crf=30, overwrite=True)
    assert f"left of `{target}` is removed: the encoder was" in caplog.text
    assert not hidden(target).exists()


def test_another_input_of_the_same_name_begins_anew(begun, tmp_path):
    clip, target = begun
    make_clip(tmp_path / "in.mkv", width=32, height=24, num_frames=70)
    with pytest.raises(UsageError, match="the input was"):
        restored(clip, target)


@pytest.mark.parametrize("harm", ["cut", "times", "note", "memory"])
def test_a_piece_that_is_not_whole_is_not_trusted(begun, tmp_path, harm):
    """Disks that lose what they said was written are rare, and still no reason for a wrong film."""
    clip, target = begun
    broken = {
        "cut": "00001.h264",
        "times": "00000.times",
        "note": "00000.json",
        "memory": "00001.safetensors",
    }[harm]
    path = hidden(target) / broken
    path.write_bytes(path.read_bytes()[:-9])
    restored(clip, target)
    restored(clip, tmp_path / "whole.mp4")
    assert target.read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_a_full_disk_costs_one_piece(begun, tmp_path, monkeypatch):
    clip, target = begun
    monkeypatch.undo()
    monkeypatch.setattr(journal, "LONGEST_SEGMENT", SEGMENT)
    monkeypatch.setattr(journal, "SHORTEST_SEGMENT", SEGMENT)
    other = tmp_path / "full.mp4"

    def full(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(journal, "sync_file", full)
        with pytest.raises(VideoWriteError, match="no space is left"):
            restored(clip, other)
    assert not other.exists()
    assert not hidden(other).exists(), "nothing was done yet"
    with pytest.raises(Enough):
        restored(clip, other, stop_at=40)
    with monkeypatch.context() as patched:
        patched.setattr(journal, "sync_file", full)
        with pytest.raises(VideoWriteError, match="no space is left") as stopped:
            restored(clip, other)
    assert "the first 30 frames" in stopped.value.__notes__[0]
    restored(clip, other)
    restored(clip, target)
    assert other.read_bytes() == target.read_bytes()


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("stops", [(10,), (7, 23), (20, 33, 50)])
def test_a_piece_that_takes_long_is_kept_before_it_ends(tmp_path, monkeypatch, slow, stops, bits):
    """A clip shorter than a piece began anew. Law: how often it is kept changes no bit."""
    frames = 25 if max(stops) < 25 else 55
    pix_fmt = "yuv420p" if bits == 8 else "yuv420p10le"
    clip = make_clip(tmp_path / "in.mkv", width=32, height=24, num_frames=frames, audio=True,
                     pix_fmt=pix_fmt, codec="ffv1")  # fmt: skip
    target, options = tmp_path / "out.mp4", {"codec": "libx264"}
    for stop in stops:
        with pytest.raises(Enough) as stopped:
            restored(clip, target, stop_at=stop, **options)
        assert "the same command goes on there" in stopped.value.__notes__[0]
    rest = []
    restore(clip, target, operator=NOISE, solver="nlmeans", **options,
            on_progress=lambda progress: rest.append(progress.frames))  # fmt: skip
    assert 1 < rest[0] <= stops[-1]
    assert len(rest) == frames + 1 - rest[0]
    monkeypatch.setattr(going_on, "KEEP_SECONDS", float("inf"))
    restored(clip, tmp_path / "whole.mp4", **options)
    assert target.read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["in.mkv", "out.mp4", "whole.mp4"]


@pytest.mark.parametrize("harm", ["loose.json", "*.frames", "*.safetensors"])
def test_frames_that_are_not_whole_are_not_trusted(tmp_path, monkeypatch, slow, harm):
    clip = make_clip(tmp_path / "in.mkv", width=32, height=24, num_frames=50)
    target = tmp_path / "out.mp4"
    with pytest.raises(Enough):
        restored(clip, target, stop_at=44)
    path = sorted(hidden(target).glob(harm))[-1]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(Enough) as stopped:
        restored(clip, target, stop_at=31)
    assert "the first 30 frames" in stopped.value.__notes__[0]
    restored(clip, target)
    monkeypatch.setattr(going_on, "KEEP_SECONDS", float("inf"))
    restored(clip, tmp_path / "whole.mp4")
    assert target.read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_a_note_of_a_stranger_takes_no_file_away_elsewhere(tmp_path, slow):
    clip, target = make_clip(tmp_path / "in.mkv", width=32, height=24, num_frames=50), "out.mp4"
    with pytest.raises(Enough):
        restored(clip, tmp_path / target, stop_at=20)
    note = hidden(tmp_path / target) / "loose.json"
    said = json.loads(note.read_text())
    precious = tmp_path / said["tensors"]
    precious.touch()
    note.write_text(json.dumps(said | {"tensors": str(precious)}))
    restored(clip, tmp_path / target)
    assert precious.exists()


def test_a_disk_without_room_for_frames_still_takes_the_output(tmp_path, monkeypatch, slow, caplog):
    clip = make_clip(tmp_path / "in.mkv", width=32, height=24, num_frames=50)

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(loose, "write_tensors", full)
    with caplog.at_level(logging.WARNING):
        restored(clip, tmp_path / "out.mp4")
    assert caplog.text.count("of the piece at hand is not kept") == 1
    assert sorted(os.listdir(tmp_path)) == ["in.mkv", "out.mp4"]


def test_of_quick_pieces_no_frame_is_put_on_the_disk(tmp_path, monkeypatch):
    clip = make_clip(tmp_path / "in.mkv", width=32, height=24, num_frames=50)
    monkeypatch.setattr(going_on, "MOST_WAITING_BYTES", 1)
    monkeypatch.setattr(loose.LooseFrames, "store", lambda self: pytest.fail("it was"))
    restored(clip, tmp_path / "out.mp4")


def test_a_piece_that_was_passed_over_is_left_alone_though_it_slows_down(
    tmp_path, monkeypatch, slow
):
    """Its rest was put on the disk, and of no use: its beginning was not there."""
    clip = make_clip(tmp_path / "in.mkv", width=32, height=24, num_frames=50)
    quick = iter([True])
    monkeypatch.setattr(going_on, "MOST_WAITING_BYTES", 1)
    monkeypatch.setattr(going_on.Kept, "_is_quick", property(lambda self: next(quick, False)))
    kept, stored = [], going_on.Kept.note
    monkeypatch.setattr(loose.LooseFrames, "store", lambda self: kept.append(len(self.waiting)))
    monkeypatch.setattr(
        going_on.Kept, "note", lambda self, *rest: kept.append("note") or stored(self, *rest)
    )
    with pytest.raises(Enough):
        restored(clip, tmp_path / "out.mp4", stop_at=SEGMENT - 1)
    assert set(kept) <= {"note"}


def test_what_has_lasted_a_moment_is_not_kept(tmp_path):
    clip = make_clip(tmp_path / "in.mp4", width=32, height=24, num_frames=SEGMENT)
    with pytest.raises(Enough):
        restored(clip, tmp_path / "out.mp4", stop_at=20)
    assert os.listdir(tmp_path) == ["in.mp4"]


@pytest.mark.parametrize(
    "spec", ["noise:std=5", "blur:sigma=1+noise:std=2", "temporal:kernel=uniform,size=3"]
)
def test_a_session_goes_on_from_what_another_one_knew(spec):
    """Law: push(a), memory, go_on, push(b) is push(a + b), at the end of every block."""
    degradation = parse_degradation(spec)
    frames = np.random.default_rng(0).integers(0, 255, (11, 24, 32, 3)).astype(np.uint8)
    opened = open_chosen()

    def new():
        return opened.new_session(degradation, height=24, width=32).session

    whole = new()
    expected = [whole.push(frames), whole.flush()]
    for cut in (3, 7, 10):
        first, second = new(), new()
        before = first.push(frames[:cut])
        second.go_on(first.memory())
        out = np.concatenate([before, second.push(frames[cut:]), second.flush()])
        assert np.array_equal(out, np.concatenate(expected))
        assert second.report.residual == whole.report.residual
        assert second.report.frames_out == 11


def test_killed_at_random_it_is_equal_to_the_bit(tmp_path):
    KilledRuns(tmp_path, ".mp4", frames=100, segment=SEGMENT, seed=1).kill(5)


def test_killed_amid_a_piece_it_is_equal_to_the_bit(tmp_path):
    """Also between the end of a piece and that its frames go."""
    runs = KilledRuns(tmp_path, ".mp4", frames=60, segment=SEGMENT, seed=3, keep_seconds=0)
    runs.kill(6)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_fifty_kills(tmp_path, suffix):
    """25 for each container; `benchmarks/resume.py` shows them."""
    KilledRuns(tmp_path, suffix, frames=200, segment=SEGMENT, seed=2).kill(25)


def test_a_kill_just_before_it_gets_its_name_costs_nothing(begun):
    """The run after that one may be killed, too."""
    clip, target = begun
    (hidden(target) / "placing").write_text(target.name)
    (hidden(target) / target.name).write_text("joined, and not moved yet")
    with pytest.raises(Enough) as stopped:
        restored(clip, target, stop_at=70)
    assert "the first 60 frames" in stopped.value.__notes__[0]
    assert hidden(target).exists()


def test_a_kill_while_it_gets_its_name_leaves_nothing_for_ever(begun, tmp_path, monkeypatch):
    """The output is there then, so nobody would ever go on with the pieces."""
    clip, target = begun
    with monkeypatch.context() as patched:
        patched.setattr("instantvir_models.outputs.claim._remove", lambda folder: None)
        restored(clip, target)
    assert hidden(target).exists()
    restored(clip, tmp_path / "other.mp4", duration=0.5)
    assert sorted(os.listdir(tmp_path)) == ["in.mkv", "other.mp4", "out.mp4"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".webm"])
@pytest.mark.parametrize("part", [{}, {"start": 0.5, "duration": 2.4}])
def test_pieces_change_nothing_but_where_the_encoder_begins(tmp_path, monkeypatch, suffix, part):
    """Law: times and durations of all packets, and what comes along, are those of a file made at once."""
    texts = [(0.1, 0.9, "one"), (1.4, 2.0, "two"), (2.5, 3.1, "three")]
    clip = make_clip(tmp_path / "in.mkv", width=32, height=24, num_frames=80, audio=True,
                     subtitles=texts)  # fmt: skip
    pieces, whole = tmp_path / f"pieces{suffix}", tmp_path / f"whole{suffix}"
    restored(clip, pieces, solver="as_measured", **part)
    monkeypatch.setattr(journal, "LONGEST_SEGMENT", 1000)
    monkeypatch.setattr(journal, "SHORTEST_SEGMENT", 1000)
    restored(clip, whole, solver="as_measured", **part)
    for kind in ("audio", "subtitles"):
        assert packets_of(pieces, kind) == packets_of(whole, kind)
    times = [[packet[:-1] for packet in packets_of(path, "video")] for path in (pieces, whole)]
    assert sorted(times[0]) == sorted(times[1])


class Disk:
    """What everything below `folder` is told once the disk is gone."""

    def __init__(self, folder, monkeypatch, code):
        self.is_gone, self._folder, self._code = False, str(folder), code
        for name in ("open", "stat", "lstat", "unlink", "mkdir", "rmdir", "listdir", "scandir"):
            self._wrap(monkeypatch, os, name)
        self._wrap(monkeypatch, os, "replace")
        self._wrap_files(monkeypatch)
        synced = os.fsync
        monkeypatch.setattr(os, "fsync", lambda number: self.ask() or synced(number))

    def ask(self, path=None):
        if self.is_gone and (path is None or str(path).startswith(self._folder)):
            raise OSError(self._code, os.strerror(self._code))

    def _wrap(self, monkeypatch, owner, name):
        inner = getattr(owner, name)

        def asked(path, *rest, **named):
            self.ask("" if isinstance(path, int) else path)
            return inner(path, *rest, **named)

        monkeypatch.setattr(owner, name, asked)

    def _wrap_files(self, monkeypatch):
        inner, disk = io.open, self

        class File(io.FileIO):
            def write(self, data):
                disk.ask()
                return super().write(data)

        def opened(path, mode="r", *rest, **named):
            disk.ask("" if isinstance(path, int) else path)
            if mode == "wb" and str(path).startswith(disk._folder):
                return io.BufferedWriter(File(path, "w"))
            return inner(path, mode, *rest, **named)

        monkeypatch.setattr(io, "open", opened)


@pytest.mark.parametrize(
    ("moment", "code"), [("piece", errno.EIO), ("note", errno.ENODEV), ("name", errno.EROFS)]
)
def test_a_disk_that_is_unplugged_costs_one_piece(tmp_path, monkeypatch, moment, code):
    """A sentence; and when it is back the same command goes on, equal to the bit."""
    clip = make_clip(tmp_path / "in.mkv", width=32, height=24, num_frames=80, audio=True)
    restored(clip, tmp_path / "whole.mp4")
    folder = tmp_path / "stick"
    folder.mkdir()
    target = folder / "out.mp4"
    with monkeypatch.context() as patched:
        disk = Disk(folder, patched, code)
        owner, name = {
            "piece": (SegmentedWriter, "end_segment"),
            "note": (journal.Journal, "add"),
            "name": (Claim, "place"),
        }[moment]
        inner, seen = getattr(owner, name), []

        def at_last(*arguments, **named):
            seen.append(1)
            disk.is_gone = len(seen) == (1 if moment == "name" else 2)
            return inner(*arguments, **named)

        patched.setattr(owner, name, at_last)
        with pytest.raises(VideoWriteError, match=os.strerror(code)) as stopped:
            restored(clip, target)
        assert "unplugged" in stopped.value.hint
        assert f"the first {60 if moment == 'name' else 30} frames" in stopped.value.__notes__[0]
        with pytest.raises(VideoWriteError):
            restored(clip, target)
    assert not target.exists()
    computed = []
    with monkeypatch.context() as patched:
        push = Session.push
        patched.setattr(
            Session,
            "push",
            lambda self, frames, *rest: computed.append(len(frames)) or push(self, frames, *rest),
        )
        restored(clip, target)
    assert target.read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert os.listdir(folder) == ["out.mp4"]
    assert sum(computed) <= (20 if moment == "name" else 50) + 4


def test_a_disk_that_is_unplugged_before_anything_is_kept_is_a_sentence(tmp_path, monkeypatch):
    clip = make_clip(tmp_path / "in.mkv", width=32, height=24, num_frames=80, audio=True)
    folder = tmp_path / "stick"
    folder.mkdir()
    with monkeypatch.context() as patched:
        disk = Disk(folder, patched, errno.EIO)

        def unplug(progress):
            disk.is_gone = progress.frames > 20

        with pytest.raises(VideoWriteError, match=os.strerror(errno.EIO)):
            restore(clip, folder / "out.mp4", operator=NOISE, solver="nlmeans", on_progress=unplug)
    restored(clip, folder / "out.mp4")
    assert os.listdir(folder) == ["out.mp4"]
