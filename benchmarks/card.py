"""All that a card can tell, in under ten minutes: `python benchmarks/card.py -o runs/card`.

Each step runs in a process of its own, with a limit of its own, so neither a wrong kernel nor memory that
ran out ends the others. What is done is kept in the folder: the same command goes on with what is missing,
or failed. At the end, and after every step, `card.json` and `card.md` hold what is known so far.

    --only students         these steps alone
    --stand-in              tiny networks on the CPU: what the tests run; its numbers mean nothing
    --minutes 10            of all steps together; what is left over then waits for the next call
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.card_steps import STEPS, Row, Step, place_of

MARK = "instantvir-card-rows: "
"""What a step's process prints before its rows."""

LOG_CHARACTERS = 4000
"""Kept of what a step that went wrong wrote to standard error."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of one step."""

    step: str
    status: str
    """`ok`, `failed`, `too slow` or `left for the next call`."""
    seconds: float
    rows: tuple[Row, ...] = ()
    problem: str | None = None
    log: str = ""
    """The end of what it wrote to standard error, where it went wrong."""


def run_step(step: Step, *, stand_in: bool, seconds: float) -> Result:
    """One step in a process of its own, for `seconds` at most."""
    command = [sys.executable, __file__, "--one", step.name, *(["--stand-in"] if stand_in else [])]
    started = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as late:
        said, log = _text(late.stdout), _text(late.stderr)
        problem = f"more than {seconds:.0f} s"
        return Result(
            step=step.name, status="too slow", seconds=seconds, rows=_rows_in(said),
            problem=problem, log=log[-LOG_CHARACTERS:],
        )  # fmt: skip
    spent, rows = time.perf_counter() - started, _rows_in(done.stdout)
    if done.returncode == 0:
        return Result(step=step.name, status="ok", seconds=spent, rows=rows)
    last = (done.stderr.strip() or "no word on standard error").splitlines()[-1]
    problem = f"status {done.returncode}: {last[:300]}"
    return Result(
        step=step.name, status="failed", seconds=spent, rows=rows, problem=problem,
        log=done.stderr[-LOG_CHARACTERS:],
    )  # fmt: skip


def _rows_in(said: str) -> tuple[Row, ...]:
    """The rows among the lines that a step printed; a broken last one is none."""
    lines = [line for line in said.splitlines(keepends=True) if line.startswith(MARK)]
    whole = [line.removeprefix(MARK) for line in lines if line.endswith("\n")]
    return tuple(Row(**row) for line in whole for row in json.loads(line))


def _text(captured: str | bytes | None) -> str:
    return captured.decode(errors="replace") if isinstance(captured, bytes) else captured or ""


def kept(folder: Path, step: Step) -> Result | None:
    """What an earlier call has found; None for a step that is still to be done, or failed."""
    path = folder / "steps" / f"{step.name}.json"
    if not path.exists():
        return None
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["rows"] = tuple(Row(**row) for row in stored["rows"])
    result = Result(**stored)
    return result if result.status == "ok" else None


def keep(folder: Path, result: Result) -> None:
    """Store a result where `kept` finds it, whole or not at all."""
    path = folder / "steps" / f"{result.step}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(asdict(result), indent=1), encoding="utf-8")
    os.replace(unfinished, path)


def run_all(
    steps: Sequence[Step], folder: Path, *, stand_in: bool, minutes: float, runs: Any = run_step
) -> list[Result]:
    """The result of every step, kept and written after each.

    Args:
        runs: how one step is run.
    """
    ends = time.perf_counter() + 60 * minutes
    results: list[Result] = []
    for step in steps:
        result = kept(folder, step)
        left = ends - time.perf_counter()
        if result is None and left < 5:
            status = "left for the next call"
            result = Result(step=step.name, status=status, seconds=0.0)
        elif result is None:
            print(f"{step.name}: {step.about}", file=sys.stderr, flush=True)
            result = runs(step, stand_in=stand_in, seconds=min(step.most_seconds, left))
            keep(folder, result)
            print(f"  {result.status}, {result.seconds:.0f} s", file=sys.stderr, flush=True)
        results.append(result)
        write(folder, results)
    return results


def write(folder: Path, results: Sequence[Result]) -> None:
    """`card.json` and `card.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps([asdict(result) for result in results], indent=1) + "\n"
    (folder / "card.json").write_text(text, encoding="utf-8")
    (folder / "card.md").write_text(table(results), encoding="utf-8")


def table(results: Sequence[Result]) -> str:
    """All rows as one Markdown table, measured beside predicted, and what did not run."""
    lines = ["| step | what | measured | predicted |", "|---|---|---|---|"]
    for result in results:
        lines += [
            f"| {result.step} | {row.what} | {row.measured} | {row.predicted} |"
            for row in result.rows
        ]
        if result.status != "ok":
            lines.append(f"| {result.step} | {result.status} | {result.problem or ''} | |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """The command line; 1 if a step failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/card"))
    parser.add_argument("--only", nargs="+", choices=[step.name for step in STEPS])
    parser.add_argument("--stand-in", action="store_true")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--one", choices=[step.name for step in STEPS], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        (step,) = [step for step in STEPS if step.name == given.one]
        for row in step.run(place_of(stand_in=given.stand_in)):
            print(MARK + json.dumps([asdict(row)]), flush=True)
        return 0
    steps = [step for step in STEPS if given.only is None or step.name in given.only]
    results = run_all(steps, given.output, stand_in=given.stand_in, minutes=given.minutes)
    print(table(results))
    return int(any(result.status != "ok" for result in results))


if __name__ == "__main__":
    sys.exit(main())
