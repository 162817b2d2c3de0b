"""The face: what is public, what importing it costs, and that a call does what the command does."""

import ast
import json
import subprocess
import sys
from dataclasses import asdict, fields
from importlib import import_module
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import instantvir
from instantvir_cli.app import app
from instantvir_cli.options import (
    BatchOptions,
    ComparisonOptions,
    DegradationOptions,
    EncodingOptions,
    FieldOptions,
    FileDegradationOptions,
    LiveEncodingOptions,
    LiveSourceOptions,
    ModelOptions,
    SourceOptions,
)
from tests.media_clips import make_clip

HEAVY = {"torch", "av", "cv2", "numpy", "triton", "huggingface_hub", "safetensors"}


@pytest.fixture
def clips(tmp_path):
    """A clean clip and its measurement."""
    clean, measured = tmp_path / "clean.mkv", tmp_path / "measured.mkv"
    make_clip(clean, width=48, height=32, num_frames=7, codec="ffv1", pix_fmt="bgr0")
    spec = "blur:sigma=2+noise:std=2"
    instantvir.degrade(clean, measured, operator=spec).note.unlink()
    return clean, measured


def test_everything_public_is_there_and_sorted():
    assert instantvir.__all__ == sorted(set(instantvir.__all__))
    assert dir(instantvir) == instantvir.__all__
    for name in instantvir.__all__:
        assert getattr(instantvir, name).__doc__, name


def test_type_checkers_see_exactly_what_is_public():
    tree = ast.parse(Path(instantvir.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname: (node.module, alias.name) for node in block.body for alias in node.names}
    assert sorted(seen) == instantvir.__all__
    for name, (module, original) in seen.items():
        assert getattr(import_module(module), original) is getattr(instantvir, name)


def test_what_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute `VideoReeder`"):
        instantvir.VideoReeder  # noqa: B018


@pytest.mark.parametrize("use", ["", "; instantvir.UsageError; dir(instantvir)"])
def test_importing_it_loads_nothing_heavy(use):
    code = f"import sys, instantvir{use}; sys.exit(', '.join({HEAVY!r} & set(sys.modules)) or 0)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(instantvir.__file__).parents[1],  # found there, installed or not
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def options_of(*groups):
    return {field.name for group in groups for field in fields(group)}


def test_restoring_takes_what_the_command_takes():
    """One vocabulary: the options of `restore`, but for what only a terminal has."""
    options = options_of(
        FileDegradationOptions,
        ModelOptions,
        FieldOptions,
        EncodingOptions,
        ComparisonOptions,
        BatchOptions,
    )
    ours = set(signature(instantvir.restore).parameters)
    # and what makes several files of one input or many: a call writes one
    assert options - ours == {"threads", "compare", "recursive", "jobs", "next_file"}
    assert ours - options == {"source", "destination", "overwrite", "on_progress"}


def test_degrading_takes_what_the_command_takes():
    ours = set(signature(instantvir.degrade).parameters)
    options = options_of(SourceOptions, EncodingOptions)
    assert options < ours
    assert ours - options == {"source", "destination", "operator", "seed", "overwrite"}


def test_streaming_takes_what_the_command_takes():
    options = options_of(DegradationOptions, ModelOptions, LiveSourceOptions, LiveEncodingOptions)
    ours = set(signature(instantvir.stream).parameters)
    assert options - ours == {"threads", "input_option"}
    assert ours - options == {
        "source", "outputs", "overwrite", "input_options", "on_pair", "on_event",
    }  # fmt: skip


def test_a_call_reports_what_the_command_prints(clips, tmp_path):
    clean, measured = clips
    torch.set_num_threads(1)  # as the command below: sums of more threads round otherwise
    report = instantvir.restore(
        measured, tmp_path / "call.mkv", task="deblur", blur_sigma=2, codec="ffv1", reference=clean
    )
    args = ["restore", measured, "-o", tmp_path / "command.mkv", "--task", "deblur"]
    args += ["--blur-sigma", 2, "--codec", "ffv1", "--reference", clean, "--json", "--threads", 1]
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == 0, result.stderr
    ours, printed = json.loads(json.dumps(asdict(report))), json.loads(result.stdout)
    assert printed.keys() == ours.keys()
    told_apart = {"output", "fps", "wall_seconds", "stage_seconds"}
    for name in ours.keys() - told_apart:
        assert ours[name] == printed[name], name
    assert f"gain {report.gain:+.2f} dB" in result.stderr
    for one, other in zip(
        *(frames_of(tmp_path / f"{n}.mkv") for n in ("call", "command")), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def frames_of(path):
    with instantvir.open_video(path) as video:
        return [frame.pixels for frame in video]


def test_progress_is_told_after_every_frame(clips, tmp_path, capfd):
    seen = []
    report = instantvir.restore(
        clips[1], tmp_path / "o.mkv", task=["denoise"], noise=2, on_progress=seen.append
    )
    assert [progress.frames for progress in seen] == list(range(1, 8))
    assert {progress.total_frames for progress in seen} == {7}
    assert report.frames == 7
    assert capfd.readouterr().out == ""  # a library says nothing


def test_a_stream_is_a_call_and_equals_the_file(clips, tmp_path):
    pairs = []
    options = {"operator": "blur:sigma=2+noise:std=2", "codec": "ffv1"}
    status = instantvir.stream(
        str(clips[1]), tmp_path / "live.mkv", **options,
        on_pair=lambda measured, restored: pairs.append(restored.pixels),
    )  # fmt: skip
    instantvir.restore(clips[1], tmp_path / "file.mkv", **options)
    assert (status.frames_in, status.frames_out, status.frames_dropped) == (7, 7, 0)
    expected = frames_of(tmp_path / "file.mkv")
    np.testing.assert_array_equal(frames_of(tmp_path / "live.mkv"), expected)
    np.testing.assert_array_equal(pairs, expected)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"fps": -1}, "`--fps` is -1"),
        ({"on_overload": "panic"}, "`--on-overload` is `panic`"),
        ({"outputs": ["a.mkv", "a.mkv"]}, "given twice"),
        ({"latency": 9}, "blocks of 9 frames"),
        ({"solver": "nlmeans_over_time"}, "has to see the whole clip"),
    ],
)
def test_mistakes_of_a_stream_are_told_before_it_begins(
    clips, tmp_path, monkeypatch, change, sentence
):
    monkeypatch.chdir(tmp_path)
    call = {"outputs": "o.mkv", "task": "denoise"} | change
    with pytest.raises(instantvir.UsageError, match=sentence):
        instantvir.stream(str(clips[1]), call.pop("outputs"), **call)
    assert not (tmp_path / "o.mkv").exists()


def test_who_raises_in_progress_ends_the_run_and_finds_no_file(clips, tmp_path):
    def enough(progress):
        if progress.frames == 2:
            raise StopIteration("enough")

    before = sorted(tmp_path.iterdir())
    with pytest.raises(StopIteration, match="enough"):
        instantvir.restore(
            clips[1], tmp_path / "o.mkv", task="denoise", noise=2, on_progress=enough
        )
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"task": "deblurr"}, "UsageError", "no task called `deblurr`"),
        ({"noise": 999}, "UsageError", "`--noise` is 999"),
        ({"tile": 100}, "UsageError", "a multiple of 64"),
        ({"compare_style": "upside"}, "UsageError", "`side` or `wipe`"),
        ({"source": "nowhere.mkv"}, "VideoOpenError", "nowhere.mkv"),
        ({"model": "huge"}, "CheckpointError", "no model called `huge`"),
        ({"solver": "magic"}, "UsageError", "magic"),
        ({"solver": "map", "model": "wan"}, "UsageError", "in the place of `--model wan`"),
        ({"solver": "map", "prompt": "a cat"}, "UsageError", "reads no `--prompt`"),
        ({"destination": "no/such/o.mkv"}, "VideoWriteError", "no/such"),
        ({"source": "*.mkv", "destination": "out/"}, "UsageError", "are 2 videos"),
    ],
)
def test_mistakes_are_errors_with_a_sentence(clips, tmp_path, monkeypatch, change, error, sentence):
    monkeypatch.chdir(tmp_path)
    call = {"source": clips[1], "destination": "o.mkv", "task": "denoise"} | change
    with pytest.raises(getattr(instantvir, error), match=sentence.replace("*", r"\*")):
        instantvir.restore(call.pop("source"), call.pop("destination"), **call)
    assert not list(tmp_path.glob("o.*"))


def test_what_is_there_is_not_replaced_unless_asked(clips, tmp_path):
    target = tmp_path / "o.mkv"
    target.write_text("precious")
    with pytest.raises(instantvir.UsageError, match="exists already"):
        instantvir.restore(clips[1], target, task="denoise", noise=2)
    assert target.read_text() == "precious"
    instantvir.restore(clips[1], target, task="denoise", noise=2, overwrite=True)
    assert len(frames_of(target)) == 7
