import pytest

from instantvir_models.errors import UsageError
from instantvir_models.farm.shards import WHOLE, Shard, parse_shard
from instantvir_models.run.jobs import Job

JOBS = [Job(f"/tapes/{index:02}.mkv", f"/out/{index:02}.mkv") for index in range(40)]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_shares_are_all_jobs_each_once(count):
    shares = [Shard(index, count).of(JOBS) for index in range(count)]
    assert sorted((job for share in shares for job in share), key=JOBS.index) == JOBS


def test_a_job_stays_in_its_share_whatever_else_is_in_the_folder_and_wherever_it_is_mounted():
    share = Shard(1, 3).of(JOBS)
    assert Shard(1, 3).of(JOBS[10:]) == [job for job in share if job in JOBS[10:]]
    elsewhere = [Job(job.source.replace("/tapes", "/mnt/tapes"), job.destination) for job in JOBS]
    assert [j.destination for j in Shard(1, 3).of(elsewhere)] == [j.destination for j in share]


def test_the_whole_is_one_share():
    assert WHOLE.of(JOBS) == JOBS


@pytest.mark.parametrize(
    ("text", "environment"),
    [
        ("2/3", {}),
        ("auto", {"SLURM_ARRAY_TASK_ID": "12", "SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_COUNT": "3"}),
        ("auto", {"RANK": "2", "WORLD_SIZE": "3"}),
    ],
)  # fmt: skip
def test_a_share_is_said_or_told_by_what_started_the_process(text, environment):
    assert parse_shard(text, environment) == Shard(2, 3)


@pytest.mark.parametrize("text", ["3/3", "0/0", "1", "a/b", "-1/3", "", "auto"])
def test_no_share_is_a_sentence_with_a_hint(text):
    with pytest.raises(UsageError, match="--shard") as caught:
        parse_shard(text, {})
    assert caught.value.hint
