"""A Ray cluster of two workers on this machine: workers die, videos are bad, and all others come out right."""

import os
import signal
from pathlib import Path

import pytest

from instantvir_models.errors import UsageError
from instantvir_models.farm import cluster
from instantvir_models.farm.batch import Batch, outcomes
from instantvir_models.farm.cluster import ClusterError, connected, workers_of
from instantvir_models.farm.work import Status
from instantvir_models.farm.worker import Setting, restore_one
from instantvir_models.media import EncoderSettings
from instantvir_models.run.jobs import jobs_of
from instantvir_models.run.restoration import RestorePlan
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


def batch_of(folder, out, **changed):
    jobs = jobs_of([f"{folder}/*.mkv"], f"{out}/")
    setting = Setting(plan=PLAN, model="tiny", threads=1)
    return Batch(jobs=jobs, folder=Path(out), setting=setting, **changed)


def run(batch, **options):
    with outcomes(batch, **options) as (_, coming):
        return {Path(outcome.job.source).stem: outcome for outcome in coming}


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
    ended = run(batch_of(tapes, tmp_path / "many"), cluster="auto", restore=unlucky(tmp_path))
    lost = {name: ended[name].status for name in ended if ended[name].status is not Status.DONE}
    assert lost == {"07": Status.SET_ASIDE, "39": Status.FAILED}
    assert len({outcome.worker for outcome in ended.values()}) >= 2
    one = run(batch_of(tapes, tmp_path / "one"))
    for name in one.keys() - lost:
        many_path, one_path = (
            tmp_path / where / f"{name}.restored.mkv" for where in ("many", "one")
        )
        assert packets_of(many_path, "video") == packets_of(one_path, "video")
    left = {path.name for path in (tmp_path / "many").iterdir() if path.name.startswith(".")}
    assert not left  # neither a token nor what dead workers left


@pytest.mark.cluster
def test_a_run_whose_head_was_lost_goes_on(ray, tapes, tmp_path):
    with outcomes(batch_of(tapes, tmp_path / "out"), cluster="auto") as (num_left, coming):
        first = [next(coming) for _ in range(10)]
    assert num_left == 40
    rest = run(batch_of(tapes, tmp_path / "out"), cluster="auto")
    done = {Path(outcome.job.source).stem for outcome in first if outcome.status is Status.DONE}
    assert not done & rest.keys()
    assert len(done | rest.keys()) == 40


@pytest.mark.cluster
def test_a_folder_that_workers_do_not_share_is_refused(ray, tapes, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster.secrets, "token_hex", lambda _: "not what the file says")
    monkeypatch.setattr(Path, "write_text", lambda *_, **__: 0)  # as on a folder of another machine
    with pytest.raises(ClusterError, match="the folder is not shared"):
        run(batch_of(tapes, tmp_path / "out"), cluster="auto")


@pytest.mark.cluster
def test_a_worker_that_cannot_begin_is_a_sentence(ray, tapes, tmp_path):
    batch = batch_of(tapes, tmp_path / "out")

    class Broken(Setting):
        """Pickles where it is, and is not to be had where it arrives."""

        def __reduce__(self):
            return (__import__, ("a_package_that_is_not_there",))

    object.__setattr__(batch, "setting", Broken(plan=PLAN, model="tiny", threads=1))
    with pytest.raises(ClusterError, match="cannot begin"):
        run(batch, cluster="auto")


@pytest.mark.cluster
def test_an_address_where_nobody_answers_is_a_sentence():
    pytest.importorskip("ray")
    with (
        pytest.raises(ClusterError, match="no Ray cluster answers") as caught,
        connected("127.0.0.1:1"),
    ):
        pass
    assert "ray start --head" in caught.value.hint
