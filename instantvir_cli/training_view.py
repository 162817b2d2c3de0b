"""What a person sees of a training run while it trains: how far it is, and where its losses go."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from instantvir_cli.console import console, say
from instantvir_cli.export import VALIDATION_NAME
from instantvir_cli.progress import LONG_SECONDS, in_words

LOOK_EVERY_SECONDS = 2.0
CURVE_POINTS = 24
LEVELS = "▁▂▃▄▅▆▇█"
NOT_LOSSES = ("step", "time", "rate", "cpu_seconds", "memory_mb")
"""Numbers of a row of the log that are no losses; those whose names end so are none either."""
NOT_LOSS_ENDS = ("spikes", "norm")


@contextmanager
def watched(folder: Path, *, steps: int) -> Iterator[None]:
    """While inside, a line on a terminal follows the log of the run in `folder`.

    How long a long run takes is said wherever it is read, once that is known.
    """
    if console.quiet or os.environ.get("RANK", "0") != "0":  # of several workers one says it
        yield
        return
    columns = (
        BarColumn(20),
        TextColumn("{task.completed:.0f}/{task.total:.0f} steps"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    bar = Progress(
        *columns,
        console=console,
        transient=True,
        speed_estimate_period=600,
        disable=not console.is_terminal,
    )
    began, was_announced = time.time(), False
    is_over = threading.Event()
    with bar:
        task = bar.add_task("", total=steps)

        def look() -> None:
            nonlocal was_announced
            rows = rows_of(folder / "log.jsonl")
            if rows:
                told = shown(rows, rows_of(folder / VALIDATION_NAME))
                bar.update(task, completed=rows[-1]["step"], description=told)
            own = [row for row in rows if row["time"] >= began]
            if len(own) > 1 and not was_announced:
                was_announced = True
                announce(own, steps=steps)

        def follow() -> None:
            while not is_over.wait(LOOK_EVERY_SECONDS):
                look()

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            yield
        finally:
            is_over.set()
            follower.join()


def announce(rows: list[dict[str, Any]], *, steps: int) -> None:
    """Say what a long run will take, by its first and last row, and that it may be stopped."""
    first, last = rows[0], rows[-1]
    seconds = max(1e-3, last["time"] - first["time"])
    pace = (last["step"] - first["step"]) / seconds
    left = (steps - last["step"]) / pace if pace > 0 else 0.0
    if left >= LONG_SECONDS:
        say(
            f"about {in_words(left)} to go at {60 * pace:.2g} steps a minute; it may be stopped, the same "
            "command goes on from the last checkpoint; in a new folder `--set phases.0.steps=N` asks "
            "for less"
        )


def rows_of(log: Path) -> list[dict[str, Any]]:
    """The complete rows of a log; none if there is no log yet."""
    try:
        lines = log.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        with suppress(ValueError):  # the last one may be half there, and a person may write, too
            row = json.loads(line)
            if isinstance(row, dict):
                rows.append(row)
    return rows


def shown(rows: list[dict[str, Any]], validation: list[dict[str, Any]]) -> str:
    """The last loss of each task with a curve of those before it, the same of the validation, memory."""
    last = rows[-1]
    parts = []
    for name, value in last.items():
        if name in NOT_LOSSES or name.endswith(NOT_LOSS_ENDS):
            continue
        parts.append(f"{name} {value:.4g} {curve([r[name] for r in rows if name in r])}")
    means = [mean for row in validation if (mean := _mean(row.get("psnr"))) is not None]
    if means:
        parts.append(f"validation {means[-1]:.2f} dB {curve(means)}")
    if "memory_mb" in last:
        parts.append(f"{last['memory_mb']:,} MB")
    return "  ".join(parts)


def _mean(psnrs: object) -> float | None:
    """Of the columns of a validation; None of what is none."""
    if not isinstance(psnrs, dict) or not psnrs:
        return None
    values = [value for value in psnrs.values() if isinstance(value, (int, float))]
    return sum(values) / len(values) if len(values) == len(psnrs) else None


def curve(values: list[float]) -> str:
    """Values as a row of bars, the latest of them, lowest to highest."""
    late = values[-CURVE_POINTS:]
    low, high = min(late), max(late)
    if high <= low:
        return LEVELS[0] * len(late)
    return "".join(LEVELS[round((v - low) / (high - low) * (len(LEVELS) - 1))] for v in late)
