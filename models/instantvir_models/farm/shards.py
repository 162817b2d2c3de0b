"""The share of one of several machines that do not know of one another."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from instantvir_models.errors import UsageError
from instantvir_models.run.jobs import Job

COUNTED_BY: tuple[tuple[str, str | None, str], ...] = (
    # what starts several processes: its index, its first index, its count
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT"),
    ("RANK", None, "WORLD_SIZE"),
)
"""Variables by which a SLURM array and `torchrun` tell a process which of how many it is."""


@dataclass(frozen=True)
class Shard:
    """Which of how many shares.

    Raises:
        UsageError: if there is no such share.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise UsageError(
                f"`--shard` is {self.index}/{self.count}",
                hint=f"shares of {max(self.count, 1)} are 0/{max(self.count, 1)} to "
                f"{max(self.count, 1) - 1}/{max(self.count, 1)}",
            )

    def of(self, jobs: Iterable[Job]) -> list[Job]:
        """The jobs of this share: a function of each input's name alone.

        So shares that start at different times, or see a folder that grows, never take the same video
        and never leave one out.
        """
        return [job for job in jobs if _number(job.source) % self.count == self.index]


WHOLE = Shard(0, 1)


def parse_shard(text: str, environment: Mapping[str, str]) -> Shard:
    """The share that `i/n` names; `auto` asks SLURM or `torchrun`, whichever started this process.

    Raises:
        UsageError: if it names none.
    """
    if text == "auto":
        return _told_by(environment)
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal()):
        raise UsageError(
            f"`--shard` is `{text}`", hint="it is i/n, such as 0/3, 1/3 and 2/3; or auto"
        )
    return Shard(int(index), int(count))


def _told_by(environment: Mapping[str, str]) -> Shard:
    for index, first, count in COUNTED_BY:
        if index in environment and count in environment:
            start = int(environment.get(first, "0")) if first else 0
            return Shard(int(environment[index]) - start, int(environment[count]))
    raise UsageError(
        "`--shard auto` finds neither a SLURM array nor `torchrun` around it",
        hint="say which share this is: `--shard 0/3`",
    )


def _number(source: str) -> int:
    """The same on every machine, wherever its folder of inputs is mounted."""
    return int.from_bytes(hashlib.sha256(Path(source).name.encode()).digest()[:8])
