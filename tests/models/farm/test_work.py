"""Who works on what, with workers that die when they are told to."""

from collections import Counter

from instantvir_models.farm.work import Death, Outcome, Status, worked_off
from instantvir_models.run.jobs import Job

JOBS = [Job(f"{index}.mp4", f"out/{index}.mp4") for index in range(5)]


class Workers:
    """A pool of two; `deadly` says how often each job kills its worker."""

    def __init__(self, deadly=None):
        self.deadly = Counter(deadly)
        self.begun = []

    def free(self):
        return 2 - len(self.begun)

    def start(self, job):
        assert self.free()
        self.begun.append(job)

    def wait(self):
        job = self.begun.pop(0)
        if self.deadly[job.source] > 0:
            self.deadly[job.source] -= 1
            return [Death(job, "w", "out of memory")]
        return [Outcome(job=job, status=Status.DONE, worker="w")]


def test_every_job_has_one_outcome():
    outcomes = list(worked_off(JOBS, Workers()))
    assert [outcome.job for outcome in outcomes] == JOBS


def test_a_job_whose_worker_was_killed_once_is_done_after_all_others():
    outcomes = list(worked_off(JOBS, Workers({"1.mp4": 1})))
    assert {outcome.status for outcome in outcomes} == {Status.DONE}
    assert outcomes[-1].job is JOBS[1]


def test_a_job_that_kills_its_worker_twice_is_set_aside_and_named():
    outcomes = list(worked_off(JOBS, Workers({"1.mp4": 9})))
    (lost,) = [outcome for outcome in outcomes if outcome.status is not Status.DONE]
    assert lost.status is Status.SET_ASIDE
    assert "`1.mp4` killed its worker 2 times, last: out of memory" in lost.problem
    assert len(outcomes) == len(JOBS)


def test_nothing_to_do_asks_no_worker():
    assert list(worked_off([], None)) == []
