"""A Ray cluster of two workers on this machine: workers die, videos are bad, and all others come out right."""

import json
import os
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from instantvir_models.errors import UsageError, VideoOpenError
from instantvir_models.farm.batch import rows_on_cluster
from instantvir_models.farm.cluster import (
    _TOKENS,
    ClusterError,
    RayPool,
    connected,
    workers_of,
)
from instantvir_models.farm.manifest import NAME
from instantvir_models.farm.work import SetAsideError
from instantvir_models.farm.worker import Answer, Identity, Setting, Worker, restore_one
from instantvir_models.media import EncoderSettings
from instantvir_models.run.batch import Outcome
from instantvir_models.run.jobs import Job, jobs_of
from instantvir_models.run.plan import RestorePlan
from instantvir_models.run.restore_report import Progress
from instantvir_models.tasks import TaskOptions, parse_tasks
from tests.media_clips import make_clip, packets_of

PLAN = RestorePlan(
    wanted=TaskOptions(tasks=parse_tasks(["denoise"]), noise_levels=5),
    encoder=EncoderSettings(codec="ffv1"),
)


def node(**resources):
    return {"Alive": True, "Resources": resources}


@pytest.mark.parametrize(
    ("nodes", "threads", "expected"),
    [
        ([node(CPU=16.0, GPU=2.0), node(CPU=64.0, GPU=1.0)], None, (3, {"num_gpus": 1.0, "num_cpus": 1.0})),
        ([node(CPU=16.0), node(CPU=8.0)], None, (6, {"num_cpus": 4.0})),
        ([node(CPU=16.0), node(CPU=2.0)], None, (9, {"num_cpus": 2.0})),
        ([node(CPU=2.0), {"Alive": False, "Resources": {"CPU": 64.0}}], 1, (2, {"num_cpus": 1.0})),
        ([node(CPU=16.0)], 5, (3, {"num_cpus": 5.0})),
    ],
)  # fmt: skip
def test_a_worker_for_each_card_or_for_a_few_cores(nodes, threads, expected):
    assert workers_of(nodes, threads) == expected


@pytest.mark.parametrize(("nodes", "threads"), [([], None), ([node(CPU=4.0)], 8)])
def test_a_cluster_without_room_is_a_sentence(nodes, threads):
    with pytest.raises(ClusterError):
        workers_of(nodes, threads)


def test_without_ray_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UsageError, match="needs Ray") as caught, connected("auto"):
        pass
    assert "instantvir[cluster]" in caught.value.hint


SETTING = Setting(plan=PLAN, model="tiny", threads=1)


class Answers:
    """What of Ray a pool asks: references are what was asked for, and `ready` those that are answered."""

    exceptions = SimpleNamespace(RayError=RuntimeError, RayActorError=RuntimeError)

    def __init__(self):
        self.ready, self.timeouts = {}, []
        talk = SimpleNamespace(remote=lambda: "how far")
        self.actor = SimpleNamespace(
            answer=SimpleNamespace(remote=lambda path: "who"),
            work=SimpleNamespace(remote=lambda job: "work"),
            progress=SimpleNamespace(options=lambda concurrency_group: talk),
        )

    def remote(self, **resources):
        return lambda cls: SimpleNamespace(remote=lambda *given: self.actor)

    def wait(self, references, *, num_returns=1, timeout):
        self.timeouts.append(timeout)
        return [each for each in references if each in self.ready], []

    def get(self, reference):
        return self.ready[reference]


def test_nobody_waits_for_a_worker_that_does_not_say_how_far_it_is(tmp_path):
    """After each video all others were asked, for half a second, while the one that was done had no work."""
    ray, head = Answers(), Identity(version="0.4.0", weights_sha256=None, torch="2.13.0")
    pool = RayPool(ray, SETTING, size=1, resources={}, head=head, folder=tmp_path)
    ray.ready["who"] = Answer(worker="w", identity=head, token=pool._token)
    pool.wait()
    pool.start(Job("a.mkv", "b.mkv"))
    ray.timeouts.clear()
    assert [pool.progress() for _ in range(3)] == [{"w": ("a.mkv", None)}] * 3
    assert set(ray.timeouts) == {0}
    ray.ready["how far"] = Progress(3, 6, 1.0)
    assert pool.progress() == {"w": ("a.mkv", Progress(3, 6, 1.0))}


def test_the_token_of_a_head_that_was_killed_goes_with_the_next_run(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    lost, other = (tmp_path / f"{_TOKENS}{pid}" for pid in (gone.pid, os.getppid()))
    for path in (lost, other):
        path.write_text("secret", encoding="utf-8")
    head = Identity(version="0.4.0", weights_sha256=None, torch="2.13.0")
    pool = RayPool(Answers(), SETTING, size=0, resources={}, head=head, folder=tmp_path)
    assert not lost.exists()
    pool.close()
    assert list(tmp_path.iterdir()) == [other]  # of a head that still works


def test_workers_may_take_minutes_to_begin_and_a_person_is_told(tmp_path):
    """Two minutes were not enough beside other work: Ray's workers have a niceness of 15."""
    said, head = [], Identity(version="0.4.0", weights_sha256=None, torch="2.13.0")
    pool = RayPool(
        Answers(), SETTING, size=1, resources={"num_cpus": 1.0}, head=head, folder=tmp_path,
        say=said.append,
    )  # fmt: skip

    def wait(minutes):
        for _ in range(120 * minutes):  # looks, two a second
            assert pool.wait() == []

    wait(4)
    assert said == ["no worker has started yet; each asks for {'num_cpus': 1.0}"]
    with pytest.raises(ClusterError, match="no worker has started within 600 s"):
        wait(7)


def run(folder, out, *, restore=restore_one, setting=SETTING, pattern="*.mkv"):
    """Rows by name of the input."""
    jobs = jobs_of([f"{folder}/{pattern}"], f"{out}/")
    rows = rows_on_cluster(jobs, Path(out), setting, "auto", restore=restore)
    return {Path(row.input).stem: row for row in rows}


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def tapes(tmp_path_factory):
    """40 videos, one of them no video."""
    folder = tmp_path_factory.mktemp("tapes")
    for index in range(39):
        make_clip(folder / f"{index:02}.mkv", width=64, height=48, num_frames=6)
    (folder / "39.mkv").write_bytes(b"this is no video" * 99)
    return folder


def unlucky(folder):
    """Restores; two videos kill their worker the first time, as from outside, and one always."""

    def restore(job, plan, solver, on_progress):
        name = os.path.basename(job.source)
        if name == "07.mkv":
            os._exit(1)
        mark = f"{folder}/{name}.killed"
        if name in ("03.mkv", "20.mkv") and not os.path.exists(mark):
            open(mark, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return restore_one(job, plan, solver, on_progress)

    return restore


@pytest.mark.cluster
def test_forty_videos_two_workers_and_everything_that_goes_wrong(ray, tapes, tmp_path):
    rows = run(tapes, tmp_path / "many", restore=unlucky(tmp_path))
    assert len(rows) == 40
    lost = {name: row for name, row in rows.items() if row.outcome is Outcome.FAILED}
    assert sorted(lost) == ["07", "39"]
    assert isinstance(lost["07"].error, SetAsideError)
    assert isinstance(lost["39"].error, VideoOpenError)
    lines = (tmp_path / "many" / NAME).read_text(encoding="utf-8").splitlines()
    assert len({json.loads(line)["worker"] for line in lines}) >= 2
    (tmp_path / "one").mkdir()
    alone = Worker(SETTING)
    for job in jobs_of([f"{tapes}/*.mkv"], f"{tmp_path}/one/"):
        alone.work(job)
    for name in rows.keys() - lost.keys():
        many, one = (tmp_path / where / f"{name}.restored.mkv" for where in ("many", "one"))
        assert packets_of(many, "video") == packets_of(one, "video")
    left = [path.name for path in (tmp_path / "many").iterdir() if path.name.startswith(".")]
    assert [
        name for name in left if not name.startswith(".07.")
    ] == []  # no token, nothing of the dead


@pytest.mark.cluster
def test_a_run_whose_head_was_lost_goes_on(ray, tapes, tmp_path):
    jobs = jobs_of([f"{tapes}/3*.mkv"], f"{tmp_path}/out/")
    rows = rows_on_cluster(jobs, tmp_path / "out", SETTING, "auto")
    first = [next(rows) for _ in range(4)]
    rows.close()  # as when its process ends: the workers go, too
    second = run(tapes, tmp_path / "out", pattern="3*.mkv")
    skipped = {name for name, row in second.items() if row.outcome is Outcome.SKIPPED}
    done = {Path(row.input).stem for row in first if row.outcome is Outcome.RESTORED}
    assert done <= skipped
    assert len(second) == 10
    assert [name for name, row in second.items() if row.outcome is Outcome.FAILED] == ["39"]


@pytest.mark.cluster
def test_a_folder_that_workers_do_not_share_is_refused(ray, tapes, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_text", lambda *_, **__: 0)  # as on a disk of another machine
    with pytest.raises(ClusterError, match="the folder is not shared"):
        run(tapes, tmp_path / "out")


class NotThere:
    """Pickles where it is, and is not to be had where it arrives."""

    def __reduce__(self):
        return (__import__, ("a_package_that_is_not_there",))


@pytest.mark.cluster
def test_a_worker_that_cannot_begin_is_a_sentence(ray, tapes, tmp_path):
    with pytest.raises(ClusterError, match="cannot begin"):
        run(tapes, tmp_path / "out", restore=NotThere())


@pytest.mark.cluster
def test_an_address_where_nobody_answers_is_a_sentence():
    pytest.importorskip("ray").shutdown()  # the cluster of the tests before
    with (
        pytest.raises(ClusterError, match="no Ray cluster answers") as caught,
        connected("127.0.0.1:1"),
    ):
        pass
    assert "ray start --head" in caught.value.hint
    assert "RAY_AUTH_MODE=token" in caught.value.hint  # a token that is missing looks the same
