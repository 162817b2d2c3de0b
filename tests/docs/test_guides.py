"""The README and the guides are true: a stranger who does what they say gets what they promise."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from instantvir_cli.app import app
from tests.docs.guides import PYTEST, blocks_of, changed, commands_in, follow
from tests.media_clips import make_clip

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs" / "guides"
PAGES = [ROOT / "README.md", *sorted(GUIDES.glob("*.md"))]
PACKAGES = (
    "instantvir_cli",
    "kernels/instantvir_kernels",
    "models/instantvir",
    "models/instantvir_models",
    "distill/instantvir_distill",
    "tests",
)
COMMANDS = [
    pytest.param(words, id=f"{page.stem}: {shlex.join(words)}")
    for page in PAGES
    for block in blocks_of(page)
    if not block.language
    for words in commands_in(block.text)
    if words[:3] != PYTEST
]
TOUCHED = {
    "write-an-operator": {
        "models/instantvir_models/operators/box.py",
        "models/instantvir_models/operators/spec.py",
        "tests/models/test_operators.py",
    },
    "write-a-solver": {
        "models/instantvir_models/solvers/classical/ridge.py",
        "models/instantvir_models/solvers/registry.py",
        "tests/models/test_solvers.py",
    },
    "write-a-student": {
        "models/instantvir_models/students/recurrent.py",
        "models/instantvir_models/checkpoints/load.py",
    },
    "write-a-loss": {
        "distill/instantvir_distill/losses.py",
        "distill/instantvir_distill/methods/regression.py",
    },
    "write-an-output": {
        "models/instantvir_models/live/latest_picture.py",
        "models/instantvir_models/live/outputs.py",
    },
}
"""Which files it costs to add something, by guide. Shorter is better."""

RUNNER = """
import os
if hasattr(os, "sched_setaffinity"):  # one core: threads on a busy machine wait for one another
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import pytest
from instantvir_cli.app import app

def program(text):
    exec(compile(text, "snippet", "exec"), {"__name__": "snippet"})

def command(words):
    status = app(words[1:], standalone_mode=False)
    assert not status, f"{words} ended with {status}"

def laws(words):
    tests = [f"{TREE}/{word}" if word.startswith("tests/") else word for word in words[3:]]
    options = ["-q", "--import-mode=importlib", "-p", "no:cacheprovider", "--rootdir", TREE]
    status = pytest.main([*tests, *options])
    assert status == 0, f"{words} ended with {status}"

for page, kind, what in STEPS:
    print("following", page, kind, what)
    globals()[kind](what)
"""


@pytest.fixture
def clips(tmp_path):
    """A folder to work in: `clean.mp4` and `old.mp4`."""
    make_clip(tmp_path / "clean.mp4", width=48, height=32, num_frames=7)
    make_clip(tmp_path / "old.mp4", width=48, height=32, num_frames=7, audio=True)
    return tmp_path


@pytest.fixture
def tree(tmp_path):
    """A copy of the code without what is large, to be changed."""
    copy = tmp_path / "tree"
    large = shutil.ignore_patterns("__pycache__", "training", "golden", "keys", "clips")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=large)
    return copy


def steps_of(page):
    """Programs, commands and tests of a page, in order."""
    for block in blocks_of(page):
        if block.language == "python" and block.title is None:
            yield page.name, "program", block.text
        elif not block.language:
            for words in commands_in(block.text):
                yield page.name, "laws" if words[:3] == PYTEST else "command", words


def test_following_the_tutorials_alone_leads_to_their_end(clips, tree):
    """All in one tree and one process, for starting is what takes long."""
    pages = [GUIDES / f"{name}.md" for name in TOUCHED]
    assert {page.stem: set(follow(page, tree)) for page in pages} == TOUCHED
    steps = [step for page in pages for step in steps_of(page)]
    roots = [tree / part for part in ("", "kernels", "models", "distill")]
    done = subprocess.run(
        [sys.executable, "-c", f"TREE, STEPS = {str(tree)!r}, {steps!r}\n{RUNNER}"],
        cwd=clips,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, roots))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_every_tutorial_is_followed():
    assert {page.stem for page in PAGES if page.stem.startswith("write-")} == set(TOUCHED)


SNIPPETS = [
    pytest.param(page, number, id=f"{page.stem} {number}")
    for page in PAGES
    if page.stem not in TOUCHED
    for number in range(sum(block.language == "python" for block in blocks_of(page)))
]


@pytest.mark.parametrize(("page", "number"), SNIPPETS)
def test_a_snippet_runs(page, number, clips, monkeypatch):
    monkeypatch.chdir(clips)
    snippet = [block for block in blocks_of(page) if block.language == "python"][number]
    exec(compile(snippet.text, f"{page.name}, snippet {number}", "exec"), {"__name__": "snippet"})


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_is_understood(words):
    """No option that the verb does not have, no argument missing."""
    _, verb, *arguments = words
    typer.main.get_command(app).commands[verb].make_context(verb, arguments).close()


def test_the_readme_has_snippets_and_commands():
    assert sum(case.values[0].stem == "README" for case in SNIPPETS) >= 2
    assert sum(case.id.startswith("README") for case in COMMANDS) > 20


def test_a_change_that_no_longer_fits_is_noticed():
    assert changed("a\nb\n", " a\n+c\n") == "a\nc\nb\n"
    assert changed("a\nb\n", "-a\n+c\n@@\n+d\n b\n") == "c\nd\nb\n"
    with pytest.raises(AssertionError, match="0 times"):
        changed("a\n", " b\n+c\n")
    with pytest.raises(AssertionError, match="2 times"):
        changed("a\na\n", " a\n+c\n")
