"""A suite as tables: means by solver and task, Markdown, CSV, and where the student loses."""

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from instantvir_models.metrics.fvd import WINDOW, frechet_distance, split_half_floor
from instantvir_models.suite.measuring import FVD
from instantvir_models.suite.results import Measure, Row, Suite
from instantvir_models.suite.systems import STUDENT


@dataclass(frozen=True, kw_only=True)
class Mean:
    """One solver on one task, over the clips that it did."""

    solver: str
    task: str
    clips: int
    """How many it did."""
    metrics: dict[str, float]
    evaluations_per_frame: float | None
    seconds_per_frame: float | None
    """Median over clips; likewise below."""
    cpu_seconds_per_frame: float | None
    times_slower: float | None
    """CPU seconds of it over those of the student on the same clips, the median; wall seconds of a peer."""
    times_slower_range: tuple[float, float] | None
    """The least and the most of any clip."""
    psnr_ahead: float | None
    """By how much its PSNR is above the student's, in dB, over the clips that both did."""
    failure: str | None
    """The first one, where it did no clip."""
    is_refused: bool = False


def means(suite: Suite) -> tuple[Mean, ...]:
    """Of every solver and task that has a row."""
    return tuple(
        _mean(suite, solver.name, task.name)
        for task in suite.tasks
        for solver in suite.solvers
        if any((row.solver, row.task) == (solver.name, task.name) for row in suite.rows)
    )


def _mean(suite: Suite, solver: str, task: str) -> Mean:
    every = [row for row in suite.rows if (row.solver, row.task) == (solver, task)]
    rows = [row for row in every if row.failure is None]
    failed = next((row for row in every if row.failure is not None), None)
    slower = _slower(suite, rows)
    return Mean(
        solver=solver,
        task=task,
        clips=len(rows),
        metrics={
            m.name: value for m in suite.measures if (value := _value(suite, rows, m)) is not None
        },
        evaluations_per_frame=_median(rows, lambda row: row.evaluations_per_frame),
        seconds_per_frame=_median(rows, lambda row: row.seconds_per_frame),
        cpu_seconds_per_frame=_median(rows, lambda row: row.cpu_seconds_per_frame),
        times_slower=float(np.median(slower)) if slower else None,
        times_slower_range=(min(slower), max(slower)) if slower else None,
        psnr_ahead=_psnr_ahead(suite, rows),
        failure=None if rows or failed is None else failed.failure,
        is_refused=not rows and failed is not None and failed.is_refused,
    )


def _value(suite: Suite, rows: list[Row], measure: Measure) -> float | None:
    return _distance(suite, rows) if measure.name == FVD else _of(rows, measure.name)


LEAST_WINDOWS = 4
"""Without two in each half nothing can be said of the truth itself."""


def _distance(suite: Suite, rows: list[Row]) -> float | None:
    """FVD of all clips together; None where one is not there, or where they are too few."""
    restored = [features for row in rows for features in row.features]
    truth = true_features(suite)
    if len(truth) < LEAST_WINDOWS or len(restored) != len(truth):
        return None
    return frechet_distance(np.array(restored), truth)


def true_features(suite: Suite) -> NDArray[np.float64]:
    """What the network of FVD sees in all clean clips, a row for each window."""
    return np.array([features for seen in suite.truth for features in seen.features])


def floor(suite: Suite) -> str | None:
    """A sentence: what FVD is worth here; None where it is not there."""
    truth = true_features(suite)
    if len(truth) < LEAST_WINDOWS:
        return None
    return (
        f"FVD is of {len(truth)} windows of up to {WINDOW} frames, and the two halves of the truth are "
        f"{split_half_floor(truth):.0f} apart: what differs by less says nothing"
    )


def measures_there(suite: Suite) -> list[Measure]:
    """Those that some solver has."""
    there = {name for row in suite.rows for name in row.metrics}
    there |= {FVD} if floor(suite) is not None else set()
    return [measure for measure in suite.measures if measure.name in there]


def _of(rows: list[Row], measure: str) -> float | None:
    """Mean over rows; None unless each has it."""
    values = [row.metrics[measure] for row in rows if measure in row.metrics]
    return float(np.mean(values)) if rows and len(values) == len(rows) else None


def _median(rows: list[Row], of: Callable[[Row], float | None]) -> float | None:
    values = [value for row in rows if (value := of(row)) is not None]
    return float(np.median(values)) if values else None


def _slower(suite: Suite, rows: list[Row]) -> list[float]:
    """By clip."""
    pairs = [
        (_cost(row), _cost(student))
        for row in rows
        if (student := suite.row(STUDENT, row.task, row.clip)) is not None
    ]
    return [mine / theirs for mine, theirs in pairs if mine and theirs]


def _psnr_ahead(suite: Suite, rows: list[Row]) -> float | None:
    leads = [
        row.metrics["psnr"] - student.metrics["psnr"]
        for row in rows
        if (student := suite.row(STUDENT, row.task, row.clip)) is not None
        and "psnr" in student.metrics
    ]
    return float(np.mean(leads)) if leads else None


def _cost(row: Row) -> float | None:
    return row.cpu_seconds_per_frame or row.seconds_per_frame


def shown(value: float | None, digits: int) -> str:
    """A number as a table shows it, nothing where there is none."""
    return "" if value is None else f"{value:.{digits}f}"


DIGITS = {"ssim": 4, "lpips_alex": 4, "lpips_vgg": 4, "fvd": 0}


IN_SHORT = {"psnr": "PSNR", "lpips_alex": "LPIPS", "frame_difference_psnr": "change"}
"""Measures for a terminal, and what they are called there; a page has room for all."""

SHORT_WORDS = (
    "PSNR, that of the change from frame to frame, and by how much PSNR is ahead of the student's, in dB; "
    "evaluations of a network and CPU seconds a frame, and how many times the student's those are"
)
"""What the columns of a short table mean."""


def header(suite: Suite, *, in_short: bool = False) -> list[str]:
    """Columns of a task's table; `in_short` those that fit a terminal of 80 letters."""
    measured = _shown_measures(suite, in_short)
    if in_short:
        named = [IN_SHORT[measure.name] for measure in measured]
        return ["solver", *named, "ahead", "eval.", "CPU s", "x time", "clips"]
    return [
        "solver",
        *(measure.label for measure in measured),
        "dB ahead of student",
        "evaluations/frame",
        "CPU s/frame",
        "x the student's time",
        "clips",
    ]


def cells(suite: Suite, mean: Mean, *, in_short: bool = False) -> list[str]:
    """A line of a task's table, as `header` has its columns."""
    if mean.clips == 0:
        said = "cannot undo it" if mean.is_refused else f"failed: {mean.failure}"
        empty = [""] * (len(header(suite, in_short=in_short)) - 3)
        return [mean.solver, said, *empty, f"0/{len(suite.clips)}"]
    slower = "" if mean.times_slower is None else f"{mean.times_slower:.3g}"
    if mean.times_slower_range is not None and mean.clips > 1 and not in_short:
        low, high = mean.times_slower_range
        slower += f" ({low:.3g} to {high:.3g})"
    cost = mean.cpu_seconds_per_frame or mean.seconds_per_frame
    return [
        mean.solver,
        *(
            shown(mean.metrics.get(m.name), DIGITS.get(m.name, 2))
            for m in _shown_measures(suite, in_short)
        ),
        "" if mean.psnr_ahead is None else f"{mean.psnr_ahead:+.2f}",
        shown(mean.evaluations_per_frame, 1).removesuffix(".0"),
        "" if cost is None else f"{cost:.{2 if in_short else 3}g}",
        slower,
        f"{mean.clips}/{len(suite.clips)}",
    ]


def _shown_measures(suite: Suite, in_short: bool) -> list[Measure]:
    there = measures_there(suite)
    return [measure for measure in there if measure.name in IN_SHORT] if in_short else there


def losses(suite: Suite, task: str) -> list[str]:
    """Sentences: who is ahead of the student in a task, in which measure, on the clips that both did."""
    said = []
    for solver in suite.solvers:
        rows = [
            row for row in suite.rows
            if (row.solver, row.task) == (solver.name, task) and row.failure is None
        ]  # fmt: skip
        if solver.name == STUDENT or not rows:
            continue
        ahead = [text for m in _judged(suite) if (text := _ahead(suite, rows, m)) is not None]
        if ahead:
            said.append(f"{solver.name}: {'; '.join(ahead)}.")
    return said or ["Nobody."]


def _judged(suite: Suite) -> list[Measure]:
    return [
        m for m in suite.measures if m.name not in {"block_jump", "residual_over_noise", "vmaf"}
    ]


def _ahead(suite: Suite, rows: list[Row], measure: Measure) -> str | None:
    pairs = [
        (row.metrics[measure.name], student.metrics[measure.name])
        for row in rows
        if (student := suite.row(STUDENT, row.task, row.clip)) is not None
        and measure.name in row.metrics
        and measure.name in student.metrics
    ]
    if not pairs:
        return None
    theirs, ours = (float(np.mean(side)) for side in zip(*pairs, strict=True))
    is_ahead = theirs > ours if measure.is_higher_better else theirs < ours
    digits = DIGITS.get(measure.name, 2)
    return f"{measure.label} {theirs:.{digits}f} against {ours:.{digits}f}" if is_ahead else None


def markdown(suite: Suite) -> str:
    """Everything as Markdown: a table for each task, what the papers say, the receipt."""
    lines = [f"# Suite `{suite.name}`", "", *_introduction(suite), ""]
    by_task = means(suite)
    for task in suite.tasks:
        lines += [f"## {task.name}: `{task.spec}`", ""]
        lines += [
            *table(header(suite), [cells(suite, m) for m in by_task if m.task == task.name]),
            "",
        ]
        lines += _told(suite, task.name)
        lines += ["Ahead of the student, on the clips that both did:", ""]
        lines += [f"- {sentence}" for sentence in losses(suite, task.name)]
        lines += [""]
    if suite.published:
        lines += ["## What the papers say", "", *_published(suite), ""]
    lines += ["## Who takes part", "", *_who(suite), ""]
    return "\n".join(lines)


def _told(suite: Suite, task: str) -> list[str]:
    """What was found in each clip, where nothing was told."""
    told = [f"{m.clip} `{m.told}`" for m in suite.measured if m.task == task and m.told]
    return [f"Found: {', '.join(told)}.", ""] if told else []


def table(head: list[str], body: Iterable[list[str]]) -> list[str]:
    """Lines of a Markdown table."""
    rule = "|---" * len(head) + "|"
    return [_line(head), rule, *(_line(row) for row in body)]


def _line(row: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"


def _introduction(suite: Suite) -> list[str]:
    receipt, clip = suite.receipt, suite.clips[0]
    done = ""
    if not suite.is_complete:
        done = (
            f" **{len(suite.rows)} of {suite.rows_wanted} rows are there**: a mean is over the clips "
            "that its last column tells, so compare solvers by `dB ahead of student`, which is over the "
            "same clips, where they did not do all."
        )
    return [
        f"{len(suite.clips)} clips of {clip.frames} frames of {clip.width}x{clip.height}, seed "
        f"{receipt.seed}, every measurement stored as 8 bits and the same for all.{done}",
        "",
        f"`{receipt.command}`; instantvir {receipt.instantvir}, Python {receipt.python}, torch "
        f"{receipt.torch}, {receipt.cpu}, {receipt.cores} cores, {receipt.threads} threads, begun "
        f"{receipt.started}. Seconds are CPU seconds of this process, so that others on the machine "
        "do not count.",
        *[f"\n{sentence}." for sentence in (floor(suite), *suite.missing) if sentence],
    ]


def _published(suite: Suite) -> list[str]:
    figures = suite.published
    columns = [(task, m) for m in ("psnr", "lpips", "fvd") for task in ("inpaint", "sr", "deblur")]
    head = ["system (the paper's figures)", *(f"{m.upper()} {task}" for task, m in columns), "FPS"]
    body = []
    for system in dict.fromkeys(figure.system for figure in figures):
        by = {(f.task, f.measure): f for f in figures if f.system == system}
        speed = by.get(("", "frames_per_second"))
        fps = "" if speed is None else f"{'<' if speed.is_below else ''}{speed.value:g}"
        found = [by.get(key) for key in columns]
        body.append([system, *("" if f is None else f"{f.value:g}" for f in found), fps])
    return [f"{figures[0].source}. Not measured here.", "", *table(head, body)]


def _who(suite: Suite) -> list[str]:
    return [
        f"- **{s.name}** ({s.family}{', ' + s.prior if s.prior else ''}): {s.about}"
        + (f". {s.source}" if s.source else "")
        + (f". {s.settings}" if s.settings else "")
        + (f". Otherwise than there: {'; '.join(s.deviations)}" if s.deviations else "")
        + "."
        for s in suite.solvers
    ]


def csv_text(suite: Suite) -> str:
    """One line for each row."""
    plain = [
        field.name for field in fields(Row)
        if field.name not in {"metrics", "curves", "stages", "film", "features"}
    ]  # fmt: skip
    names = [measure.name for measure in suite.measures]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow([*plain, *names])
    for row in suite.rows:
        writer.writerow(
            [*(getattr(row, name) for name in plain), *(row.metrics.get(name) for name in names)]
        )
    return out.getvalue()
