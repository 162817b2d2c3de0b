"""Every program of examples/ runs; tests/docs has the README and the guides."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import instantvir
from tests.media_clips import make_clip

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


@pytest.fixture
def clip(tmp_path, monkeypatch):
    """A small `old.mp4` in the working folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "old.mp4"
    make_clip(path, width=48, height=32, num_frames=7)
    return path


def program(name):
    return runpy.run_path(str(ROOT / "examples" / name))


def frames_of(path):
    with instantvir.open_video(path) as video:
        return np.stack([frame.pixels for frame in video])


def test_every_program_has_its_story_here():
    assert {f"test_{name.removesuffix('.py')}" for name in PROGRAMS} <= set(globals())


def test_restore_a_file(clip, capfd):
    program("restore_a_file.py")["main"](str(clip), "new.mp4")
    said, progress = capfd.readouterr()
    assert "7 of 7 frames" in progress
    assert "levels of 255" in said
    assert "7 frames at" in said
    assert len(frames_of("new.mp4")) == 7


def test_restore_a_file_that_is_not_there_is_a_sentence(clip):
    with pytest.raises(SystemExit, match=r"nowhere\.mp4"):
        program("restore_a_file.py")["main"]("nowhere.mp4", "new.mp4")


@pytest.mark.parametrize("name", PROGRAMS)
def test_without_words_a_program_says_what_it_is_for(name):
    script = ROOT / "examples" / name
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=environment
    )
    assert ended.returncode == 1
    assert f"python examples/{name}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_camera_that_is_not_there_is_a_sentence():
    with pytest.raises(SystemExit, match=r"nowhere\.mp4. cannot be opened"):
        program("camera_loop.py")["main"]("nowhere.mp4")


def test_camera_loop(clip, capfdbinary):
    """OpenCV opens a file as it opens a camera: frame by frame, until there are no more."""
    program("camera_loop.py")["main"](str(clip))
    seen = np.frombuffer(capfdbinary.readouterr().out, np.uint8).reshape(-1, 32, 48, 3)
    assert len(seen) == 7
    assert np.abs(seen.astype(int) - frames_of(clip)).mean() < 20  # the same scene, no channel lost


def test_custom_operator(tmp_path, capfd):
    names = program("custom_operator.py")
    operator = names["BlendedRows"]()
    x, y = torch.randn(2, 1, 2, 3, 8, 6, dtype=torch.float64).unbind(0)
    torch.testing.assert_close((operator.A(x) * y).sum(), (x * operator.A_adjoint(y)).sum())

    sharp, blended = tmp_path / "sharp.mkv", tmp_path / "blended.mkv"
    make_clip(sharp, width=48, height=32, num_frames=5, codec="ffv1", pix_fmt="bgr0")
    rows = frames_of(sharp).astype(float)
    mixed = (rows + np.concatenate([rows[:, 1:], rows[:, -1:]], 1)) / 2
    with (
        instantvir.open_video(sharp) as video,
        instantvir.create_video(
            blended,
            info_of=video,
            width=48,
            height=32,
            settings=instantvir.EncoderSettings(codec="ffv1"),
        ) as writer,
    ):
        for frame, pixels in zip(video, mixed.round().astype(np.uint8), strict=True):
            writer.write(type(frame)(pixels, frame.pts, frame.time_base, frame.duration))
    names["main"](str(blended), str(tmp_path / "restored.mkv"))
    assert "5 frames" in capfd.readouterr().out
    before, after = (
        np.square(frames_of(tmp_path / name) - rows).mean()
        for name in ("blended.mkv", "restored.mkv")
    )
    assert after < before / 2


def test_custom_solver(clip, capfd):
    program("custom_solver.py")["main"](str(clip), "restored.mp4")
    assert "7 frames by Landweber" in capfd.readouterr().out
    assert len(frames_of("restored.mp4")) == 7
