"""Many mutants of one target, each in a child; what went wrong is told, and kept if asked.

python -m tests.fuzz.campaign TARGET [--first 0] [--count 1000] [--seed 0] [--keep FOLDER] [--show-silent]
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.forked import Ending, run_forked
from tests.fuzz.mutations import mutated
from tests.fuzz.targets import TARGETS, Target

SEED = 18


@dataclass(frozen=True)
class Mutant:
    """One input, and how it can be made again."""

    target: str
    name: str
    """Of the input that it was made of."""
    number: int
    data: bytes


@dataclass
class Campaign:
    """One target, its whole inputs, and a folder to work in."""

    target: Target
    folder: Path
    seeds: dict[str, bytes] = field(init=False)

    def __post_init__(self) -> None:
        (self.folder / "seeds").mkdir(parents=True)
        self.seeds = self.target.seeds(self.folder / "seeds")
        for name, data in self.seeds.items():  # also warms up what every child then has
            self.run_here(data, name)

    def mutants(self, seed: int, first: int, count: int) -> Iterator[Mutant]:
        """Mutants number `first` and on; each depends on seed and number alone."""
        others = list(self.seeds.values())
        names = list(self.seeds)
        for number in range(first, first + count):
            chance = random.Random(f"{seed}|{self.target.name}|{number}")
            name = names[number % len(names)]
            yield Mutant(self.target.name, name, number, mutated(self.seeds[name], others, chance))

    def run_here(self, data: bytes, name: str) -> str:
        """What comes of an input, in this process."""
        with self._place() as place:
            return self.target.run(data, name, Path(place))

    def run(self, data: bytes, name: str) -> Ending:
        """The same in a child."""
        with self._place() as place:
            return run_forked(lambda: self.target.run(data, name, Path(place)))

    def _place(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(dir=self.folder, ignore_cleanup_errors=True)


def is_silent(ending: Ending, whole: str) -> bool:
    """Whether frames differ from those of the whole input, and nothing was said of damage."""
    return ending.said.startswith("whole") and ending.said != whole


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--show-silent", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Print one line of JSON: how many mutants, and how they ended."""
    asked = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="instantvir-fuzz-"))
    try:
        campaign = Campaign(TARGETS[asked.target], folder)
        whole = {n: campaign.run_here(d, n) for n, d in campaign.seeds.items()}
        endings: Counter[str] = Counter()
        worst_bytes, cpu, silent, bad, done = 0, 0.0, Counter(), 0, 0
        until = time.monotonic() + asked.seconds
        mutants = campaign.mutants(asked.seed, asked.first, asked.count)
        for mutant in itertools.takewhile(lambda _: time.monotonic() < until, mutants):
            ending = campaign.run(mutant.data, mutant.name)
            done += 1
            cpu += ending.seconds
            worst_bytes = max(worst_bytes, ending.grown_bytes)
            if is_silent(ending, whole[mutant.name]):
                silent[mutant.name] += 1
                if asked.show_silent:
                    print(mutant.name, mutant.number, "is silent", file=sys.stderr)
            endings[
                "BAD" if ending.is_bad else " ".join(ending.said.split()[:2])[:40].split(" ")[0]
            ] += 1
            if ending.is_bad:
                bad += 1
                print(mutant.name, mutant.number, ending, file=sys.stderr)
                if asked.keep is not None:
                    asked.keep.mkdir(parents=True, exist_ok=True)
                    (asked.keep / f"{mutant.number}-{mutant.name}").write_bytes(mutant.data)
        print(json.dumps({
            "target": asked.target, "seed": asked.seed, "first": asked.first, "mutants": done,
            "bad": bad, "endings": endings, "cpu_seconds_each": round(cpu / max(done, 1), 4),
            "most_mebibytes": worst_bytes >> 20, "silent": {k: v for k, v in silent.items() if v},
        }))  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
