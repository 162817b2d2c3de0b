"""Laws of every name that is written, tried on the room that writes them."""

import errno
import logging
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from instantvir_models.errors import UsageError, VideoWriteError
from instantvir_models.outputs import claim as claims
from instantvir_models.outputs import moving
from instantvir_models.outputs.claim import ENDING, claim, hidden_folder, new_file, write_whole
from instantvir_models.outputs.lines import add_line
from instantvir_models.outputs.names import read_paths, written_path
from instantvir_models.outputs.rule import refuse
from tests.small_disk import small_disk

ROOT = Path(__file__).parents[2]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def refused(*codes):
    """A call of the system that fails with each of these in turn, then always with the last."""
    left = list(codes)

    def call(*args, **kwargs):
        code = left.pop(0) if len(left) > 1 else left[0]
        raise OSError(code, os.strerror(code))

    return call


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a.mp4", "a.mp4"),
        ("file:a.mp4", "a.mp4"),
        ("FILE:a.mp4", "a.mp4"),
        ("file:/x/a.mp4", "/x/a.mp4"),
        ("Show: part 1.mp4", "Show: part 1.mp4"),
        (Path("file:a.mp4"), "file:a.mp4"),
        ("-", None),
        ("pipe:1", None),
        ("/dev/stdout", None),
        ("rtmp://server/live", None),
    ],
)
def test_a_typed_name_is_one_file_or_none(text, path):
    assert written_path(text) == (None if path is None else Path(path))


@pytest.mark.parametrize(
    "text", ["concat:a.ts|b.ts", "async:a.mp4", "data:,x", "cache:a.mp4", "tee://a.mp4", "md5://x"]
)
def test_nothing_is_written_through_what_hides_a_file(text):
    with pytest.raises(UsageError, match="nothing is written through"):
        written_path(text)


def test_what_is_there_wins_over_a_scheme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file:a.mp4").write_bytes(b"x")
    assert written_path("file:a.mp4") == Path("file:a.mp4")
    assert read_paths("file:a.mp4") == (Path("file:a.mp4"),)


def test_every_prefix_of_an_input_is_seen_through(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_paths("async:cache:file:a.mp4") == (Path("a.mp4"),)
    assert read_paths("concat:a.ts|file:b.ts") == (Path("a.ts"), Path("b.ts"))
    assert read_paths(["a.png", Path("b.png")]) == (Path("a.png"), Path("b.png"))


def test_what_is_there_needs_leave_to_be_replaced(tmp_path):
    path = tmp_path / "a.mp4"
    refuse(path)
    path.write_bytes(b"old")
    with pytest.raises(UsageError, match="exists already"):
        refuse(path)
    refuse(path, may_replace=True)


def test_a_link_to_nothing_is_there_too(tmp_path):
    (tmp_path / "a.mp4").symlink_to(tmp_path / "missing")
    with pytest.raises(UsageError, match="exists already"):
        refuse(tmp_path / "a.mp4")


def test_pictures_are_one_name(tmp_path):
    pattern = tmp_path / "out_%05d.png"
    refuse(pattern)
    (tmp_path / "out_00007.png").write_bytes(b"old")
    with pytest.raises(UsageError, match=r"1 pictures of .* the first is `out_00007.png`"):
        refuse(pattern)
    refuse(pattern, may_replace=True)
    with pytest.raises(UsageError, match="would replace the input"):
        refuse(pattern, reads=[str(tmp_path / "out_%d.png")], may_replace=True)


@pytest.mark.parametrize("redirected", [True, False])
def test_standard_input_is_an_input(tmp_path, redirected):
    (tmp_path / "a.nut").write_bytes(b"x")
    code = (
        "from pathlib import Path; from instantvir_models.outputs.rule import refuse\n"
        "refuse(Path('a.nut'), reads=['-'], may_replace=True)"
    )
    with open(tmp_path / "a.nut" if redirected else os.devnull) as given:
        ran = subprocess.run(
            [sys.executable, "-c", code],
            stdin=given, cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "models")},
        )  # fmt: skip
    assert ("is the input itself" in ran.stderr) == redirected


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.bin"

    def half():
        with new_file(path) as unfinished:
            unfinished.write_bytes(b"half")
            assert not path.exists()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert names_in(tmp_path) == []
    write_whole(path, b"whole")
    assert path.read_bytes() == b"whole"
    assert names_in(tmp_path) == ["a.bin"], "nothing hidden stays"


def test_a_new_file_may_be_read_by_whom_any_other_may(tmp_path):
    write_whole(tmp_path / "a", b"")
    (tmp_path / "b").write_bytes(b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


WAYS = {
    "the system's": None,
    "links": errno.EINVAL,
    "a reserved name": errno.EPERM,
}


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """Each way in which file systems can give a name that nothing has."""
    if request.param != "the system's":
        monkeypatch.setattr(moving, "_renamed_new", refused(errno.EINVAL))
    if request.param == "a reserved name":
        monkeypatch.setattr(moving.os, "link", refused(errno.EPERM))
    return request.param


def test_what_appeared_meanwhile_stays_and_nothing_is_lost(tmp_path, way):
    path = tmp_path / "a.mp4"

    def late():
        with new_file(path) as unfinished:
            unfinished.write_bytes(b"ours")
            path.write_bytes(b"theirs")

    with pytest.raises(VideoWriteError, match="appeared while this ran") as told:
        late()
    assert path.read_bytes() == b"theirs"
    assert (tmp_path / "a-2.mp4").read_bytes() == b"ours"
    assert "a-2.mp4" in told.value.hint
    assert names_in(tmp_path) == ["a-2.mp4", "a.mp4"]


def test_each_way_gives_the_name(tmp_path, way):
    write_whole(tmp_path / "a", b"x")
    assert names_in(tmp_path) == ["a"]
    write_whole(tmp_path / "a", b"y", may_replace=True)
    assert (tmp_path / "a").read_bytes() == b"y"


def test_where_nothing_can_be_renamed_it_is_copied_and_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(moving, "_renamed_new", refused(errno.EINVAL))
    monkeypatch.setattr(moving.os, "link", refused(errno.EPERM))
    monkeypatch.setattr(moving.os, "replace", refused(errno.EXDEV))
    write_whole(tmp_path / "a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"
    assert "cannot be renamed here" in caplog.text
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "b").symlink_to(victim)
    write_whole(tmp_path / "b", b"y", may_replace=True)
    assert victim.read_bytes() == b"precious"
    assert (tmp_path / "b").read_bytes() == b"y"


def test_of_files_that_belong_together_all_come_or_none(tmp_path):
    with claim(tmp_path / "%d.png") as held:
        for name in ("a.png", "b.png"):
            (held.folder / name).write_bytes(b"ours")
        (tmp_path / "b.png").write_bytes(b"theirs")
        with pytest.raises(VideoWriteError, match=r"b\.png.* appeared"):
            held.commit([held.folder / "a.png", held.folder / "b.png"])
    assert names_in(tmp_path) == ["%d-files-2", "b.png"]
    assert names_in(tmp_path / "%d-files-2") == ["a.png", "b.png"]


def test_two_runs_cannot_write_one_name(tmp_path):
    with claim(tmp_path / "a.mp4"):
        with pytest.raises(UsageError, match=f"another run .process {os.getpid()}"):
            claim(tmp_path / "a.mp4")
        claim(tmp_path / "b.mp4").release()
    claim(tmp_path / "a.mp4").release()


def test_an_interruption_between_lock_and_claim_leaves_nothing(tmp_path, monkeypatch):
    """The lock was ours already, and nobody was left who knew."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(claims, "Claim", interrupted)
        with pytest.raises(KeyboardInterrupt):
            claim(tmp_path / "out.mp4")
    assert os.listdir(tmp_path) == []
    with claim(tmp_path / "out.mp4"):
        monkeypatch.setattr(claims, "_held", interrupted)
        with pytest.raises(KeyboardInterrupt):
            claim(tmp_path / "out.mp4")
        assert hidden_folder(tmp_path / "out.mp4").exists()


def test_an_interruption_before_anybody_has_the_claim_leaves_nothing(tmp_path):
    """The name stayed taken until the end of the program, of which a notebook may have none."""
    with pytest.raises(TypeError):  # between the end of `claim` and what its caller does with it
        claim(tmp_path / "out.mp4") + 1
    assert os.listdir(tmp_path) == []
    kept = claim(tmp_path / "out.mp4")
    kept.keep()
    del kept
    assert claim(tmp_path / "out.mp4", adopts=True).is_adopted


def test_where_nothing_can_be_locked_the_owner_is_asked_for(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "flock", refused(errno.ENOLCK))
    held = claim(tmp_path / "a.mp4")
    with pytest.raises(UsageError, match="another run"):
        claim(tmp_path / "a.mp4")
    (held.folder / "lock").write_text(f"{_ended_process()} {claims.socket.gethostname()}\n")
    claim(tmp_path / "a.mp4").release()


def _ended_process():
    ended = subprocess.Popen(["true"])
    ended.wait()
    return ended.pid


def killed_run(path, *, keeps=False, data=b"half"):
    """A run that is killed while it writes `path`."""
    child = os.fork()
    if not child:
        with suppress(BaseException):
            held = claim(path)
            held.unfinished.write_bytes(data)
            if keeps:
                held.keep()
        os._exit(9)
    os.waitpid(child, 0)


def test_what_a_killed_run_left_is_removed_and_named_by_the_next(tmp_path, caplog):
    killed_run(tmp_path / "a.mp4", data=b"x" * 2_000_000)
    assert names_in(tmp_path) == [f".a.mp4{ENDING}"]
    write_whole(tmp_path / "other", b"")
    assert names_in(tmp_path) == ["other"]
    assert f".a.mp4{ENDING}` (2.0 MB), left by a run" in caplog.text


def test_the_next_run_of_the_same_name_begins_anew(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    killed_run(tmp_path / "a.mp4")
    with new_file(tmp_path / "a.mp4") as unfinished:
        assert not unfinished.exists()
        unfinished.write_bytes(b"whole")
    assert "of an earlier run" in caplog.text
    assert names_in(tmp_path) == ["a.mp4"]


def test_what_was_kept_is_adopted_by_the_next_run_of_the_same_name(tmp_path):
    killed_run(tmp_path / "a.mp4", keeps=True)
    write_whole(tmp_path / "other", b"")
    with claim(tmp_path / "a.mp4", adopts=True) as held:
        assert held.is_adopted
        assert held.unfinished.read_bytes() == b"half"
    with claim(tmp_path / "a.mp4", adopts=True) as held:
        assert held.is_adopted, "a run that ends without a commit leaves it"
        held.commit()
    assert names_in(tmp_path) == ["a.mp4", "other"]
    assert not (tmp_path / f".a.mp4{ENDING}").exists()


def test_what_was_kept_goes_where_it_is_not_wanted(tmp_path, caplog):
    killed_run(tmp_path / "a.mp4", keeps=True)
    with claim(tmp_path / "a.mp4") as held:
        assert not held.is_adopted
        assert not held.unfinished.exists()
    assert names_in(tmp_path) == []
    assert "of an earlier run" in caplog.text


@pytest.mark.parametrize("may_replace", [True, False])
def test_a_link_that_was_planted_does_not_lead_us_away(tmp_path, may_replace):
    """In a shared folder anybody can guess the name of what is unfinished."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "a.mp4").write_bytes(b"precious")
    shared = tmp_path / "shared"
    shared.mkdir()
    hidden_folder(shared / "a.mp4").symlink_to(victim)
    with pytest.raises(VideoWriteError, match="somebody else's"):
        write_whole(shared / "a.mp4", b"x", may_replace=may_replace)
    assert names_in(victim) == ["a.mp4"]
    assert (victim / "a.mp4").read_bytes() == b"precious"
    write_whole(shared / "b.mp4", b"x")  # and a sweep takes nothing of it away
    assert (victim / "a.mp4").read_bytes() == b"precious"


def test_replacing_a_link_spares_what_it_points_at(tmp_path):
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "a").symlink_to(tmp_path / "victim")
    write_whole(tmp_path / "a", b"x", may_replace=True)
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert not (tmp_path / "a").is_symlink()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs two users")
def test_a_folder_of_another_user_is_not_ours(tmp_path):
    hidden_folder(tmp_path / "a").mkdir()
    os.chown(hidden_folder(tmp_path / "a"), 12345, 12345)
    with pytest.raises(VideoWriteError, match="somebody else's"):
        claim(tmp_path / "a")


def test_the_longest_name_has_a_hidden_folder(tmp_path):
    for name in ("x" * 255, "é" * 127):
        write_whole(tmp_path / name, b"x")
    assert len(names_in(tmp_path)) == 2
    assert hidden_folder(tmp_path / ("x" * 255)) != hidden_folder(tmp_path / ("x" * 254 + "y"))


def test_file_and_folder_are_on_the_disk_before_anybody_is_told(tmp_path, monkeypatch):
    """The file before it has the name, the folder behind it: a power cut leaves old or new."""
    done = []
    sync, move = claims.sync_file, claims.move_new
    monkeypatch.setattr(claims, "sync_file", lambda path: (done.append("file"), sync(path)))
    monkeypatch.setattr(claims, "move_new", lambda a, b: (done.append("name"), move(a, b)))
    monkeypatch.setattr(claims, "sync_folder", lambda path: done.append("folder"))
    write_whole(tmp_path / "a", b"x")
    assert done == ["file", "name", "folder"]


@pytest.mark.parametrize("call", ["sync_file", "move_new"])
def test_a_disk_that_fills_late_is_an_error(tmp_path, monkeypatch, call):
    monkeypatch.setattr(claims, call, refused(errno.ENOSPC))
    with pytest.raises(VideoWriteError, match="no space is left"):
        write_whole(tmp_path / "a", b"x")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("room", [0, 3, 5])
def test_a_line_is_there_whole_or_not_at_all(tmp_path, room):
    log = tmp_path / "log.jsonl"
    add_line(log, "first")
    with small_disk(6 + room), pytest.raises(VideoWriteError, match=r"log\.jsonl"):
        add_line(log, "other")
    assert log.read_text() == "first\n"
    add_line(log, "other")
    assert log.read_text() == "first\nother\n"


def test_a_half_line_of_a_run_that_was_killed_does_not_swallow_the_next(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"a": 1}\n{"a":')
    add_line(log, '{"a": 3}')
    assert log.read_text() == '{"a": 1}\n{"a":\n{"a": 3}\n'


def test_a_line_goes_through_no_link(tmp_path):
    """In a folder that others write to it led to any file of ours."""
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "log.jsonl").symlink_to("precious")
    with pytest.raises(VideoWriteError):
        add_line(tmp_path / "log.jsonl", "line")
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_name_that_another_run_lets_go_of_just_now_is_taken(tmp_path, monkeypatch):
    """It was told to be somebody else's: the folder was there, and then it was not."""
    made = Path.mkdir
    tries = []

    def mkdir(self, *args, **kwargs):
        if self == hidden_folder(tmp_path / "out") and not tries:
            tries.append(self)
            raise FileExistsError(self)
        return made(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    write_whole(tmp_path / "out", "text")
    assert tries
    assert (tmp_path / "out").read_text() == "text"
