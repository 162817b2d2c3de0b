"""What a person sees of a training run while it trains: how far it is, and where its losses go."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from instantvir_cli.console import console
from instantvir_cli.export import VALIDATION_NAME

LOOK_EVERY_SECONDS = 2.0
CURVE_POINTS = 24
LEVELS = "▁▂▃▄▅▆▇█"
NOT_LOSSES = ("step", "time", "rate", "cpu_seconds", "memory_mb")
"""Numbers of a row of the log that are no losses; those whose names end so are none either."""
NOT_LOSS_ENDS = ("spikes", "norm")


@contextmanager
def watched(folder: Path, *, steps: int) -> Iterator[None]:
    """While inside, a line on a terminal follows the log of the run in `folder`."""
    if console.quiet or not console.is_terminal:
        yield
        return
    columns = (
        BarColumn(20),
        TextColumn("{task.completed:.0f}/{task.total:.0f} steps"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True, speed_estimate_period=600) as progress:
        task = progress.add_task("", total=steps)
        is_over = threading.Event()

        def follow() -> None:
            while not is_over.wait(LOOK_EVERY_SECONDS):
                rows = rows_of(folder / "log.jsonl")
                if rows:
                    told = shown(rows, rows_of(folder / VALIDATION_NAME))
                    progress.update(task, completed=rows[-1]["step"], description=told)

        follower = threading.Thread(target=follow, daemon=True)
        follower.start()
        try:
            yield
        finally:
            is_over.set()
            follower.join()


def rows_of(log: Path) -> list[dict[str, Any]]:
    """The complete rows of a log; none if there is no log yet."""
    try:
        lines = log.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [json.loads(line) for line in lines if line.endswith("}")]


def shown(rows: list[dict[str, Any]], validation: list[dict[str, Any]]) -> str:
    """The last loss of each task with a curve of those before it, the same of the validation, memory."""
    last = rows[-1]
    parts = []
    for name, value in last.items():
        if name in NOT_LOSSES or name.endswith(NOT_LOSS_ENDS):
            continue
        parts.append(f"{name} {value:.4g} {curve([r[name] for r in rows if name in r])}")
    means = [sum(each.values()) / len(each) for row in validation if (each := row.get("psnr"))]
    if means:
        parts.append(f"validation {means[-1]:.2f} dB {curve(means)}")
    if "memory_mb" in last:
        parts.append(f"{last['memory_mb']:,} MB")
    return "  ".join(parts)


def curve(values: list[float]) -> str:
    """Values as a row of bars, the latest of them, lowest to highest."""
    late = values[-CURVE_POINTS:]
    low, high = min(late), max(late)
    if high <= low:
        return LEVELS[0] * len(late)
    return "".join(LEVELS[round((v - low) / (high - low) * (len(LEVELS) - 1))] for v in late)
