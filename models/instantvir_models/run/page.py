"""What came of one video, as a page: a wipe, what is left unexplained, what was found, how long it took."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from instantvir_models.operators.measurement import LEVEL
from instantvir_models.report.page import (
    Bars,
    Column,
    Item,
    Line,
    Lines,
    Page,
    Player,
    Scene,
    Section,
    Table,
    View,
)
from instantvir_models.report.strips import Strips, fitted_strips, heat_strip, largest_error
from instantvir_models.run.album import Moment
from instantvir_models.run.gain import Gain
from instantvir_models.run.pipeline import PipelineReport

if TYPE_CHECKING:
    from instantvir_models.run.restore_report import RestoreReport

BUDGET_BYTES = 3_600_000
"""Text that the pictures of a page may take."""

HEAT_PIXELS = 120
"""Columns of a map of errors."""

MOST_POINTS = 400
"""Of a curve; longer ones are shown as means."""

BEFORE, AFTER, TRUTH = "input", "restored", "truth"


def restored_page(
    report: "RestoreReport",
    ran: PipelineReport | None = None,
    *,
    moments: Sequence[Moment] = (),
    frames_per_second: float = 12,
    gain: Gain | None = None,
) -> Page:
    """The page of a restoration; of a video that was copied, only what was found.

    Args:
        ran: what the run did; None where there was none.
        moments: frames to show.
        gain: frame by frame, where there was a reference.
    """
    return Page(
        title=f"instantvir restore: {report.input}",
        lead=_lead(report),
        facts=_facts(report),
        warnings=tuple(_warnings(report)),
        sections=tuple(_sections(report, ran, moments, frames_per_second, gain)),
        receipt=_receipt(report),
    )


def _lead(report: "RestoreReport") -> str:
    if report.is_unchanged:
        return "Nothing was sure enough to be changed."
    how = "known" if report.is_operator_known else "estimated or assumed"
    return f"Restored by {report.model}; what happened to it ({report.operator}) is {how}."


def _facts(report: "RestoreReport") -> dict[str, str]:
    width, height = report.output_size
    facts = {"size": f"{width}x{height}"}
    if report.frames is not None:
        facts["frames"] = str(report.frames)
    if report.fps is not None:
        facts["frames per second"] = f"{report.fps:.2f}"
    if report.residual is not None:
        facts["residual |A x - y| / |y|"] = f"{report.residual:.4f}"
    if report.gain is not None:
        facts["gain"] = f"{report.gain:+.2f} dB"
        facts["PSNR, mean of the frames, before and after"] = (
            f"{report.input_psnr:.2f}, {report.output_psnr:.2f} dB"
        )
        facts["PSNR of the mean square over all frames"] = (
            f"{report.input_psnr_over_frames:.2f}, {report.output_psnr_over_frames:.2f} dB"
        )
    return facts


def _warnings(report: "RestoreReport") -> Iterator[str]:
    if report.damage:
        yield f"The input is damaged: {report.damage}."
    if report.is_silent:
        yield "The input had sound, the output has none."
    if report.frames_guarded:
        yield (
            f"{report.frames_guarded} of {report.frames} frames are the initial estimate in some "
            f"places, {report.frames_replaced} of them altogether: what was made of them contradicted "
            "the measurement, or had no reason in it."
        )
    yield from (f"Not carried over: {loss}." for loss in report.not_carried_over or ())


def _sections(
    report: "RestoreReport",
    ran: PipelineReport | None,
    moments: Sequence[Moment],
    frames_per_second: float,
    gain: Gain | None,
) -> Iterator[Section]:
    if moments:
        yield Section(title="Before and after", items=(_player(moments, frames_per_second),))
    found = tuple(_found(report))
    if found:
        yield Section(title="What was found", items=found)
    if ran is not None and ran.frames:
        yield Section(title="Frame by frame", items=tuple(_curves(report, ran, gain)))
        yield Section(title="How long it took", items=tuple(_times(ran)))


def _player(moments: Sequence[Moment], frames_per_second: float) -> Player:
    count = min(len(moment.after) for moment in moments)
    videos = {
        (moment.first_frame, name): frames[:count]
        for moment in moments
        for name, frames in _versions(moment).items()
    }
    strips = fitted_strips(videos, budget_bytes=BUDGET_BYTES)
    return Player(
        title="",
        scenes=tuple(_scene(moment, strips, frames_per_second) for moment in moments),
        heat_label="error against the reference"
        if any(moment.error_levels is not None for moment in moments)
        else "|A x - y|, what the restoration leaves unexplained of the input: noise should be",
        note=strips.sentence,
    )


def _versions(moment: Moment) -> dict[str, np.ndarray]:
    views = {BEFORE: moment.before, AFTER: moment.after}
    return views if moment.truth is None else {**views, TRUTH: moment.truth}


def _scene(moment: Moment, strips: Strips, frames_per_second: float) -> Scene:
    errors = moment.residual_levels if moment.error_levels is None else moment.error_levels
    shown = errors[strips.first : strips.first + strips.frames]
    most = largest_error([shown])
    width, height = moment.after.shape[2], moment.after.shape[1]
    heat = heat_strip(shown, most=most, width=min(HEAT_PIXELS, shown.shape[2]))
    minutes, seconds = divmod(moment.seconds, 60)
    full = f"{moment.size[0]}x{moment.size[1]}"
    return Scene(
        keys={"at": f"{int(minutes)}:{seconds:05.2f}"},
        width=width,
        height=height,
        frames_per_second=min(frames_per_second, 25),
        views=tuple(
            View(
                name=name,
                strip=strips.strips[moment.first_frame, name],
                heat=heat if name == AFTER else None,
            )
            for name in _versions(moment)
        ),
        left=BEFORE,
        right=AFTER,
        heat_levels=most,
        note=f"Frames of {full} are shown at {width}x{height}." if moment.size[0] != width else "",
    )


def _found(report: "RestoreReport") -> Iterator[Item]:
    if report.findings:
        yield Table(
            title="",
            columns=(
                Column(label="finding"),
                Column(label="value", digits=2),
                Column(label="from", digits=2),
                Column(label="to, 95 times in 100", digits=2),
                Column(label="unit"),
                Column(label="confidence"),
            ),
            rows=tuple(
                (f.sentence, f.value, f.low, f.high, f.unit, f.confidence) for f in report.findings
            ),
            note=f"The same, explicitly: {report.command}" if report.command else "",
        )
    if report.estimates:
        yield Table(
            title="Read off the video",
            columns=(
                Column(label="what"),
                Column(label="value", digits=3),
                Column(label="one standard deviation", digits=3),
                Column(label="unit"),
                Column(label="confidence"),
            ),
            rows=tuple((e.name, e.value, e.std, e.unit, e.confidence) for e in report.estimates),
        )


def _curves(report: "RestoreReport", ran: PipelineReport, gain: Gain | None) -> Iterator[Item]:
    std = [value / LEVEL for value in ran.session.frame_std]
    if any(std):
        start = ran.frames - len(std)
        yield _curve(
            "How far the restoration believes to be off",
            "levels of 255, rms",
            {"expected error": std},
            start,
            note="One number for each block, as the student says it of itself.",
        )
    if gain is not None:
        yield _curve(
            "Against the reference", "PSNR, dB", {"input": gain.before, "restored": gain.after}, 0
        )
    if report.guarded:
        part = [0.0] * ran.frames
        for each in report.guarded:
            if each.frame < ran.frames:
                part[each.frame] = 100 * each.replaced
        yield _curve(
            "Where the initial estimate is shown instead", "% of the area", {"replaced": part}, 0
        )


def _curve(
    title: str,
    label: str,
    of: Mapping[str, Sequence[float]],
    start: int,
    note: str = "",
    x_label: str = "frame",
) -> Lines:
    length = max(len(values) for values in of.values())
    step = max(1, -(-length // MOST_POINTS))
    return Lines(
        title=title,
        x_label=x_label,
        y_label=label,
        x=tuple(str(start + place + 1) for place in range(0, length, step)),
        lines=tuple(
            Line(
                label=name,
                values=tuple(
                    statistics.fmean(values[place : place + step])
                    for place in range(0, len(values), step)
                ),
            )
            for name, values in of.items()
        ),
        note=note,
    )


def _times(ran: PipelineReport) -> Iterator[Item]:
    stages = {name: 1000 * seconds / ran.frames for name, seconds in ran.stage_seconds.items()}
    yield Bars(
        title="Busy, by stage",
        value_label="ms a frame",
        names=("this video",),
        parts=tuple(Line(label=name, values=(value,)) for name, value in stages.items()),
        note="Reading and writing go on beside the rest.",
    )
    blocks = [1000 * seconds for seconds in ran.session.block_seconds]
    if blocks:
        p50, p95, p99 = (float(np.percentile(blocks, q)) for q in (50, 95, 99))
        first = ran.first_frame_seconds or 0
        yield _curve(
            "Block by block",
            "ms",
            {"block": blocks},
            0,
            x_label="block",
            note=f"p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms; the first frame came after "
            f"{first:.2f} s.",
        )


def _receipt(report: "RestoreReport") -> dict[str, str]:
    receipt = {
        "input": report.input,
        "output": report.output or "none",
        "instantvir": report.version,
        "model": report.model,
        "operator": report.operator,
    }
    if report.model_sha256 is not None:
        receipt["weights, sha256"] = report.model_sha256
    if report.wall_seconds is not None:
        receipt["seconds"] = f"{report.wall_seconds:.1f}"
    return receipt
