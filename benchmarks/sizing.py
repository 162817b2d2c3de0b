"""How many machines for so many hours of video a day: the scheduler of `--cluster`, on a clock that is simulated.

    python benchmarks/sizing.py --hours 100 --fps 3.5 [--video-fps 25] [--minutes 30] [--days-between-failures 30]

What is given: hours of video a day, frames a second of one worker (`instantvir benchmark`, on that machine, at
that size), how long videos are, how often a machine fails, and how many are slow. Who works on what is decided
by the same code as on a cluster (`instantvir_models.farm.work`); a video whose worker failed begins again.
"""

import argparse
import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from instantvir_models.farm.work import Death, Ended, worked_off
from instantvir_models.run.batch import BatchRow, Outcome
from instantvir_models.run.jobs import Job

DAY_SECONDS = 86_400.0

DAYS = 10
"""Whose videos are given at once: a farm works on while new ones come, and one video may take a day."""

MOST_OVER_IDEAL = 20


@dataclass(frozen=True, kw_only=True)
class Farm:
    """What there is to do each day, and what the machines are like."""

    video_hours: float
    video_fps: float = 25.0
    worker_fps: float
    minutes_per_video: float = 30.0
    """The median; lengths are log-normal, one in six more than `spread` times as long."""
    spread: float = 2.0
    days_between_failures: float = 30.0
    """Of one worker, on average; its video begins again."""
    restart_seconds: float = 60.0
    """Until another worker stands in the place of one that failed."""
    slow_share: float = 0.05
    """Of the workers: stragglers, `slowness` times as slow."""
    slowness: float = 3.0

    @property
    def ideal_workers(self) -> float:
        """Workers that never wait, never fail and are never slow."""
        return self.video_hours * 3600 * self.video_fps / self.worker_fps / DAY_SECONDS


def lengths(farm: Farm, seed: int) -> Sequence[float]:
    """Seconds of each video of `DAYS` days."""
    random = np.random.default_rng(seed)
    total, found = 3600 * farm.video_hours * DAYS, []
    while total > 0:
        found.append(60 * farm.minutes_per_video * farm.spread ** random.standard_normal())
        total -= found[-1]
    return found


class SimulatedPool:
    """A `Pool` whose workers only take time."""

    def __init__(self, farm: Farm, workers: int, seed: int) -> None:
        self._farm, self._random = farm, np.random.default_rng(seed)
        slow = round(farm.slow_share * workers)
        self._idle = [(farm.slowness if index < slow else 1.0) for index in range(workers)]
        self._ends: list[tuple[float, int, float, Job, bool]] = []
        self._count = 0
        self.clock, self.busy_seconds, self.deaths = 0.0, 0.0, 0

    def free(self) -> int:
        return len(self._idle)

    def start(self, job: Job) -> None:
        slowness = self._idle.pop()
        seconds = float(job.source) * self._farm.video_fps / self._farm.worker_fps * slowness
        until_failure = self._random.exponential(self._farm.days_between_failures * DAY_SECONDS)
        fails = until_failure < seconds
        end = self.clock + min(seconds, until_failure)
        self._count += 1
        heapq.heappush(self._ends, (end, self._count, slowness, job, fails))
        self.busy_seconds += min(seconds, until_failure)

    def wait(self) -> list[Ended | Death]:
        self.clock, _, slowness, job, fails = heapq.heappop(self._ends)
        self._idle.append(slowness)
        if not fails:
            row = BatchRow(input=job.source, output=job.destination, outcome=Outcome.RESTORED)
            return [Ended(row, "")]
        self.deaths += 1
        self.busy_seconds += self._farm.restart_seconds
        return [Death(job, "", "the machine failed")]


@dataclass(frozen=True)
class Run:
    """What the videos of `DAYS` days came to."""

    days: float
    """Until the last video was done."""
    busy: float
    """Share of the workers' time in which they worked."""
    deaths: int
    set_aside: int


def simulated(farm: Farm, workers: int, *, seed: int = 0, longest_first: bool = False) -> Run:
    """The videos of `DAYS` days on so many workers."""
    videos = lengths(farm, seed)
    if longest_first:
        videos = sorted(videos, reverse=True)
    pool = SimulatedPool(farm, workers, seed + 1)
    jobs = [Job(str(seconds), f"{index}") for index, seconds in enumerate(videos)]
    ended = list(worked_off(jobs, pool))
    lost = sum(each.row.outcome is Outcome.FAILED for each in ended)
    days = pool.clock / DAY_SECONDS
    return Run(days, pool.busy_seconds / (workers * pool.clock), pool.deaths, lost)


def needed(farm: Farm, *, longest_first: bool = False) -> int | None:
    """The fewest workers with which the videos of `DAYS` days are done in as many; None if no number is."""
    workers = math.ceil(farm.ideal_workers)
    while simulated(farm, workers, longest_first=longest_first).days > DAYS:
        workers += max(1, workers // 50)
        if workers > MOST_OVER_IDEAL * farm.ideal_workers:
            return None
    return workers


def rows(farm: Farm) -> Iterator[str]:
    """A Markdown table: what each thing that goes wrong costs."""
    flawless = replace(farm, days_between_failures=1e9, slow_share=0.0)
    pieces = replace(farm, minutes_per_video=min(farm.minutes_per_video, 5.0))
    yield "| what | workers | of the ideal | busy | workers that failed |"
    yield "|---|---|---|---|---|"
    yield f"| ideal | {farm.ideal_workers:.1f} | 1.00 | 100 % | 0 |"
    for name, case, first in (
        ("nothing fails", flawless, False),
        ("failures and stragglers", farm, False),
        ("the same, longest videos first", farm, True),
        ("the same, in pieces of 5 minutes (`--split 5`)", pieces, False),
    ):
        workers = needed(case, longest_first=first)
        if workers is None:
            yield f"| {name} | no number suffices | | | |"
            continue
        run = simulated(case, workers, longest_first=first)
        share = f"{workers / farm.ideal_workers:.2f}"
        yield f"| {name} | {workers} | {share} | {100 * run.busy:.0f} % | {run.deaths} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--hours", type=float, required=True)
    parser.add_argument("--fps", type=float, required=True)
    parser.add_argument("--video-fps", type=float, default=25)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--days-between-failures", type=float, default=30)
    parser.add_argument("--slow-share", type=float, default=0.05)
    given = parser.parse_args()
    farm = Farm(
        video_hours=given.hours, worker_fps=given.fps, video_fps=given.video_fps,
        minutes_per_video=given.minutes, days_between_failures=given.days_between_failures,
        slow_share=given.slow_share,
    )  # fmt: skip
    print("\n".join(rows(farm)))


if __name__ == "__main__":
    main()
