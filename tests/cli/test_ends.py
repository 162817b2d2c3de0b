"""What is closed, missing, full or forbidden around the command: a sentence and a status, and a video
that was complete is safe."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from instantvir_cli.exit_status import ExitStatus
from instantvir_cli.shortage import shortage_behind
from instantvir_models.media import open_video
from tests.media_clips import make_clip

ROOT = Path(__file__).parents[2]
COMMAND = f"{sys.executable} -c 'from instantvir_cli.app import app; app()'"
RESTORE = (
    "restore in.mp4 -o out.mkv --solver wiener --operator blur:sigma=1+noise:std=2 --threads 1"
)


def shell(line, folder, **environment):
    """What came of a line of shell, where `instantvir` is the command."""
    paths = os.pathsep.join(str(ROOT / name) for name in (".", "kernels", "models", "distill"))
    return subprocess.run(
        ["bash", "-c", line.replace("instantvir", COMMAND, 1)],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    make_clip(tmp_path / "in.mp4", num_frames=3, width=64, height=64)
    return tmp_path


def is_whole(folder):
    with open_video(folder / "out.mkv") as reader:
        return len(list(reader)) == 3 and reader.damage.message is None


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "memory that this process may have is used up"),
        (ImportError("libtorch.so: failed to map segment from shared object"), "memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 TB"), "memory"),
        (OSError(errno.EMFILE, "Too many open files"), "too many files are open"),
        (RuntimeError("can't start new thread"), "starts no more threads"),
        (FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"), "temporary"),
    ],
)
def test_what_is_short_is_named(error, words):
    assert words in shortage_behind(error)[0]


def test_a_bug_is_no_shortage():
    assert shortage_behind(RuntimeError("shapes differ")) is None
    assert shortage_behind(OSError(errno.ENOENT, "No such file")) is None


def test_with_all_three_streams_closed_no_message_goes_into_the_video(folder):
    """The next file that is opened would get the number of standard error, and be written to by
    everything that complains."""
    ended = shell(f"instantvir {RESTORE} --codec hevc <&- >&- 2>&-", folder)
    assert ended.returncode == 0
    assert is_whole(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "status", "sentence"),
    [
        (f"instantvir {RESTORE} --json >&-", ExitStatus.BAD_OUTPUT, "standard output is closed"),
        (f"instantvir {RESTORE} --json >/dev/full", ExitStatus.BAD_OUTPUT, "no space is left"),
        (f"set -o pipefail; instantvir {RESTORE} --json | true", ExitStatus.BAD_OUTPUT,
         "the program that reads it has stopped"),
        (f"instantvir {RESTORE} 2>/dev/full", 0, ""),
        (f"set -o pipefail; instantvir {RESTORE} 2> >(exit)", 0, ""),
        (f"env -u HOME instantvir {RESTORE}", 0, ""),
        (f"HOME=/nonexistent XDG_CACHE_HOME=/proc/nowhere instantvir {RESTORE}", 0, ""),
        (f"LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 instantvir {RESTORE} --json", 0, ""),
        (f"ulimit -n 9; instantvir {RESTORE}", 0, ""),
    ],
)  # fmt: skip
def test_after_the_video_is_safe(folder, line, status, sentence):
    ended = shell(line, folder)
    assert ended.returncode == status, ended.stderr
    assert sentence in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr
    assert is_whole(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "status", "sentence"),
    [
        ("instantvir restore - -o out.mkv --task denoise --noise 2 <&-", ExitStatus.BAD_INPUT,
         "standard input is closed"),
        ("instantvir restore in.mp4 -o - --format nut --task denoise --noise 2 >&-",
         ExitStatus.BAD_OUTPUT, "standard output is closed"),
        (f"ulimit -v 900000; instantvir {RESTORE}", ExitStatus.FAILURE, "ulimit -v"),
    ],
)  # fmt: skip
def test_where_nothing_can_be_done_it_is_said(folder, line, status, sentence):
    ended = shell(line, folder)
    assert ended.returncode == status, ended.stderr
    assert sentence in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr
    assert os.listdir(folder) == ["in.mp4"]


@pytest.mark.slow
def test_a_name_that_no_text_can_hold(folder):
    name = os.fsdecode(b"caf\xe9.mkv")
    os.rename(folder / "in.mp4", folder / name)
    line = RESTORE.replace("in.mp4", "$'caf\\xe9.mkv'")
    ended = shell(f"instantvir {line} --json", folder, LC_ALL="C", PYTHONUTF8="0")
    assert ended.returncode == 0, ended.stderr
    assert is_whole(folder)
