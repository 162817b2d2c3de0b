"""What is wrong with an output whatever the pictures are is told before any is looked at."""

import os
from pathlib import Path

import pytest

from instantvir_models.errors import UsageError, VideoOpenError, VideoWriteError
from instantvir_models.media import EncoderSettings, create_video
from instantvir_models.media.rehearsal import check_output
from instantvir_models.run.plan import RestorePlan, planned_jobs
from instantvir_models.tasks import TaskOptions

WRONG = [
    ("nowhere/out.mp4", {}, None),
    ("out.xyz", {}, None),
    ("out.mp4", {}, "no-such-container"),
    ("out.mp4", {"codec": "no-such-codec"}, None),
    ("out.mp4", {"codec": "aac"}, None),
    ("out.webm", {"codec": "h264"}, None),
    ("out.mp4", {"pix_fmt": "no-such-format"}, None),
    ("out.mkv", {"codec": "ffv1", "pix_fmt": "monow"}, None),
    ("-", {}, None),
]


@pytest.mark.parametrize(("name", "settings", "output_format"), WRONG)
def test_what_is_told_at_once_is_what_the_writer_would_say(
    tmp_path, monkeypatch, name, settings, output_format
):
    monkeypatch.chdir(tmp_path)
    chosen = EncoderSettings(**settings)
    with pytest.raises(VideoWriteError) as at_once:
        check_output(name, chosen, output_format=output_format)
    with pytest.raises(VideoWriteError) as later:
        create_video(name, width=64, height=48, settings=chosen, output_format=output_format)
    assert (str(at_once.value), at_once.value.hint) == (str(later.value), later.value.hint)


@pytest.mark.parametrize(
    ("name", "settings", "output_format"),
    [
        ("out.mp4", {}, None),
        ("out.mp4", {"pix_fmt": "yuv420p12le"}, None),  # for HDR, which becomes HEVC
        ("out.gif", {}, None),
        ("out.m3u8", {}, None),
        ("out", {}, "matroska"),
        ("-", {"codec": "ffv1"}, "nut"),
        ("new/%05d.png", {}, None),
        ("rtmp://nobody.invalid/live", {}, "flv"),
        ("/dev/null", {}, "matroska"),
    ],
)
def test_what_may_go_well_leaves_no_trace(tmp_path, monkeypatch, name, settings, output_format):
    monkeypatch.chdir(tmp_path)
    check_output(name, EncoderSettings(**settings), output_format=output_format)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("output", "options", "kind", "sentence"),
    [
        ("nowhere/out.mp4", {}, VideoWriteError, "the folder `nowhere` does not exist"),
        ("out.mp4", {"errors": "err.xyz"}, VideoWriteError, "no container format"),
        ("out.mp4", {"errors": "nowhere/err.mkv"}, VideoWriteError, "`nowhere` does not exist"),
        ("out.mp4", {"reference": "gone.mp4"}, VideoOpenError, "`gone.mp4` does not exist"),
        ("out.mp4", {"reference": "gone_%03d.png"}, VideoOpenError, "does not exist"),
        ("out.mp4", {"mask": "gone.png"}, UsageError, "no such file: `.*gone.png`"),
        ("file/", {}, VideoWriteError, "cannot make the folder `file`"),
    ],
)
def test_a_plan_is_refused_before_its_input_is_opened(
    tmp_path, monkeypatch, output, options, kind, sentence
):
    """All of these were told after the video had been estimated; here there is not even one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    mask = options.pop("mask", None)
    wanted = TaskOptions(mask=None if mask is None else tmp_path / mask)
    plan = RestorePlan(wanted=wanted, **{name: Path(value) for name, value in options.items()})
    with pytest.raises(kind, match=sentence):
        planned_jobs(["in.mp4"], output, plan, overwrite=False)


def test_of_many_each_is_told_in_its_turn(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    jobs = planned_jobs(["a.mp4", "b.mp4"], "file/", RestorePlan(), overwrite=False)
    assert len(jobs) == 2
