"""The rule of names as a property: prefixes x links x what is there x leave x verb."""

import os
from itertools import product
from pathlib import Path

import pytest
from typer.testing import CliRunner

from instantvir_cli.app import app
from instantvir_cli.exit_status import ExitStatus
from instantvir_models.media import open_video
from instantvir_models.outputs import claim as claims
from instantvir_models.outputs.claim import claim
from tests.media_clips import make_clip, make_images

VERBS = {
    "restore": ["--solver", "wiener", "--operator", "blur:sigma=1+noise:std=2"],
    "degrade": ["--operator", "blur:sigma=1+noise:std=2"],
    "stream": ["--solver", "wiener", "--operator", "identity+noise:std=3", "--threads", "1"],
}
PREFIXES = {"": "{}", "file:": "file:{}", "FILE:": "FILE:{}", "dots": "./../{folder}/{}"}
THE_INPUT = ("input", "link to input", "hard link to input", "input through a linked folder")
ANOTHER = ("another file", "link to another", "link to nothing")
STATES = (*THE_INPUT, *ANOTHER, "nothing")


def name_in(folder, state):
    """A name relative to `folder` that stands for that."""
    if state == "input":
        return "in.mkv"
    if state == "link to input":
        (folder / "out.mkv").symlink_to("in.mkv")
    elif state == "hard link to input":
        os.link(folder / "in.mkv", folder / "out.mkv")
    elif state == "input through a linked folder":
        (folder / "also").symlink_to(".")
        return "also/in.mkv"
    elif state == "another file":
        (folder / "out.mkv").write_bytes(b"precious")
    elif state == "link to another":
        (folder / "other").write_bytes(b"precious")
        (folder / "out.mkv").symlink_to("other")
    elif state == "link to nothing":
        (folder / "out.mkv").symlink_to("missing")
    return "out.mkv"


def check(folder, clip, verb, prefix, state, may_replace):
    """What the rule says of one case."""
    case = (verb, prefix, state, may_replace)
    (folder / "in.mkv").write_bytes(clip)
    name = name_in(folder, state)
    typed = PREFIXES[prefix].format(name, folder=folder.name)
    there = sorted(os.listdir(folder))
    leave = ["--overwrite"] if may_replace else []
    result = CliRunner().invoke(app, [verb, "in.mkv", "-o", typed, *VERBS[verb], *leave])
    assert (folder / "in.mkv").read_bytes() == clip, case
    may = state == "nothing" or (may_replace and state in ANOTHER)
    if not may:
        assert result.exit_code == ExitStatus.USAGE, (case, result.stderr)
        assert "is the input itself" in result.stderr or "exists already" in result.stderr, case
        assert sorted(os.listdir(folder)) == there, case
        if state == "another file":
            assert (folder / "out.mkv").read_bytes() == b"precious", case
        return
    assert result.exit_code == 0, (case, result.stderr)
    assert not (folder / "out.mkv").is_symlink(), case
    with open_video(folder / "out.mkv") as reader:
        assert len(list(reader)) == 2, case
    if state == "link to another":
        assert (folder / "other").read_bytes() == b"precious", case
    note = {"out.mkv.operator.json"} if verb == "degrade" else set()
    assert set(os.listdir(folder)) == {*there, "out.mkv", *note}, case


CASES = list(product(VERBS, PREFIXES, STATES, (False, True)))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = make_clip(tmp_path_factory.mktemp("clip") / "in.mkv", num_frames=2, width=24, height=24)
    return path.read_bytes()


def check_all(tmp_path, monkeypatch, clip, cases):
    for index, case in enumerate(cases):
        folder = tmp_path / str(index)
        folder.mkdir()
        monkeypatch.chdir(folder)
        check(folder, clip, *case)


def test_some_names_of_each_kind(tmp_path, monkeypatch, clip):
    check_all(tmp_path, monkeypatch, clip, CASES[::7])


@pytest.mark.slow
def test_all_names(tmp_path, monkeypatch, clip):
    check_all(tmp_path, monkeypatch, clip, CASES)


@pytest.mark.parametrize("verb", ["restore", "degrade"])
def test_pictures_are_not_replaced_without_leave(tmp_path, monkeypatch, verb):
    monkeypatch.chdir(tmp_path)
    make_images(tmp_path, 2)
    (tmp_path / "out_00002.png").write_bytes(b"precious")
    command = [verb, "frame_%05d.png", "-o", "out_%05d.png", *VERBS[verb]]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == ExitStatus.USAGE
    assert "exist already, the first is `out_00002.png`" in " ".join(result.stderr.split())
    assert (tmp_path / "out_00002.png").read_bytes() == b"precious"
    result = CliRunner().invoke(app, [*command, "--overwrite"])
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "out_00002.png").read_bytes() != b"precious"


def test_pictures_are_not_written_over_those_that_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = [path.read_bytes() for path in make_images(tmp_path, 2)]
    result = CliRunner().invoke(
        app,
        ["restore", "frame_*.png", "-o", "frame_%05d.png", "--overwrite", *VERBS["restore"]],
    )
    assert result.exit_code == ExitStatus.USAGE
    assert "would replace the input" in result.stderr
    assert [path.read_bytes() for path in sorted(tmp_path.glob("*.png"))] == before


@pytest.mark.parametrize("name", ["y.mkv.operator.json", "y.mkv.mask.png"])
def test_a_note_or_mask_that_is_there_is_not_replaced_without_leave(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    make_clip("in.mkv", num_frames=2)
    Path(name).write_text("precious")
    command = ["degrade", "in.mkv", "-o", "y.mkv", "--operator", "mask:keep=0.5"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == ExitStatus.USAGE
    assert f"`{name}` exists already" in result.stderr
    assert sorted(os.listdir()) == sorted(["in.mkv", name])
    assert CliRunner().invoke(app, [*command, "--overwrite"]).exit_code == 0


@pytest.mark.parametrize("option", ["--mask", "--reference"])
def test_nothing_that_is_read_is_replaced(tmp_path, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    make_clip("in.mkv", num_frames=2)
    other = make_clip("other.mkv", num_frames=2)
    before = other.read_bytes()
    result = CliRunner().invoke(
        app,
        ["restore", "in.mkv", "-o", "other.mkv", option, "other.mkv", "--overwrite", "--task",
         "inpaint" if option == "--mask" else "denoise"],
    )  # fmt: skip
    assert result.exit_code == ExitStatus.USAGE
    assert "is the input itself" in result.stderr
    assert other.read_bytes() == before


def test_a_picture_of_what_was_found_is_not_replaced_without_leave(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_clip("in.mkv", num_frames=2)
    Path("found.png").write_text("precious")
    result = CliRunner().invoke(app, ["restore", "in.mkv", "--dry-run", "--picture", "found.png"])
    assert result.exit_code == ExitStatus.USAGE
    assert Path("found.png").read_text() == "precious"


def test_pieces_of_a_playlist_are_not_replaced_without_leave(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_clip("in.mkv", num_frames=2)
    Path("live0.ts").write_text("precious")
    result = CliRunner().invoke(app, ["stream", "in.mkv", "-o", "live.m3u8", *VERBS["stream"]])
    assert result.exit_code == ExitStatus.USAGE
    assert "`live0.ts` exists already" in result.stderr
    assert Path("live0.ts").read_text() == "precious"


def test_pieces_of_a_playlist_are_not_written_through_links(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_clip("in.mkv", num_frames=2)
    Path("victim").write_bytes(b"precious")
    Path("live0.ts").symlink_to("victim")
    command = ["stream", "in.mkv", "-o", "live.m3u8", "--overwrite", *VERBS["stream"]]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.stderr
    assert Path("victim").read_bytes() == b"precious"
    assert Path("live0.ts").stat().st_size > 0


def test_a_playlist_comes_with_its_pieces(tmp_path, monkeypatch):
    """Of a restored file they were left under hidden names."""
    monkeypatch.chdir(tmp_path)
    make_clip("in.mkv", num_frames=2)
    for verb in ("restore", "stream"):
        result = CliRunner().invoke(app, [verb, "in.mkv", "-o", f"{verb}.m3u8", *VERBS[verb]])
        assert result.exit_code == 0, result.stderr
        assert Path(f"{verb}0.ts").stat().st_size > 0
        assert f"{verb}0.ts" in Path(f"{verb}.m3u8").read_text()
    assert not [name for name in os.listdir() if name.startswith(".")]


def test_a_measurement_that_changed_is_not_restored_by_its_note(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_clip("in.mkv", num_frames=2)
    operator = ["--operator", "blur:sigma=1+noise:std=2"]
    made = CliRunner().invoke(app, ["degrade", "in.mkv", "-o", "y.mkv", *operator])
    assert made.exit_code == 0, made.stderr
    data = bytearray(Path("y.mkv").read_bytes())
    data[len(data) // 2] ^= 1
    Path("y.mkv").write_bytes(data)
    result = CliRunner().invoke(app, ["restore", "y.mkv", "-o", "x.mkv", "--solver", "wiener"])
    assert result.exit_code == ExitStatus.USAGE
    assert "is the note of another file" in result.stderr
    assert not Path("x.mkv").exists()
    result = CliRunner().invoke(
        app, ["restore", "y.mkv", "-o", "x.mkv", "--solver", "wiener", *operator]
    )
    assert result.exit_code in (0, ExitStatus.PARTIAL), result.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_a_name_that_another_run_writes_is_refused(tmp_path, monkeypatch, verb):
    monkeypatch.chdir(tmp_path)
    make_clip("in.mkv", num_frames=2)
    with claim(Path("out.mkv")):
        result = CliRunner().invoke(app, [verb, "in.mkv", "-o", "out.mkv", *VERBS[verb]])
    assert result.exit_code == ExitStatus.USAGE, result.stderr
    assert "is being written by another run" in result.stderr
    assert os.listdir() == ["in.mkv"]


@pytest.mark.parametrize("verb", ["restore", "degrade"])
def test_a_file_that_appeared_meanwhile_survives(tmp_path, monkeypatch, verb):
    """And what was made is not lost."""
    monkeypatch.chdir(tmp_path)
    make_clip("in.mkv", num_frames=2)
    place = claims.Claim.place

    def late(held, made=()):
        Path("out.mkv").write_bytes(b"precious")
        place(held, made)

    monkeypatch.setattr(claims.Claim, "place", late)
    result = CliRunner().invoke(app, [verb, "in.mkv", "-o", "out.mkv", *VERBS[verb]])
    assert result.exit_code == ExitStatus.BAD_OUTPUT, result.stderr
    assert "appeared while this ran" in result.stderr
    assert Path("out.mkv").read_bytes() == b"precious"
    kept = [path for path in Path().rglob("*.mkv") if path.name not in ("in.mkv",)]
    assert any(path.read_bytes() != b"precious" for path in kept)


STREAM = ["stream", "in.mkv", "-o", "out.mkv", *VERBS["stream"]]
PAGES = {
    "stream": STREAM,
    "benchmark": ["benchmark", "in.mkv"],
    "suite": ["benchmark", "--suite", "paper", "-o", "suite"],
}


@pytest.mark.parametrize("verb", PAGES)
def test_a_page_that_is_there_is_not_replaced_without_leave(tmp_path, monkeypatch, verb):
    """Those of streams and benchmarks replaced whatever had their name, at the end."""
    monkeypatch.chdir(tmp_path)
    make_clip("in.mkv", num_frames=2)
    Path("page.html").write_text("precious")
    result = CliRunner().invoke(app, [*PAGES[verb], "--report", "page.html"])
    assert result.exit_code == ExitStatus.USAGE
    assert "`page.html` exists already" in result.stderr
    assert Path("page.html").read_text() == "precious"
    assert sorted(os.listdir()) == ["in.mkv", "page.html"]


@pytest.mark.parametrize("option", ["--uncertainty", "--report"])
def test_the_mask_that_is_read_is_not_written_over(tmp_path, monkeypatch, option):
    """A video of errors with `--overwrite` went over the mask."""
    monkeypatch.chdir(tmp_path)
    make_clip("in.mkv", num_frames=2)
    name = "mask.html" if option == "--report" else "mask.mkv"
    before = make_clip("mask.mkv", num_frames=2).read_bytes()
    if name != "mask.mkv":
        Path(name).symlink_to("mask.mkv")
    words = ["restore", "in.mkv", "--task", "inpaint", "--mask", "mask.mkv", "--overwrite"]
    result = CliRunner().invoke(app, [*words, option, name])
    assert result.exit_code == ExitStatus.USAGE, result.stderr
    assert "is the input itself" in result.stderr
    assert Path("mask.mkv").read_bytes() == before


def test_the_page_of_a_stream_is_replaced_with_leave(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_clip("in.mkv", num_frames=2)
    Path("page.html").write_text("old")
    result = CliRunner().invoke(app, [*STREAM, "--report", "page.html", "--overwrite"])
    assert result.exit_code == 0, result.stderr
    assert Path("page.html").read_text().startswith("<!doctype html>")


def test_lines_of_a_stream_are_not_added_to_what_it_reads(tmp_path, monkeypatch):
    """They went behind the last picture of the original."""
    monkeypatch.chdir(tmp_path)
    before = make_clip("in.mkv", num_frames=2).read_bytes()
    Path("link.jsonl").symlink_to("in.mkv")
    result = CliRunner().invoke(app, [*STREAM, "--json-lines", "link.jsonl"])
    assert result.exit_code == ExitStatus.USAGE
    assert "is the input itself" in result.stderr
    assert Path("in.mkv").read_bytes() == before
