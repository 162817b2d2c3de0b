"""What is left of runs that are killed at fifty points: `python -m benchmarks.kills --rows kills.jsonl`.

    python -m benchmarks.kills --rows kills.jsonl [--seconds 170] [--only VERB]    # goes on where it stopped
    python -m benchmarks.kills --rows kills.jsonl --table

Each row is one kill, checked as `tests/cli/test_kills.py` and `tests/distill/test_kills.py` do: what has
a name is what was there or what was wanted, whole; the next run ends well and leaves nothing hidden. A
check that fails ends the program.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.receipts import RESULTS, machine
from tests import warm as warmed
from tests.cli import test_kills as kills_of_commands
from tests.distill import test_kills as kills_of_training

command: Any = kills_of_commands
training: Any = kills_of_training
Warm: Any = warmed.Warm
"""Tests say no types."""

POINTS = 50
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)
TRAINING = "distill"
PAIRS = [(verb, by) for verb in (*command.VERBS, TRAINING) for by in SIGNALS]

Kill = Callable[[int], str]
"""What was left behind by the kill at one of the points."""


@contextmanager
def kills_of(verb: str, by: signal.Signals) -> Iterator[Kill]:
    """The kills of one verb by one signal."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if verb == TRAINING:
            steps = training.fifty_steps(folder)
            yield lambda index: training.left_by(folder, steps[index], by)
            return
        with Warm() as warm:
            material = command.make_material(folder / "material")
            points = command.points(warm, folder, material, verb, POINTS)

            def kill(index: int) -> str:
                place = command.fresh(folder / str(index), material, verb, there=index % 2 == 1)
                left = command.check(warm, place, verb, signal=by, **points[index])
                shutil.rmtree(place)
                return left

            yield kill


def add_rows(path: Path, seconds: float, only: str | None) -> None:
    """Kills that are not in `path` yet, of one verb or all, until that time has gone."""
    begun = time.monotonic()
    done = {(row["verb"], row["signal"], row["index"]) for row in rows_in(path)}
    for verb, by in PAIRS if only is None else [pair for pair in PAIRS if pair[0] == only]:
        missing = [index for index in range(POINTS) if (verb, by.name, index) not in done]
        if not missing or time.monotonic() - begun > seconds:
            continue
        with kills_of(verb, by) as kill, path.open("a") as file:
            for index in missing:
                if time.monotonic() - begun > seconds:
                    break
                row = {"verb": verb, "signal": by.name, "index": index, "left": kill(index)}
                file.write(json.dumps(row) + "\n")
                file.flush()


def rows_in(path: Path) -> list[dict[str, object]]:
    """What was found so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(path: Path) -> None:
    """Write `results/kills.md`."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for row in rows_in(path):
        found.setdefault((str(row["verb"]), str(row["signal"])), Counter())[str(row["left"])] += 1
    words = sorted({left for counts in found.values() for left in counts})
    lines = [
        "# Kills", "",
        f"{POINTS} points each (`python -m benchmarks.kills`): half of them before a step on the disk, the "
        "others spread over the time of a run; for `distill`, steps on the disk of a run in one process. "
        "Every second run finds its names taken and may replace them. After each kill, whatever has a "
        "name is what was there or what was wanted, whole; the same command then ended well, and nothing "
        "hidden was left. *Ended*: the signal was heard and the program tidied up, or the run was over "
        "before. *Hidden folder*: the kill left one, which the next run removed.", "",
        f"| verb | signal | kills | {' | '.join(words)} | wrong under a name | hidden after the next run |",
        "|" + "---|" * (len(words) + 5),
        *(f"| `{verb}` | {by} | {counts.total()} | {' | '.join(str(counts[word]) for word in words)} | 0 | 0 |"
          for (verb, by), counts in found.items()),
        "", "```", json.dumps(machine()), "```", "",
    ]  # fmt: skip
    (RESULTS / "kills.md").write_text("\n".join(lines))


def main() -> None:
    """Add rows, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--only", choices=[*command.VERBS, TRAINING])
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    if asked.table:
        table(asked.rows)
    else:
        add_rows(asked.rows, asked.seconds, asked.only)


if __name__ == "__main__":
    main()
