"""Who works on what, with workers that die when they are told to."""

from collections import Counter

from instantvir_models.farm.work import Death, Ended, SetAsideError, worked_off
from instantvir_models.run.batch import BatchRow, Outcome
from instantvir_models.run.jobs import Job

JOBS = [Job(f"{index}.mp4", f"out/{index}.mp4") for index in range(5)]


def restored(job):
    return BatchRow(input=job.source, output=job.destination, outcome=Outcome.RESTORED)


def inputs(ended):
    return [each.row.input for each in ended]


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
        return [Ended(restored(job), "w")]


def test_every_job_has_one_ending():
    assert inputs(worked_off(JOBS, Workers())) == [job.source for job in JOBS]


def test_a_job_whose_worker_was_killed_once_is_done_after_all_others():
    ended = list(worked_off(JOBS, Workers({"1.mp4": 1})))
    assert {each.row.outcome for each in ended} == {Outcome.RESTORED}
    assert inputs(ended)[-1] == "1.mp4"


def test_a_job_that_kills_its_worker_twice_is_set_aside_and_named():
    ended = list(worked_off(JOBS, Workers({"1.mp4": 9})))
    (lost,) = [each.row for each in ended if each.row.outcome is not Outcome.RESTORED]
    assert (lost.input, lost.outcome) == ("1.mp4", Outcome.FAILED)
    assert isinstance(lost.error, SetAsideError)
    assert lost.sentence == "set aside: it killed its worker 2 times, last: out of memory"
    assert len(ended) == len(JOBS)


def test_nothing_to_do_asks_no_worker():
    assert list(worked_off([], None)) == []
