"""The recipe of the container, read as docker reads it; with `-m slow` its steps are run, without docker."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = ("cpu", "cuda")
IGNORED = [Path(line).name for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").split()]


def instructions(stage):
    """(word, rest) of each instruction of a stage, in order, lines that go on joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    parts = [tuple(line.split(maxsplit=1)) for line in lines]
    starts = [index for index, (word, _) in enumerate(parts) if word == "FROM"]
    (start,) = [index for index in starts if parts[index][1].endswith(f" AS {stage}")]
    end = min([index for index in starts if index > start], default=len(parts))
    return parts[start:end]


def steps(stage):
    """The RUN steps of a stage, with its defaults in their environment."""
    parts = instructions(stage)
    return [rest for word, rest in parts if word == "RUN"], {
        rest.split("=", 1)[0]: rest.split("=", 1)[1].strip('"')
        for word, rest in parts
        if word == "ARG"
    }


@pytest.mark.parametrize("stage", STAGES, ids="image for {}".format)
def test_every_step_is_a_command_that_a_shell_understands(stage):
    for step in steps(stage)[0]:
        subprocess.run(["sh", "-n", "-c", step], check=True)


@pytest.mark.parametrize("stage", STAGES, ids="image for {}".format)
def test_what_is_run_at_the_end_is_what_was_installed(stage):
    entry = [rest for word, rest in instructions(stage) if word == "ENTRYPOINT"]
    assert entry == ['["/opt/instantvir/bin/instantvir"]']
    assert any(step.startswith("/opt/instantvir/bin/instantvir ") for step in steps(stage)[0])


@pytest.mark.parametrize("stage", STAGES, ids="image for {}".format)
def test_the_python_and_the_torch_are_ones_that_the_package_takes(stage):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    least = tuple(map(int, project["requires-python"].removeprefix(">=").split(".")))
    image = instructions(stage)[0][1]
    assert tuple(map(int, re.search(r"python:(\d+)\.(\d+)", image).groups())) >= least
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert steps(stage)[1]["TORCH"] in readme  # the one that was tested


NEEDS_DEBIAN = "apt-get"
"""What begins so is left out where there is no image: it would install into this machine."""


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES, ids="image for {}".format)
def test_the_steps_install_a_program_that_restores(stage, tmp_path):
    """In a folder that stands for the root of the image, one instruction after the other, without docker.

    Not run: the base image (this Python takes its place), what Debian's packages are installed with, and
    a card. PyTorch is the build that this machine's index gives.
    """
    _, defaults = steps(stage)
    environment = {**os.environ, **defaults, "PYTHONPATH": ""}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"

    def here(text):
        return text.replace("/opt/instantvir", f"{tmp_path}/opt").replace("/src", f"{tmp_path}/src")

    for word, rest in instructions(stage):
        if word == "COPY":
            shutil.copytree(ROOT, here(rest.split()[1]), ignore=shutil.ignore_patterns(*IGNORED))
        elif word == "RUN" and not rest.startswith(NEEDS_DEBIAN):
            subprocess.run(["sh", "-c", here(rest)], check=True, env=environment, cwd=tmp_path)
    shutil.rmtree(tmp_path / "src")  # what was installed does not need it
    program = json.loads(here(dict(instructions(stage))["ENTRYPOINT"]))
    usual = json.loads(dict(instructions(stage))["CMD"])
    subprocess.run([*program, *usual], check=True, env=environment, cwd=tmp_path)
    shutil.copy(ROOT / "examples" / "flower-blurred.mp4", tmp_path / "old.mp4")
    asked = ["restore", "old.mp4", "--task", "denoise", "--noise", "3", "--duration", "0.1"]
    subprocess.run([*program, *asked], check=True, env=environment, cwd=tmp_path)
    assert (tmp_path / "old.restored.mp4").stat().st_size > 0
