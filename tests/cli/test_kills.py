"""Killed at any instant: under a name is what was there or what was wanted, whole; the next run of the
same command ends well, and nothing hidden is left then.

Half of the points are steps on the disk, which are few and where it matters; the others lie in time.
"""

import os
import shutil
import sys
import time
from collections import Counter

import pytest
import torch

from instantvir_models.checkpoints.config import read_config
from instantvir_models.checkpoints.folder import damaged_files
from instantvir_models.media import open_video
from instantvir_models.operators.sidecar import read_sidecar
from tests.media_clips import make_clip
from tests.wan_small import small_autoencoder
from tests.warm import Warm

OLD = b"what was there"
FRAMES = 6
SIGKILL, SIGTERM, SIGHUP = 9, 15, 1

WIENER = ["--solver", "wiener", "--operator", "blur:sigma=1+noise:std=2"]
VERBS = {
    "restore": (["in.mp4", "-o", "out.mkv", "--compare", *WIENER], ["out.mkv", "out.compare.mp4"]),
    "restore to pictures": (["in.mp4", "-o", "out_%05d.png", *WIENER], ["out_00001.png"]),
    "degrade": (["in.mp4", "-o", "out.mkv", "--operator", "mask:keep=0.5"], ["out.mkv"]),
    "convert": (["lean.ckpt", "-o", "out"], []),
    "stream": (
        ["in.mp4", "-o", "out.mkv", "--operator", "identity+noise:std=3", "--solver", "wiener",
         "--threads", "1"],
        ["out.mkv"],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def warm():
    with Warm() as process:
        yield process


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return make_material(tmp_path_factory.mktemp("material") / "files")


def make_material(folder):
    """What all verbs read."""
    folder.mkdir()
    make_clip(folder / "in.mp4", num_frames=FRAMES, audio=True)
    torch.save(small_autoencoder("lean").state_dict(), folder / "lean.ckpt")
    return folder


def command(verb):
    """Without `--overwrite`."""
    return [verb.split()[0], *VERBS[verb][0]]


def fresh(folder, material, verb, *, there):
    shutil.copytree(material, folder)
    for name in VERBS[verb][1] if there else []:
        (folder / name).write_bytes(OLD)
    return folder


def frames_in(path):
    with open_video(path) as reader:
        number = len(list(reader))
        return number if reader.damage.message is None else -number


def is_right(folder, verb, *, may_be_old):
    """Whether each name has what was there, or what was wanted, or nothing."""
    for name in VERBS[verb][1]:
        path = folder / name
        if not path.exists() or (may_be_old and path.read_bytes() == OLD):
            continue
        if name.endswith(".png"):
            with open_video(path) as reader:
                assert len(list(reader)) == 1
        elif verb != "stream":  # which grows under its own name
            assert frames_in(path) == FRAMES, name
    measured = folder / "out.mkv"
    if verb == "degrade" and measured.exists() and measured.read_bytes() != OLD:
        assert read_sidecar(measured) is not None, "no measurement without its note"
    if verb == "convert" and (folder / "out" / "config.json").exists():
        assert not damaged_files(folder / "out", read_config(folder / "out").sha256)
    return True


def hidden(folder):
    return sorted(
        os.path.relpath(os.path.join(place, name), folder)
        for place, folders, files in os.walk(folder)
        for name in (*folders, *files)
        if name.startswith(".")
    )


def check(warm, folder, verb, **kill):
    """What was left behind by the kill, in words."""
    there = bool(VERBS[verb][1]) and (folder / VERBS[verb][1][0]).exists()
    leave = ["--overwrite"] if there else []
    killed = warm.run(*command(verb), *leave, folder=folder, **kill)
    assert is_right(folder, verb, may_be_old=there), (verb, kill)
    left = "hidden folder" if hidden(folder) else "nothing hidden"
    ended = warm.run(*command(verb), "--overwrite", folder=folder)
    assert ended.status == 0, (verb, kill, ended.stderr)
    assert is_right(folder, verb, may_be_old=False), (verb, kill)
    for name in VERBS[verb][1]:
        assert (folder / name).exists(), (verb, kill, name)
    assert hidden(folder) == [], (verb, kill)
    return f"{'ended' if killed.status >= 0 else 'killed'}, {left}"


def points(warm, tmp_path, material, verb, number):
    """(options of a case) for so many kills: each step on the disk, and times between them."""
    for name in ("first", "whole"):  # the first one of all waits for the process to load everything
        folder = fresh(tmp_path / name, material, verb, there=False)
        began = time.monotonic()
        whole = warm.run(*command(verb), folder=folder)
        seconds = time.monotonic() - began
        assert whole.status == 0, whole.stderr
    steps = [{"kill_at": step} for step in range(1, whole.steps + 1)][: number // 2 + 1]
    times = number - len(steps)
    return [*steps, *({"kill_after": seconds * (i + 0.5) / times} for i in range(times))]


@pytest.mark.slow
@pytest.mark.parametrize("signal", [SIGKILL, SIGTERM, SIGHUP])
@pytest.mark.parametrize("verb", VERBS)
def test_fifty_kills(warm, tmp_path, material, verb, signal):
    found = Counter()
    for index, kill in enumerate(points(warm, tmp_path, material, verb, 50)):
        folder = fresh(tmp_path / str(index), material, verb, there=index % 2 == 1)
        found[check(warm, folder, verb, signal=signal, **kill)] += 1
        shutil.rmtree(folder)
    sys.stdout.write(f"{verb:<20} signal {signal:>2}: {dict(found)}\n")


@pytest.mark.parametrize("verb", VERBS)
def test_kills_at_the_last_steps(warm, tmp_path, material, verb):
    """Where names are given, and where the hidden folder is taken away."""
    whole = warm.run(*command(verb), folder=fresh(tmp_path / "w", material, verb, there=False))
    assert whole.status == 0, whole.stderr
    for step in {whole.steps // 2, whole.steps - 1}:
        check(warm, fresh(tmp_path / str(step), material, verb, there=False), verb, kill_at=step)


def test_a_signal_while_the_hidden_folder_goes_leaves_none(warm, tmp_path, material):
    """It stayed, empty, until the next run."""
    whole = warm.run(
        *command("degrade"), folder=fresh(tmp_path / "w", material, "degrade", there=False)
    )
    for step in (whole.steps - 1, whole.steps):
        folder = fresh(tmp_path / str(step), material, "degrade", there=False)
        ended = warm.run(*command("degrade"), folder=folder, kill_at=step, signal=SIGTERM)
        assert ended.status == 128 + SIGTERM, ended.stderr
        assert hidden(folder) == []
        assert is_right(folder, "degrade", may_be_old=False)
