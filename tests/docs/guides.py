"""A guide taken apart: the programs, commands, new files and changes that it shows."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(r'^```(\w*)(?: title="([^"\n]+)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """What stands between two fences."""

    language: str
    title: str | None
    """The file that it is, or changes."""
    text: str


def blocks_of(page: Path) -> list[Block]:
    """Every block of a page, in order."""
    return [
        Block(match[1], match[2], match[3])
        for match in BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]


def commands_in(text: str) -> list[list[str]]:
    """The words of every `instantvir` or `python -m pytest` in plain lines, apart from pipes."""
    commands = []
    for line in text.splitlines():
        for piece in re.split(r"&&|\|", line):
            words = shlex.split(piece, comments=True)
            if words and (Path(words[0]).name == "instantvir" or words[:3] == PYTEST):
                commands.append(words)
    return commands


PYTEST = ["python", "-m", "pytest"]


def changed(text: str, diff: str) -> str:
    """`text` after a diff without line numbers, whose places stand exactly once in it.

    Raises:
        AssertionError: naming the place that is not there, or there twice.
    """
    for hunk in re.split(r"^@@\n", diff, flags=re.MULTILINE):
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] != "+")
        after = "".join(line[1:] for line in lines if line[0] != "-")
        assert text.count(before) == 1, f"{text.count(before)} times:\n{before}"
        text = text.replace(before, after)
    return text


def follow(page: Path, tree: Path) -> list[str]:
    """The files of `tree` that a reader of the page touches, having done what it says."""
    touched = []
    for block in blocks_of(page):
        if block.title is None:
            continue
        path = tree / block.title
        text = block.text
        if block.language == "diff":
            # a blank line of the page is a blank line of the file
            diff = re.sub(r"^$\n", " \n", text, flags=re.MULTILINE)
            text = changed(path.read_text(encoding="utf-8"), diff)
        path.write_text(text, encoding="utf-8")
        if block.title not in touched:
            touched.append(block.title)
    return touched
