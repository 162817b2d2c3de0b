"""A suite as a page: tables by task, speed against quality, where time goes, and every restoration to look at."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from instantvir_models.report.page import (
    Bars,
    Cell,
    Column,
    Item,
    Line,
    Page,
    Player,
    Point,
    Scatter,
    Scene,
    Section,
    Table,
    View,
)
from instantvir_models.report.strips import Strips, fitted_strips, heat_strip, largest_error
from instantvir_models.suite.results import (
    Curve,
    Frames,
    MeasuredClip,
    Row,
    Suite,
    SuiteClip,
    load_film,
)
from instantvir_models.suite.systems import STUDENT
from instantvir_models.suite.tables import DIGITS, Mean, floor, losses, means, measures_there

BUDGET_BYTES = 3_400_000
"""Text that the pictures of a page may take; with maps, tables and Chart.js a page stays below 5 MB."""

HEAT_PIXELS = 32
"""Columns of a map of errors."""

QUALITY = "psnr"
"""The measure that speed is shown against, where it was measured."""

MEASUREMENT, TRUTH = "measurement", "truth"
"""Names of views beside those of solvers."""


def suite_page(suite: Suite, folder: Path) -> Page:
    """The page of a suite, complete or not, whose films lie in `folder`.

    Raises:
        UsageError: if a film is missing.
    """
    return Page(
        title=f"instantvir benchmark: suite {suite.name}",
        lead=_lead(suite),
        facts=_facts(suite),
        warnings=(*_unfinished(suite), *suite.missing),
        sections=tuple(_sections(suite, folder)),
        receipt=_receipt(suite),
    )


def _lead(suite: Suite) -> str:
    said = "Every solver restored the same measurements of the same clips, one after the other, on one machine."
    distance = floor(suite)
    return said if distance is None else f"{said} {distance}."


def _facts(suite: Suite) -> dict[str, str]:
    failed = sum(row.failure is not None and not row.is_refused for row in suite.rows)
    facts = {
        "clips": str(len(suite.clips)),
        "tasks": str(len(suite.tasks)),
        "solvers": str(len(suite.solvers)),
        "restorations": f"{len(suite.rows)} of {suite.rows_wanted}",
    }
    if failed:
        facts["of these failed"] = str(failed)
    return facts


def _unfinished(suite: Suite) -> tuple[str, ...]:
    if suite.is_complete:
        return ()
    text = f"This suite is not complete: {len(suite.rows)} of {suite.rows_wanted} restorations are there. "
    return (text + "Means are over what is there, so they are not always over the same clips.",)


def _sections(suite: Suite, folder: Path) -> Iterator[Section]:
    for task in suite.tasks:
        yield Section(
            title=task.name,
            lead=f"{task.about}: {task.spec}",
            items=tuple(_results(suite, task.name)),
        )
    yield Section(title="Where the time goes", items=tuple(_stages(suite)))
    yield Section(title="Look at them", items=tuple(_players(suite, folder)))
    if suite.published:
        yield Section(title="What papers say", items=(_published(suite),))
    yield Section(title="Solvers", items=(_solvers(suite),))


def _results(suite: Suite, task: str) -> Iterator[Item]:
    yield _means(suite, task)
    cloud = _cloud(suite, task)
    if len(cloud.points) > 1:
        yield cloud
    failures = [
        row for row in suite.rows if row.task == task and row.failure and not row.is_refused
    ]
    if failures:
        yield Table(
            title="What failed",
            columns=tuple(Column(label=label) for label in ("solver", "clip", "why")),
            rows=tuple((row.solver, row.clip, row.failure) for row in failures),
        )


def _means(suite: Suite, task: str) -> Table:
    """A row for each solver that did any clip, and one for what nobody has restored."""
    measured = measures_there(suite)
    columns = (
        Column(label="solver"),
        *(
            Column(
                label=m.label,
                digits=DIGITS.get(m.name, 2),
                best="high" if m.is_higher_better else "low",
            )
            for m in measured
        ),
        Column(label="dB ahead of student", digits=2),
        Column(label="CPU s/frame", digits=4, best="low"),
        Column(label="evaluations/frame", digits=1),
        Column(label="x the student's time", digits=1),
        Column(label="clips", digits=0),
    )
    rows: list[tuple[Cell, ...]] = [
        (
            mean.solver,
            *(mean.metrics.get(m.name) for m in measured),
            mean.psnr_ahead,
            _cost(mean),
            mean.evaluations_per_frame,
            mean.times_slower,
            mean.clips,
        )
        for mean in means(suite)
        if mean.task == task and mean.clips
    ]
    refused = [m.solver for m in means(suite) if m.task == task and m.is_refused]
    note = "Measures are means over clips, times medians. Ahead of the student: "
    return Table(
        title="",
        columns=columns,
        rows=(*_of_measurement(suite, task), *rows),
        note=note
        + " ".join(losses(suite, task))
        + (f" Not for this task: {', '.join(refused)}." if refused else ""),
    )


def _cost(mean: Mean) -> float | None:
    """Seconds a frame: of the CPU, or of a peer the whole command."""
    return mean.cpu_seconds_per_frame or mean.seconds_per_frame


def _of_measurement(suite: Suite, task: str) -> Iterator[tuple[Cell, ...]]:
    """The row of what nobody has restored; none where there is no truth to compare it with."""
    clips = [m for m in suite.measured if m.task == task and m.metrics]
    if clips:
        values = ([c.metrics.get(m.name) for c in clips] for m in measures_there(suite))
        yield (MEASUREMENT, *(_mean(of) for of in values), None, None, None, None, len(clips))


def _cloud(suite: Suite, task: str) -> Scatter:
    names = [measure.name for measure in suite.measures]
    quality = QUALITY if QUALITY in names else (names or [QUALITY])[0]
    labels = {measure.name: measure.label for measure in suite.measures}
    families = {solver.name: solver.family for solver in suite.solvers}
    return Scatter(
        title="Speed against quality",
        x_label="CPU seconds a frame",
        y_label=labels.get(quality, quality),
        points=tuple(
            Point(label=mean.solver, x=cost, y=mean.metrics[quality], group=families[mean.solver])
            for mean in means(suite)
            if mean.task == task and quality in mean.metrics and (cost := _cost(mean))
        ),
        is_x_logarithmic=True,
        note="Left and high is good; a step to the left is a multiple of speed. Shapes are families.",
    )


def _stages(suite: Suite) -> Iterator[Item]:
    """For each task a bar for each solver; shares, for their times differ a thousandfold."""
    for task in suite.tasks:
        shares = {
            solver.name: share
            for solver in suite.solvers
            if (share := _shares(_done(suite, solver.name, task.name)))
        }
        if shares:
            stages = dict.fromkeys(stage for share in shares.values() for stage in share)
            yield Bars(
                title=task.name,
                value_label="% of the time of a frame",
                most=100,
                names=tuple(shares),
                parts=tuple(
                    Line(
                        label=stage,
                        values=tuple(share.get(stage, 0.0) for share in shares.values()),
                    )
                    for stage in stages
                ),
            )


def _shares(rows: Sequence[Row]) -> dict[str, float]:
    """Percent of the time, by stage."""
    seconds: dict[str, float] = {}
    for row in rows:
        for stage in row.stages:
            seconds[stage.name] = seconds.get(stage.name, 0.0) + stage.seconds_per_frame
    whole = sum(seconds.values())
    return {name: 100 * value / whole for name, value in seconds.items()} if whole > 0 else {}


Key = tuple[str, str, str]
"""Task (empty for the truth), clip, view."""


def _players(suite: Suite, folder: Path) -> Iterator[Player]:
    films = _films(suite, folder)
    if not films:
        return
    strips = fitted_strips(films, budget_bytes=BUDGET_BYTES)
    scenes = [
        scene
        for clip in suite.clips
        for task in suite.tasks
        if (scene := _scene(suite, clip, task.name, films, strips)) is not None
    ]
    yield Player(
        title="",
        scenes=tuple(scenes),
        heat_label="mean absolute error against the truth",
        note=f"Frames {strips.first + 1} to {strips.first + strips.frames}. {strips.sentence}",
    )


def _films(suite: Suite, folder: Path) -> dict[Key, Frames]:
    """Every film, all cut to as many frames."""
    named = {("", clip.name, TRUTH): clip.truth for clip in suite.clips if clip.truth is not None}
    named |= {(m.task, m.clip, MEASUREMENT): m.film for m in suite.measured}
    named |= {(r.task, r.clip, r.solver): r.film for r in suite.rows if r.film is not None}
    films = {key: load_film(film, folder) for key, film in named.items()}
    shortest = min((len(frames) for frames in films.values()), default=0)
    return {key: frames[:shortest] for key, frames in films.items()}


def _scene(
    suite: Suite, clip: SuiteClip, task: str, films: Mapping[Key, Frames], strips: Strips
) -> Scene | None:
    measured = next((m for m in suite.measured if (m.task, m.clip) == (task, clip.name)), None)
    if measured is None:
        return None
    shown = slice(strips.first, strips.first + strips.frames)
    truth = films.get(("", clip.name, TRUTH))
    done = [r for r in suite.rows if (r.task, r.clip) == (task, clip.name) and r.film is not None]
    errors = {
        name: _error_levels(films[task, clip.name, name][shown], truth[shown])
        for name in (MEASUREMENT, *(row.solver for row in done))
        if truth is not None
    }
    most = largest_error(list(errors.values()))

    def view(name: str, of: MeasuredClip | Row | None) -> View:
        error = errors.get(name)
        return View(
            name=name,
            strip=strips.strips["" if of is None else task, clip.name, name],
            heat=None if error is None else heat_strip(error, most=most, width=HEAT_PIXELS),
            facts={} if of is None else _view_facts(suite, of),
            curves=() if of is None else _curves(suite, of.curves, shown),
        )

    views = [view(MEASUREMENT, measured), *(view(row.solver, row) for row in done)]
    if truth is not None:
        views.append(view(TRUTH, None))
    ours = _student(suite)
    return Scene(
        keys={"clip": clip.name, "task": task},
        width=clip.width,
        height=clip.height,
        frames_per_second=min(clip.frames_per_second, 12),
        views=tuple(views),
        left=MEASUREMENT,
        right=ours if any(v.name == ours for v in views) else views[-1].name,
        heat_levels=most,
        note=clip.source,
    )


def _error_levels(film: Frames, truth: Frames) -> NDArray[np.float32]:
    """[T, H, W], mean over channels; a smaller film is enlarged by pixel repetition."""
    down = truth.shape[1] // film.shape[1]
    whole = film if down <= 1 else film.repeat(down, 1).repeat(down, 2)
    height, width = (min(a, b) for a, b in zip(whole.shape[1:3], truth.shape[1:3], strict=True))
    error = np.abs(whole[:, :height, :width].astype(np.float32) - truth[:, :height, :width])
    return np.asarray(error.mean(-1), np.float32)


def _view_facts(suite: Suite, of: MeasuredClip | Row) -> dict[str, str]:
    facts = {
        m.label: f"{of.metrics[m.name]:.{DIGITS.get(m.name, 2)}f}"
        for m in suite.measures
        if m.name in of.metrics
    }
    if isinstance(of, Row) and of.seconds_per_frame is not None:
        facts["s/frame"] = f"{of.seconds_per_frame:.3g}"
    return facts


def _curves(suite: Suite, curves: Sequence[Curve], shown: slice) -> tuple[Line, ...]:
    labels = {m.name: m.label for m in suite.measures}
    counts = [len(curve.values) for curve in curves]
    lines = []
    for curve in curves:
        is_of_changes = len(curve.values) < max(counts)
        values = (None, *curve.values) if is_of_changes else curve.values
        lines.append(Line(label=labels.get(curve.measure, curve.measure), values=values[shown]))
    return tuple(lines)


def _published(suite: Suite) -> Table:
    """A row for each system, a column for each measure of each task."""
    keys = list(dict.fromkeys((figure.measure, figure.task) for figure in suite.published))
    systems = dict.fromkeys(figure.system for figure in suite.published)
    by = {(f.system, f.measure, f.task): f for f in suite.published}

    def figure(system: str, measure: str, task: str) -> str:
        found = by.get((system, measure, task))
        return "" if found is None else f"{'< ' if found.is_below else ''}{found.value:g}"

    return Table(
        title="",
        columns=(
            Column(label="system (the paper's figures)"),
            *(Column(label=f"{measure} {task}".replace("_", " ")) for measure, task in keys),
        ),
        rows=tuple((system, *(figure(system, *key) for key in keys)) for system in systems),
        note=f"{'; '.join(dict.fromkeys(f.source for f in suite.published))}. Not measured here: other "
        "clips, sizes, weights and machines than above.",
    )


def _solvers(suite: Suite) -> Table:
    labels = ("solver", "family", "what it does", "prior", "settings", "differs from its paper")
    return Table(
        title="",
        columns=tuple(Column(label=label) for label in labels),
        rows=tuple(
            (s.name, s.family, s.about or s.command, s.prior, s.settings, "; ".join(s.deviations))
            for s in suite.solvers
        ),
    )


def _receipt(suite: Suite) -> dict[str, str]:
    made = suite.receipt
    load = "unknown" if made.load_at_start is None else f"{made.load_at_start:.1f}"
    sizes = dict.fromkeys(f"{c.width}x{c.height}, {c.frames} frames" for c in suite.clips)
    return {
        "command": made.command,
        "started": made.started,
        "versions": f"instantvir {made.instantvir}, Python {made.python}, PyTorch {made.torch}",
        "machine": f"{made.cpu}, {made.cores} cores, {made.threads} used",
        "load at the start": load,
        "clips": "; ".join(sizes),
        "seed": str(made.seed),
    }


def _student(suite: Suite) -> str:
    """The solver that others are compared with: ours, else the first of all."""
    names = [solver.name for solver in suite.solvers]
    return STUDENT if STUDENT in names else (names or [""])[0]


def _done(suite: Suite, solver: str, task: str) -> list[Row]:
    return [r for r in suite.rows if (r.solver, r.task) == (solver, task) and r.failure is None]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
