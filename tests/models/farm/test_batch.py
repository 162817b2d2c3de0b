"""What a farm asks of its workers, and what it leaves on the disk; without Ray."""

import json
from dataclasses import replace

import pytest

from instantvir_models.errors import VideoOpenError
from instantvir_models.farm import batch
from instantvir_models.farm.batch import rows_on_cluster
from instantvir_models.farm.manifest import NAME, Manifest
from instantvir_models.farm.work import Ended
from instantvir_models.farm.worker import Answer, Identity, Setting, Worker, difference
from instantvir_models.run.batch import BatchRow, Outcome
from instantvir_models.run.jobs import Job, jobs_of

HEAD = Identity(version="0.3.0", weights_sha256="a" * 64, torch="2.13.0")
SETTING = Setting(model="tiny", solver="map")


@pytest.mark.parametrize(
    ("change", "token", "sentence"),
    [
        ({"version": "0.2.0"}, "secret", "worker has instantvir 0.2.0, the head has 0.3.0"),
        ({"weights_sha256": "b" * 64}, "secret", "other weights: sha256 bbbbbbbbbbbb, the head's aaaaaaaaaaaa"),
        ({"weights_sha256": None}, "secret", "other weights: sha256 none"),
        ({"torch": "2.9.1"}, "secret", "torch 2.9.1"),
        ({}, None, "does not see the head's `/shared/out`: the folder is not shared"),
        ({}, "of another run", "the folder is not shared"),
    ],
)  # fmt: skip
def test_a_worker_that_is_not_like_its_head_is_refused_in_a_sentence(change, token, sentence):
    answer = Answer(worker="worker", identity=replace(HEAD, **change), token=token)
    assert sentence in difference(HEAD, "secret", "/shared/out", answer)


def test_a_worker_that_is_like_its_head_may_work(tmp_path):
    assert difference(HEAD, "t", tmp_path, Answer(worker="w", identity=HEAD, token="t")) is None


def test_a_worker_says_who_it_is_and_what_it_read_in_the_shared_folder(tmp_path):
    worker = Worker(SETTING)
    assert worker.answer(tmp_path / "token").token is None
    (tmp_path / "token").write_text("secret", encoding="utf-8")
    answer = worker.answer(tmp_path / "token")
    assert (answer.token, answer.identity, answer.worker) == (
        "secret",
        worker.identity,
        worker.name,
    )


def test_an_expected_error_on_a_worker_is_a_row():
    def fails(job, plan, solver, on_progress):
        raise VideoOpenError("`a.mp4` is no video")

    ended = Worker(SETTING, fails).work(Job("a.mp4", "b.mp4"))
    assert (ended.row.outcome, ended.row.sentence) == (Outcome.FAILED, "`a.mp4` is no video")
    assert ended.worker


def test_what_is_there_asks_no_cluster(tmp_path, monkeypatch):
    """Nor does it open a model."""
    monkeypatch.setattr(batch, "connected", None)
    (tmp_path / "a.mkv").write_bytes(b"")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.restored.mkv").write_bytes(b"done")
    jobs = jobs_of([str(tmp_path / "a.mkv")], f"{tmp_path}/out/")
    (row,) = rows_on_cluster(jobs, tmp_path / "out", SETTING, "auto")
    assert row.outcome is Outcome.SKIPPED


def test_the_manifest_says_who_did_what_and_why_not(tmp_path):
    row = BatchRow(
        input="2.mkv", output="out/2.mkv", outcome=Outcome.FAILED, sentence="`2.mkv` is no video"
    )
    for seconds in (1.5, 2.5):
        Manifest(tmp_path).keep(Ended(row, "host:12", seconds))
    lines = [
        json.loads(line) for line in (tmp_path / NAME).read_text(encoding="utf-8").splitlines()
    ]
    assert [line["seconds"] for line in lines] == [1.5, 2.5]
    assert (lines[0]["input"], lines[0]["error"]) == ("2.mkv", "`2.mkv` is no video")
    assert lines[0]["worker"] == "host:12"
