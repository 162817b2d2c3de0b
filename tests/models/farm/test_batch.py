"""A batch in one process: it goes past a bad video, keeps a manifest, and goes on after a stop."""

import json
import os
from dataclasses import replace

import pytest

from instantvir_models.errors import UsageError, VideoOpenError
from instantvir_models.farm.batch import Batch, outcomes
from instantvir_models.farm.manifest import Manifest
from instantvir_models.farm.shards import Shard
from instantvir_models.farm.work import Outcome, Status
from instantvir_models.farm.worker import Answer, Identity, Setting, difference, forget_unfinished
from instantvir_models.media.destination import partial_path
from instantvir_models.run.jobs import Job, jobs_of

HEAD = Identity(version="0.3.0", weights_sha256="a" * 64, torch="2.13.0")


class Report:
    """Stands for what came of a video."""


@pytest.fixture
def batch(tmp_path):
    for index in range(6):
        (tmp_path / f"{index}.mkv").write_bytes(bytes([index]))
    jobs = jobs_of([str(tmp_path / "*.mkv")], f"{tmp_path}/out/")
    return Batch(jobs=jobs, folder=tmp_path / "out", setting=Setting(model="tiny", solver="map"))


class Restorer:
    """Copies the input; `stop_at` stands for Ctrl-C at that video, and `bad` for one that is no video."""

    def __init__(self, stop_at=None, bad=None):
        self.stop_at, self.bad, self.done = stop_at, bad, []

    def __call__(self, job, plan, solver, on_progress):
        name = os.path.basename(job.source)
        if name == self.stop_at:
            raise KeyboardInterrupt
        if name == self.bad:
            raise VideoOpenError(f"`{name}` is no video")
        os.makedirs(job.folder, exist_ok=True)
        with open(job.source, "rb") as source, open(job.destination, "wb") as out:
            out.write(b"restored" + source.read())
        self.done.append(name)
        return HEAD  # any dataclass: the report of a video is one


def run(batch, restore):
    with outcomes(batch, restore=restore) as (_, coming):
        return list(coming)


def test_a_video_that_is_none_does_not_stop_the_others(batch):
    ended = run(batch, Restorer(bad="2.mkv"))
    assert [outcome.status for outcome in ended].count(Status.DONE) == 5
    (lost,) = [outcome for outcome in ended if outcome.status is Status.FAILED]
    assert lost.problem == "`2.mkv` is no video"


def test_a_run_that_was_stopped_goes_on_with_what_is_left(batch):
    with pytest.raises(KeyboardInterrupt):
        run(batch, Restorer(stop_at="3.mkv"))
    second = Restorer()
    run(batch, second)
    assert second.done == ["3.mkv", "4.mkv", "5.mkv"]
    assert run(batch, Restorer()) == []


def test_an_input_that_changed_and_a_result_that_is_gone_are_restored_again(batch, tmp_path):
    run(batch, Restorer())
    (tmp_path / "1.mkv").write_bytes(b"longer than before")
    (tmp_path / "out" / "4.restored.mkv").unlink()
    again = Restorer()
    run(batch, again)
    assert again.done == ["1.mkv", "4.mkv"]


def test_other_wishes_restore_all_again(batch):
    run(batch, Restorer())
    other = replace(batch, setting=Setting(model="tiny", solver="wiener"))
    again = Restorer()
    run(other, again)
    assert len(again.done) == 6


def test_a_result_that_no_run_has_made_is_not_replaced(batch, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "4.restored.mkv").write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists already"):
        run(batch, Restorer())
    assert run(replace(batch, may_overwrite=True), Restorer())


def test_a_result_that_was_finished_when_the_run_died_may_be_replaced(batch, tmp_path):
    """The file had its name already, the manifest did not know yet."""
    batch.manifest(HEAD).begin(batch.jobs)
    (tmp_path / "out" / "4.restored.mkv").write_bytes(b"of the run that died")
    assert len(run(batch, Restorer())) == 6


def test_shares_do_together_what_one_run_does(batch, tmp_path):
    done = []
    for index in range(3):
        restorer = Restorer()
        run(replace(batch, shard=Shard(index, 3)), restorer)
        done += restorer.done
    assert sorted(done) == [f"{index}.mkv" for index in range(6)]
    assert run(batch, Restorer()) == []  # the whole reads what the shares wrote


def test_a_manifest_whose_last_line_was_cut_is_read_up_to_there(batch, tmp_path):
    run(batch, Restorer())
    manifest = batch.manifest(HEAD)
    text = manifest.path.read_text(encoding="utf-8")
    manifest.path.write_text(text[:-30], encoding="utf-8")
    again = Restorer()
    run(batch, again)
    assert again.done == ["5.mkv"]


def test_the_manifest_names_what_was_not_done(batch):
    run(batch, Restorer(bad="2.mkv"))
    lines = batch.manifest(HEAD).path.read_text(encoding="utf-8").splitlines()
    (bad,) = [line for line in map(json.loads, lines) if line["status"] == "failed"]
    assert (bad["source"], bad["problem"]) == ("2.mkv", "`2.mkv` is no video")


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
def test_a_worker_that_is_not_like_its_head_is_refused_in_a_sentence(
    tmp_path, change, token, sentence
):
    answer = Answer(worker="worker", identity=replace(HEAD, **change), token=token)
    assert sentence in difference(HEAD, "secret", "/shared/out", answer)


def test_a_worker_that_is_like_its_head_may_work(tmp_path):
    assert difference(HEAD, "t", tmp_path, Answer(worker="w", identity=HEAD, token="t")) is None


def test_what_a_dead_worker_left_is_removed_and_nothing_else(tmp_path):
    job = Job("a.mp4", str(tmp_path / "clip[1].mp4"))
    left = partial_path(tmp_path / "clip[1].mp4").name.replace(str(os.getpid()), "777")
    for name in (left, "clip[1].mp4", ".clip1.part-777.mp4", ".other.part-777.mp4"):
        (tmp_path / name).write_bytes(b"")
    forget_unfinished(job)
    assert not (tmp_path / left).exists()
    assert len(list(tmp_path.iterdir())) == 3


def test_a_manifest_keeps_facts_of_files_that_are_not_there(tmp_path):
    manifest = Manifest(tmp_path, "recipe")
    job = Job(str(tmp_path / "gone.mp4"), str(tmp_path / "out.mp4"))
    manifest.keep(Outcome(job=job, status=Status.FAILED, worker="w", problem="gone"))
    assert manifest.left_of([job]) == [job]
