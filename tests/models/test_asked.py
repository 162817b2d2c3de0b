"""What was asked for when an output was made is noted on it, as far as its file system allows."""

import errno
import os
import sys
from pathlib import Path

import pytest

from instantvir_models.media import EncoderSettings
from instantvir_models.run.asked import ATTRIBUTE, asked_for, made_otherwise, note_on
from instantvir_models.run.batch import Outcome, attempted
from instantvir_models.run.jobs import Job
from instantvir_models.run.plan import RestorePlan
from instantvir_models.tasks import TaskOptions, parse_tasks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no extended attributes in Python")


@pytest.fixture
def attributes(monkeypatch):
    """A file system that has them, whatever that of the tests has."""
    kept = {}

    def get(path, name):
        if (str(path), name) not in kept:
            raise OSError(errno.ENODATA, "No data available")
        return kept[str(path), name]

    monkeypatch.setattr(
        os, "setxattr", lambda path, name, value: kept.update({(str(path), name): value})
    )
    monkeypatch.setattr(os, "getxattr", get)
    return kept


def plan(noise, **options):
    wanted = TaskOptions(tasks=parse_tasks(["denoise"]), noise_levels=noise)
    return RestorePlan(wanted=wanted, **options)


def test_only_what_was_said_differs(attributes):
    path, asked = Path("out.mp4"), asked_for(plan(5.0), "embedded")
    assert asked.facts == {"the task": "denoise", "the noise": "5.0", "the model": "embedded"}
    assert made_otherwise(path, asked) is None
    note_on(path, asked)
    assert made_otherwise(path, asked) == []
    other = asked_for(plan(12.0, encoder=EncoderSettings(crf=30)), "nlmeans")
    assert made_otherwise(path, other) == [
        "the noise was 5.0, now 12.0",
        "the model was embedded, now nlmeans",
        "the crf was not told, now 30",
    ]


def test_another_prompt_is_told_and_no_word_of_it_travels(attributes):
    path, asked = Path("out.mp4"), asked_for(plan(5.0), "large", prompt="my cat  on a roof")
    note_on(path, asked)
    assert not any("cat" in str(said) for said in attributes.values())
    assert made_otherwise(path, asked_for(plan(5.0), "large", prompt="my cat on a roof")) == []
    (difference,) = made_otherwise(path, asked_for(plan(5.0), "large", prompt="a dog"))
    assert difference.startswith("the prompt was words of digest ")
    (difference,) = made_otherwise(
        path, asked_for(plan(5.0), "large", prompt="own/rows.safetensors")
    )
    assert difference.endswith(", now rows.safetensors")


@pytest.mark.parametrize("said", [b"", b"[]", b'{"the noise": 5}', b"[" * 50_000, b"\xff"])
def test_a_note_of_a_stranger_is_none(attributes, said):
    attributes["out.mp4", ATTRIBUTE] = said
    assert made_otherwise(Path("out.mp4"), asked_for(plan(5.0), "embedded")) is None


def test_where_there_are_none_nothing_is_claimed(tmp_path, monkeypatch):
    def refuses(*arguments):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", refuses)
    monkeypatch.setattr(os, "getxattr", refuses)
    asked, target = asked_for(plan(5.0), "embedded"), tmp_path / "out.mp4"
    target.touch()
    note_on(target, asked)
    row = attempted(Job("in.mp4", str(target)), lambda job: pytest.fail("done"), asked=asked)
    assert row.outcome is Outcome.SKIPPED
    assert not row.is_stale
    assert row.sentence.endswith("it is done, by whatever settings; `--overwrite` makes it anew")


@pytest.mark.parametrize(
    ("said", "noted"),
    [
        ("psf:path=folder/of/mine/kernel.png+noise:std=2", "psf:path=kernel.png+noise:std=2"),
        ('psf:path="my own files/kernel.png"', 'psf:path=kernel.png"'),
        ("psf:path=kernel.png", "psf:path=kernel.png"),
    ],
)
def test_no_folder_of_a_person_travels_with_a_file(said, noted):
    asked = asked_for(RestorePlan(wanted=TaskOptions(operator=said)), "embedded")
    assert asked.facts["the operator"] == noted
