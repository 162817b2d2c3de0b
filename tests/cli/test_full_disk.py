"""A disk that fills at the first byte, in the middle, or at the last byte of each file that is written:
a sentence and a status, no half file under a name, and what was complete before stays."""

import os
import shutil

import pytest
import torch

from instantvir_cli.exit_status import ExitStatus
from instantvir_models.checkpoints.load import save_student
from instantvir_models.media import open_video
from tests.live_tools import small_student
from tests.media_clips import make_clip
from tests.wan_small import small_autoencoder
from tests.warm import Warm

WIENER = ["--solver", "wiener", "--operator", "blur:sigma=1+noise:std=2"]
DEGRADE = ["degrade", "in.mp4", "-o", "y.mkv", "--operator", "mask:keep=0.5"]
COMMANDS = {
    "restore": ["restore", "in.mp4", "-o", "out.mkv", *WIENER],
    "restore to MP4": ["restore", "in.mp4", "-o", "out.mp4", *WIENER],
    "compare": ["restore", "in.mp4", "-o", "out.mkv", "--compare", *WIENER],
    "pictures": ["restore", "in.mp4", "-o", "out_%05d.png", *WIENER],
    "copy": ["restore", "in.mp4", "-o", "out.mp4"],
    "degrade": DEGRADE,
    "stream": ["stream", "in.mp4", "-o", "out.mkv", "--operator", "identity+noise:std=3",
               "--solver", "wiener", "--threads", "1"],
    "convert": ["convert", "lean.ckpt", "-o", "out"],
    "report": ["restore", "in.mp4", "-o", "out.mkv", *WIENER, "--report", "page.html"],
    "masks": ["degrade", "in.mp4", "-o", "y.mkv", "--operator", "mask:keep=0.5,per_frame=1"],
    "playlist": ["restore", "in.mp4", "-o", "out.m3u8", *WIENER],
    "prompt": ["convert", "--prompt", "", "-o", "rows.safetensors"],
    "export": ["export", "tiny.safetensors", "-o", "out"],
    "found": ["restore", "in.mp4", "--dry-run", "--picture", "found.png"],
}  # fmt: skip
LARGEST = {  # the largest file of each, which a limit on all files meets first
    "restore": "out.mkv", "restore to MP4": "out.mp4", "degrade": "y.mkv",
    "convert": "out/autoencoder.safetensors", "copy": "out.mp4",
    "playlist": "out0.ts", "prompt": "rows.safetensors", "export": "out/student.safetensors",
}  # fmt: skip
BY_PYTHON = [  # what a file that Python writes is called, and by which command
    ("compare", "out.compare.png"), ("pictures", "out_00003.png"), ("degrade", "operator.json"),
    ("degrade", "mask.png"), ("convert", "config.json"), ("convert", "README.md"),
    ("found", "found.png"), ("report", "page.html"), ("masks", "mask.npz"),
    ("export", "config.json"), ("export", "README.md"),
]  # fmt: skip
PLACES = ("first", "middle", "last")


@pytest.fixture(scope="module")
def warm():
    with Warm() as process:
        yield process


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("material")
    make_clip(folder / "in.mp4", num_frames=6, audio=True)
    torch.save(small_autoencoder("lean").state_dict(), folder / "lean.ckpt")
    save_student(small_student(), folder / "tiny.safetensors")
    return folder


@pytest.fixture(scope="module")
def sizes(warm, material, tmp_path_factory):
    """Bytes of each file that each command writes."""
    found = {}

    def sizes_of(name):
        if name not in found:
            folder = tmp_path_factory.mktemp("whole") / "work"
            shutil.copytree(material, folder)
            ended = warm.run(*COMMANDS[name], folder=folder)
            assert ended.status == 0, ended.stderr
            found[name] = {str(p.relative_to(folder)): p.stat().st_size for p in files(folder)}
        return found[name]

    return sizes_of


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def at(place, size):
    """How many bytes there is room for."""
    return {"first": 0, "middle": size // 2, "last": size - 1}[place]


def check(warm, folder, material, name, allowed=(), **limits):
    shutil.copytree(material, folder)
    given = {path.name for path in files(folder)}
    ended = warm.run(*COMMANDS[name], folder=folder, **limits)
    assert ended.status == ExitStatus.BAD_OUTPUT, (name, limits, ended.stderr)
    assert "Traceback" not in ended.stderr
    words = " ".join(ended.stderr.split())
    assert "no space is left" in words or "File too large" in words or "No space left" in words
    assert "error:" in words
    left = {str(path.relative_to(folder)) for path in files(folder)} - given
    assert left <= set(allowed), (name, limits)
    assert not [entry for entry in os.listdir(folder) if entry.startswith(".")]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", LARGEST)
def test_what_libraries_write(warm, tmp_path, material, sizes, name, place):
    size = sizes(name)[LARGEST[name]]
    room = max(
        at(place, size), 100 if name in ("convert", "export") else 0
    )  # Python tries its temporary folder
    check(warm, tmp_path / "work", material, name, most_bytes=room)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("name", "part"), BY_PYTHON)
def test_what_we_write(warm, tmp_path, material, sizes, name, part, place):
    written = sizes(name)
    path = next(path for path in written if path.endswith(part))
    # the video was complete, and is safe, when its comparison is not
    allowed = {"out.mkv", "out.compare.mp4"} if name in ("compare", "report") else ()
    size = written[path] - (500 if part == "page.html" else 0)  # it holds times, of any length
    check(warm, tmp_path / "work", material, name, allowed, full=(part, at(place, size)))


@pytest.mark.parametrize("place", PLACES)
def test_a_stream_keeps_what_it_could_write(warm, tmp_path, material, sizes, place):
    """It grows under its own name, and says that it could not go on."""
    folder = tmp_path / "work"
    shutil.copytree(material, folder)
    room = at(place, sizes("stream")["out.mkv"])
    ended = warm.run(*COMMANDS["stream"], folder=folder, most_bytes=room)
    assert ended.status == ExitStatus.BAD_OUTPUT, ended.stderr
    assert not [entry for entry in os.listdir(folder) if entry.startswith(".")]


@pytest.mark.parametrize("room", [0, 100])
@pytest.mark.parametrize("verb", ["restore", "info"])
def test_a_summary_that_cannot_be_said_is_an_error(warm, tmp_path, material, verb, room):
    folder = tmp_path / "work"
    shutil.copytree(material, folder)
    command = [*COMMANDS["restore"], "--json"] if verb == "restore" else ["info", "tiny", "--json"]
    ended = warm.run(*command, folder=folder, output_room=room)
    assert ended.status == ExitStatus.BAD_OUTPUT, ended.stderr
    assert "standard output cannot take" in ended.stderr
    assert (folder / "out.mkv").exists() == (verb == "restore"), "the video is safe"


KEPT = [  # what a run of three pieces keeps to go on from, and frames that are safe when it is full
    ("journal.unfinished", 0), ("00000.unfinished", 0), ("00000.h264", 0), ("00000.times", 0),
    ("00001.unfinished", 2), ("00001.h264", 2), ("00002.times", 4), ("00002.unfinished", 4),
]  # fmt: skip


@pytest.mark.parametrize(
    "room", [pytest.param(0, marks=pytest.mark.slow), 30, pytest.param(60, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("part", "frames_kept"), KEPT)
def test_what_a_run_keeps_to_go_on_from(warm, tmp_path, material, part, frames_kept, room):
    """The same command then goes on, and leaves nothing."""
    folder = tmp_path / "work"
    shutil.copytree(material, folder)
    ended = warm.run(*COMMANDS["restore"], folder=folder, segment=2, full=(part, room))
    assert ended.status == ExitStatus.BAD_OUTPUT, ended.stderr
    assert "no space is left" in ended.stderr
    assert (f"the first {frames_kept} frames" in ended.stderr) == (frames_kept > 0)
    hidden = [entry for entry in os.listdir(folder) if entry.startswith(".")]
    assert len(hidden) == (frames_kept > 0)
    ended = warm.run(*COMMANDS["restore"], folder=folder, segment=2)
    assert ended.status == 0, ended.stderr
    assert {path.name for path in files(folder)} - {path.name for path in files(material)} == {
        "out.mkv"
    }
    with open_video(folder / "out.mkv") as reader:
        assert len(list(reader)) == 6


def test_lines_of_a_stream_that_cannot_be_kept_are_an_error(warm, tmp_path, material):
    folder = tmp_path / "work"
    shutil.copytree(material, folder)
    command = [*COMMANDS["stream"], "--json-lines", "lines.jsonl"]
    ended = warm.run(*command, folder=folder, full=("lines.jsonl", 10))
    assert ended.status == ExitStatus.BAD_OUTPUT, ended.stderr
    assert "the JSON lines are not complete" in ended.stderr
    assert "Traceback" not in ended.stderr
    with open_video(folder / "out.mkv") as reader:
        assert len(list(reader)) == 6
