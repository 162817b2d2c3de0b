"""Keep the results of a suite, small: tables in the documentation, every row in `results/`.

    instantvir benchmark --suite paper -o DIR        # or real; goes on where it was; hours of two cores
    python benchmarks/suite_results.py DIR

Writes `results/suite_NAME.{json,csv}`, without films, and `docs/benchmarks/NAME.md`, which begins with
what is to be learnt from it: of `paper` what its aims were and which of them are met, of the others by
how much each solver betters the files.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from receipts import RESULTS

from instantvir_models.suite.real import UNCHANGED
from instantvir_models.suite.results import Measure, Row, Suite, load_suite
from instantvir_models.suite.systems import STUDENT
from instantvir_models.suite.tables import Mean, csv_text, markdown, means, table

DOCS = RESULTS.parents[1] / "docs" / "benchmarks"

PREFACE = """\
Written by `benchmarks/suite_results.py` from a run of `instantvir benchmark --suite {name}`; do not edit.
How to read it: [Benchmarks](index.md).
"""

AIMS = {
    "VISION-XL": 20, "SVI": 20, "DiffIR2VR-Zero": 100, "DDNM": 100, "DiffPIR": 100, "DPS": 1000,
}  # fmt: skip
"""How many times faster than these the student was meant to be, beside a prior of its own size."""


def in_short(suite: Suite) -> list[str]:
    """Lines: what the rows of `paper` say of the student's aims."""
    by_solver = {
        solver.name: [m for m in means(suite) if m.solver == solver.name and m.clips]
        for solver in suite.solvers
    }
    asking = [name for name, mine in by_solver.items() if any(_asks(mean) for mean in mine)]
    head = [
        "solver", "evaluations/frame", "PSNR behind the student, dB", "times the student's CPU seconds",
        "of any clip", "aim", "met on", "rows",
    ]  # fmt: skip
    return [
        "## In short",
        "",
        "From the task where it is least to the one where it is most; of each task the mean, of times the "
        "median.",
        "",
        *table(head, (_line(name, by_solver[name], suite) for name in asking if name != STUDENT)),
        "",
        *(f"- {sentence}" for sentence in _leads(suite)),
        "",
    ]


def _asks(mean: Mean) -> bool:
    return bool(mean.evaluations_per_frame)


def _line(name: str, mine: list[Mean], suite: Suite) -> list[str]:
    times = [mean.times_slower for mean in mine if mean.times_slower is not None]
    every = [time for mean in mine if mean.times_slower_range for time in mean.times_slower_range]
    aim = AIMS.get(name)
    met = [m.task for m in mine if aim and m.times_slower is not None and m.times_slower >= aim]
    return [
        name,
        _span([mean.evaluations_per_frame or 0 for mean in mine]),
        _span([-mean.psnr_ahead for mean in mine if mean.psnr_ahead is not None]),
        _span(times),
        _span(every),
        str(aim or ""),
        (", ".join(met) or "none") if aim else "",
        f"{sum(mean.clips for mean in mine)}/{len(suite.clips) * len(suite.tasks)}",
    ]


def _span(values: list[float]) -> str:
    low, high = (f"{value:.3g}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _leads(suite: Suite) -> Iterator[str]:
    """Sentences: of each measure who is ahead of the student on a task, and on how many clips anybody is."""
    for measure in suite.measures:
        if measure.name in {"block_jump", "residual_over_noise", "vmaf", "fvd"}:
            continue
        ahead = []
        for task in suite.tasks:
            names = [s.name for s in suite.solvers if _is_ahead(suite, measure, s.name, task.name)]
            ahead += [f"{task.name} ({', '.join(names)})"] if names else []
        there, lost = _clips_lost(suite, measure)
        if there:
            on_tasks = f"ahead on {'; '.join(ahead)}" if ahead else "nobody is ahead on any task"
            on_clips = f"on {len(lost)} of {there} clips and tasks somebody is"
            where = f": {', '.join(lost)}" if 0 < len(lost) <= 3 else ""
            yield f"{measure.label}: {on_tasks}; {on_clips}{where}."


def _is_ahead(suite: Suite, measure: Measure, solver: str, task: str) -> bool:
    """In the mean over the clips that both did."""
    leads = [
        lead for clip in suite.clips
        if (lead := _lead(suite, measure, suite.row(solver, task, clip.name))) is not None
    ]  # fmt: skip
    return bool(leads) and float(np.mean(leads)) > 0


def _clips_lost(suite: Suite, measure: Measure) -> tuple[int, list[str]]:
    """How many clips and tasks the student did, and those where somebody is ahead, with the most ahead."""
    there, lost = 0, []
    for task in suite.tasks:
        for clip in suite.clips:
            if suite.row(STUDENT, task.name, clip.name) is None:
                continue
            there += 1
            leads = {
                solver.name: lead for solver in suite.solvers
                if (lead := _lead(suite, measure, suite.row(solver.name, task.name, clip.name)))
            }  # fmt: skip
            best = max(leads, key=lambda name: leads[name], default=None)
            if best is not None and leads[best] > 0:
                lost.append(f"{task.name} of {clip.name} ({best}, by {leads[best]:.2g})")
    return there, lost


def _lead(suite: Suite, measure: Measure, row: Row | None) -> float | None:
    """By how much a row is better than the student's."""
    student = None if row is None else suite.row(STUDENT, row.task, row.clip)
    if (
        row is None
        or student is None
        or not {measure.name} <= row.metrics.keys() & {*student.metrics}
    ):
        return None
    more = row.metrics[measure.name] - student.metrics[measure.name]
    return more if measure.is_higher_better else -more


def gains(suite: Suite) -> list[str]:
    """Lines: by how much each solver betters the damaged videos themselves, a line for each task."""
    left = [task.name for task in suite.tasks if _is_left(suite, task.name)]
    lines = ["## In short", ""]
    if left:
        lines += [f"Left as they are, by everybody: {', '.join(left)}.", ""]
    for name, digits in (("psnr", 2), ("lpips_alex", 4)):
        measure = next((m for m in suite.measures if m.name == name), None)
        if measure is not None and any(name in row.metrics for row in suite.rows):
            lines += _gains(
                suite, measure, [t.name for t in suite.tasks if t.name not in left], digits
            )
    return lines


def _is_left(suite: Suite, task: str) -> bool:
    """Whether nothing was found that is sure to get better, in any clip."""
    return all(measured.told == UNCHANGED for measured in suite.measured if measured.task == task)


def _gains(suite: Suite, measure: Measure, tasks: list[str], digits: int) -> list[str]:
    """A table, the best of each line bold, and below it the mean of each column that is whole."""
    found = {
        solver.name: [_gain(suite, measure, solver.name, task) for task in tasks]
        for solver in suite.solvers
    }
    found = {name: gains for name, gains in found.items() if any(g is not None for g in gains)}
    better = max if measure.is_higher_better else min
    body = []
    for index, task in enumerate(tasks):
        line = [gains[index] for gains in found.values()]
        known = {round(gain, digits) for gain in line if gain is not None}
        best = better(known) if len(known) > 1 else None
        shown = ["" if gain is None else f"{gain:+.{digits}f}" for gain in line]
        bold = [
            f"**{t}**" if g is not None and round(g, digits) == best else t
            for g, t in zip(line, shown, strict=True)
        ]
        body.append([task, *bold])
    whole = [[gain for gain in gains if gain is not None] for gains in found.values()]
    means_of = [f"{np.mean(g):+.{digits}f}" if len(g) == len(tasks) else "" for g in whole]
    return [
        f"{measure.label} less that of the file itself (a small one with its pixels repeated), in the mean over clips "
        f"({'higher' if measure.is_higher_better else 'lower'} is better, bold the best; nothing where a "
        "solver cannot undo it, or has not done every clip that the student did):",
        "",
        *table(["file", *found], [*body, ["mean", *means_of]]),
        "",
    ]


def _gain(suite: Suite, measure: Measure, solver: str, task: str) -> float | None:
    before = {m.clip: m.metrics[measure.name] for m in suite.measured if m.task == task}
    clips = [c.name for c in suite.clips if suite.row(STUDENT, task, c.name) is not None]
    rows = [suite.row(solver, task, clip) for clip in clips]
    done = [row for row in rows if row is not None and measure.name in row.metrics]
    if not done or len(done) < len(clips):
        return None
    return float(np.mean([row.metrics[measure.name] - before[row.clip] for row in done]))


def main() -> None:
    """Read the folder, write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    suite = load_suite(parser.parse_args().folder)
    text = markdown(suite)
    short = in_short(suite) if suite.name == "paper" else gains(suite)
    title, rest = text.split("\n", 1)
    introduction, tables = rest.split("\n## ", 1)
    page = "\n".join(
        [title, "", PREFACE.format(name=suite.name) + introduction, *short, f"## {tables}"]
    )
    (DOCS / f"{suite.name}.md").write_text(page, encoding="utf-8")
    (RESULTS / f"suite_{suite.name}.csv").write_text(csv_text(suite), encoding="utf-8")
    whole = {"suite": asdict(suite), "means": [asdict(mean) for mean in means(suite)]}
    text = json.dumps(whole, separators=(",", ":"), ensure_ascii=False)
    (RESULTS / f"suite_{suite.name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
