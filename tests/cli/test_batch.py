"""Stories of many inputs to `instantvir restore`."""

import json
import os
import signal
import subprocess

import pytest

from instantvir_cli.exit_status import ExitStatus
from tests.cli.test_restore import COMMAND, run
from tests.cli.test_stream import wait_for
from tests.media_clips import make_clip

TASK = ("--task", "denoise", "--noise", "3")


@pytest.fixture
def tapes(tmp_path):
    """Two good tapes, one of them in a folder inside, and one that is no video."""
    folder = tmp_path / "tapes"
    (folder / "more").mkdir(parents=True)
    for name in ("b.mp4", "more/c.mkv"):
        make_clip(folder / name, width=48, height=32, num_frames=4)
    (folder / "a.avi").write_text("this is no video")
    (folder / "notes.txt").write_text("nor is this")
    return folder


def test_every_input_is_tried_and_the_worst_status_comes_last(tapes, tmp_path):
    out = tmp_path / "out"
    result = run("restore", tapes, "--recursive", *TASK, "-o", f"{out}/", "--json")
    assert result.exit_code == ExitStatus.BAD_INPUT, result.stderr
    rows = json.loads(result.stdout)
    assert [row["outcome"] for row in rows] == ["failed", "restored", "restored"]
    assert [row["status"] for row in rows] == [3, 0, 0]
    assert rows[0]["error"]
    assert rows[1]["frames"] == 4
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert found == ["b.restored.mp4", "more/c.restored.mkv"]
    assert "3 inputs: 2 restored, 1 failed" in result.stderr
    assert result.stderr.splitlines()[-1] == f"failed: `{tapes / 'a.avi'}`"
    assert "Traceback" not in result.stderr


def test_where_nothing_can_be_written_nobody_computes_on(tmp_path):
    """On a full disk each of 24 films was restored for nothing."""
    for index in range(7):
        make_clip(tmp_path / f"{index}.mp4", width=48, height=32, num_frames=2)
    (tmp_path / "disk").write_text("no folder")
    result = run("restore", tmp_path, *TASK, "-o", f"{tmp_path}/disk/out/", "--json")
    assert result.exit_code == ExitStatus.BAD_OUTPUT
    assert [row["status"] for row in json.loads(result.stdout)] == [6] * 5
    assert "5 outputs in a row could not be written: 2 inputs not tried" in result.stderr


def test_what_is_done_is_skipped_and_counted(tapes, tmp_path):
    first = run("restore", tapes / "b.mp4", *TASK, "-o", f"{tmp_path}/out/", "--json")
    assert first.exit_code == 0, first.stderr
    (tapes / "a.avi").unlink()
    make_clip(tapes / "d.mp4", width=48, height=32, num_frames=4)
    target = tmp_path / "out" / "b.restored.mp4"
    before = target.stat()
    result = run("restore", tapes, *TASK, "-o", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.stderr
    assert [row["outcome"] for row in json.loads(result.stdout)] == ["skipped", "restored"]
    assert "2 inputs: 1 restored, 1 skipped, there already" in result.stderr
    assert target.stat() == before
    os.utime(tapes / "b.mp4", (before.st_mtime + 9, before.st_mtime + 9))
    assert "has changed" in run("restore", tapes, *TASK, "-o", tmp_path / "out").stderr


def test_a_row_is_there_before_the_next_input_begins(tapes, tmp_path):
    for name in ("e.mp4", "f.mp4"):
        make_clip(tapes / name, width=48, height=32, num_frames=4)
    command = [*COMMAND, "restore", str(tapes), *TASK, "-o", str(tmp_path / "out"), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]  # `[`, the row that failed, b.mp4
        assert b'"restored"' in lines[2]
        process.terminate()
        rest = process.stdout.read()
    rows = json.loads(b"".join(lines) + rest)
    assert [row["status"] for row in rows][:2] == [3, 0]
    assert process.returncode in (ExitStatus.TERMINATED, ExitStatus.BAD_INPUT)


def test_names_that_collide_are_kept_whole(tmp_path):
    for name in ("a.mp4", "a.avi", "b.mp4"):
        make_clip(tmp_path / name, width=48, height=32, num_frames=4)
    result = run("restore", tmp_path, *TASK, "--dry-run", "--json", "-o", f"{tmp_path}/o/")
    assert result.exit_code == 0, result.stderr
    assert sorted(run_names(result.stderr)) == [
        "a.avi.restored.mp4", "a.mp4.restored.mp4", "b.restored.mp4",
    ]  # fmt: skip


def run_names(stderr):
    return [line.split("-> ")[1].split(" ")[0].split("/")[-1] for line in stderr.splitlines()
            if "-> " in line]  # fmt: skip


def test_what_was_made_is_no_input(tmp_path):
    make_clip(tmp_path / "a.mp4", width=48, height=32, num_frames=4)
    assert run("restore", tmp_path, *TASK).exit_code == 0
    again = run("restore", tmp_path, *TASK, "--json")
    assert [row["outcome"] for row in json.loads(again.stdout)] == ["skipped"]


@pytest.mark.parametrize("folder", [[], ["-o", "out/"]])
def test_a_pattern_given_again_restores_no_restoration(tmp_path, monkeypatch, folder):
    """`restore *.mp4` found its own outputs: beside the inputs that was an error, with `-o` they were
    restored once more."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "b.mp4"):
        make_clip(tmp_path / name, width=48, height=32, num_frames=2)
    assert run("restore", "a.mp4", *TASK).exit_code == 0
    again = run("restore", "a.mp4", "a.restored.mp4", "b.mp4", *TASK, *folder, "--json")
    assert again.exit_code == 0, again.stderr
    assert [row["input"] for row in json.loads(again.stdout)] == ["a.mp4", "b.mp4"]
    assert "made of other inputs: `a.restored.mp4`" in again.stderr
    alone = run("restore", "a.restored.mp4", *TASK, "--dry-run")
    assert "a.restored.restored.mp4" in alone.stderr


def test_what_was_made_with_other_settings_is_told_and_stays(tapes, tmp_path):
    out = ["-o", f"{tmp_path}/out/"]
    (tapes / "a.avi").unlink()
    assert run("restore", tapes, *TASK, *out).exit_code == 0
    made = (tmp_path / "out" / "b.restored.mp4").read_bytes()
    same = run("restore", tapes, *TASK, *out)
    assert "warning" not in same.stderr
    other = run("restore", tapes, "--task", "denoise", "--noise", "12", *out, "--json")
    assert other.exit_code == 0
    (row,) = json.loads(other.stdout)
    assert row["outcome"] == "skipped"
    assert "is there already" in row["skipped_because"]
    if noted(tmp_path / "out" / "b.restored.mp4"):
        assert "warning:" in other.stderr
        assert "it was made otherwise (" in other.stderr
        assert "the noise was" in other.stderr
        assert row["is_stale"]
        assert row["made_otherwise"] == ["the noise was 3.0, now 12.0"]  # it was on stderr alone
        assert "`--overwrite` makes it anew" in other.stderr
        assert "skipped, there already (1 of other inputs or settings)" in other.stderr
    assert (tmp_path / "out" / "b.restored.mp4").read_bytes() == made


def noted(path):
    """Whether the file system of the tests has a place for notes."""
    return hasattr(os, "listxattr") and "user.instantvir.asked" in os.listxattr(path)


def test_jobs_side_by_side_make_the_same_files(tapes, tmp_path):
    one = run("restore", tapes, "--recursive", *TASK, "-o", f"{tmp_path}/one/", "--threads", "1")
    two = run("restore", tapes, "--recursive", *TASK, "-o", f"{tmp_path}/two/", "--json",
              "--jobs", "2", "--threads", "2")  # fmt: skip
    assert one.exit_code == two.exit_code == ExitStatus.BAD_INPUT
    assert sorted(row["status"] for row in json.loads(two.stdout)) == [0, 0, 3]
    for name in ("b.restored.mp4", "more/c.restored.mkv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    # lines of workers are shown by the process that owns the terminal, where they cannot mix
    assert said_of(two.stderr, "b.mp4") == said_of(one.stderr, "b.mp4") != []


def said_of(stderr, name):
    return [line.replace("/two/", "/one/") for line in stderr.splitlines() if f"/{name} (" in line]


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_video(tapes, tmp_path):
    (tapes / "a.avi").unlink()
    make_clip(tapes / "b.mp4", width=48, height=32, num_frames=4000)
    for name in ("d.mp4", "e.mp4"):
        make_clip(tapes / name, width=48, height=32, num_frames=4)
    out = tmp_path / "out"
    command = [*COMMAND, "restore", str(tapes), *TASK, "-o", f"{out}/", "--json", "--jobs", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        lock = out / ".b.restored.mp4.instantvir" / "lock"
        wait_for(lambda: lock.exists() and lock.read_text(), "the long one to begin")
        os.kill(int(lock.read_text().split()[0]), signal.SIGKILL)
        rows = json.loads(process.stdout.read())
    assert process.returncode == ExitStatus.FAILURE
    by_name = {row["input"].rpartition("/")[2]: row for row in rows}
    assert {name: row["status"] for name, row in by_name.items()} == {
        "b.mp4": 1, "d.mp4": 0, "e.mp4": 0,
    }  # fmt: skip
    assert "died (signal 9)" in by_name["b.mp4"]["error"]
