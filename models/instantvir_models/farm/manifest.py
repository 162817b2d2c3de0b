"""What has been done, on disk beside the results, so that a run that was stopped goes on."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instantvir_models.errors import VideoWriteError
from instantvir_models.farm.shards import WHOLE, Shard
from instantvir_models.farm.work import Outcome, Status
from instantvir_models.run.jobs import Job

NAME = "instantvir-manifest"

BEGUN = "begun"


@dataclass(frozen=True)
class Manifest:
    """A file of JSON lines, one for each outcome, in the folder of the results.

    Each share writes a file of its own, and reads those of all, so no two machines write into one.

    Args:
        folder: of the results.
        recipe: tells apart restorations that would give other results: version, weights, wishes.
    """

    folder: Path
    recipe: str
    shard: Shard = WHOLE

    @property
    def path(self) -> Path:
        """Where this share writes."""
        suffix = "" if self.shard == WHOLE else f"-{self.shard.index}of{self.shard.count}"
        return self.folder / f"{NAME}{suffix}.jsonl"

    def keep(self, outcome: Outcome) -> None:
        """Add what came of a job; it is on the disk when this returns.

        Raises:
            VideoWriteError: if it cannot be.
        """
        line = {
            "status": outcome.status.value,
            "worker": outcome.worker,
            "seconds": round(outcome.seconds, 3),
            "problem": outcome.problem,
            "recipe": self.recipe,
            **_facts(outcome.job),
        }
        self._add(line)

    def _add(self, line: dict[str, Any]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise VideoWriteError(f"cannot write `{self.path}`: {error.strerror}") from error

    def begin(self, jobs: Iterable[Job]) -> None:
        """Note that these are being worked on, so that a run that goes on knows their results as its own."""
        self._add({"status": BEGUN, "destinations": [Path(job.destination).name for job in jobs]})

    def has_begun(self, job: Job) -> bool:
        """Whether a run of this folder has begun with it, so that what is there may be replaced."""
        name = Path(job.destination).name
        return any(name in line.get("destinations", ()) for line in self._all_lines())

    def left_of(self, jobs: Iterable[Job]) -> list[Job]:
        """Those that are not done: not said to be, or input or result changed since."""
        done = {
            json.dumps(_only_facts(line))
            for line in self._all_lines()
            if line.get("status") == Status.DONE and line.get("recipe") == self.recipe
        }
        return [job for job in jobs if json.dumps(_facts(job)) not in done]

    def _all_lines(self) -> Iterator[dict[str, Any]]:
        for path in self.folder.glob(f"{NAME}*.jsonl"):
            yield from _lines(path)


FACTS = ("source", "source_bytes", "source_modified", "destination", "destination_bytes")


def _facts(job: Job) -> dict[str, Any]:
    source, destination = Path(job.source), Path(job.destination)
    found = source.stat() if source.exists() else None
    return {
        "source": source.name,
        "source_bytes": found and found.st_size,
        "source_modified": found and found.st_mtime_ns,
        "destination": destination.name,
        "destination_bytes": destination.stat().st_size if destination.exists() else None,
    }


def _only_facts(line: dict[str, Any]) -> dict[str, Any]:
    return {name: line.get(name) for name in FACTS}


def _lines(path: Path) -> list[dict[str, Any]]:
    """What can be read of a manifest: its last line may have been cut by a crash."""
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines
