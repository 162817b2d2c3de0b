"""Speeds as a page."""

from collections.abc import Sequence

from instantvir_models.report.page import Bars, Cell, Column, Line, Lines, Page, Section, Table
from instantvir_models.speed.measure import Failed, Speed, Spread
from instantvir_models.speed.plan import SpeedPlan


def speed_page(results: Sequence[Speed | Failed], command: str) -> Page:
    """Everything that was measured, configuration by configuration."""
    speeds = [result for result in results if isinstance(result, Speed)]
    names = dict(zip((id(r) for r in results), _names(results), strict=True))
    return Page(
        title="instantvir benchmark: speed",
        lead="The whole command, from opening the file to closing the result.",
        facts={names[id(s)]: f"{s.fps.median:.2f} FPS" for s in speeds[:8]},
        warnings=tuple(f"{names[id(r)]}: {r.failure}" for r in results if isinstance(r, Failed)),
        sections=(
            Section(title="Speed", items=(_table(speeds, names),)),
            Section(
                title="Where the time goes",
                items=(
                    _bars("One thing after the other", speeds, names, "timeline_ms_per_frame"),
                    _bars("Busy, side by side", speeds, names, "stage_ms_per_frame"),
                ),
            ),
            Section(title="Block by block", items=(_blocks(speeds, names),)),
        ),
        receipt=_receipt(speeds, command),
    )


def _names(results: Sequence[Speed | Failed]) -> list[str]:
    """What tells the configurations apart."""
    plans = [SpeedPlan(**result.request) for result in results]
    shown = [", ".join(f"{k} {v}" for k, v in plan.differences(plans).items()) for plan in plans]
    return [text or f"{plan.task}, {plan.size}" for text, plan in zip(shown, plans, strict=True)]


def _table(speeds: Sequence[Speed], names: dict[int, str]) -> Table:
    def numbers(spread: Spread) -> tuple[Cell, Cell]:
        return spread.median, f"{spread.low:.2f} .. {spread.high:.2f}"

    return Table(
        title="",
        columns=(
            Column(label="configuration"),
            Column(label="FPS", digits=2, best="high"),
            Column(label="over the runs"),
            Column(label="first frame, s", digits=2, best="low"),
            Column(label="block p50, ms", digits=0, best="low"),
            Column(label="p95", digits=0, best="low"),
            Column(label="p99", digits=0, best="low"),
            Column(label="CPU s/frame", digits=3, best="low"),
            Column(label="memory, MiB", digits=0, best="low"),
            Column(label="on the card, MiB", digits=0, best="low"),
            Column(label="J/frame", digits=2, best="low"),
            Column(label="dB to float32", digits=1),
        ),
        rows=tuple(
            (
                names[id(s)],
                *numbers(s.fps),
                s.first_frame_seconds.median,
                s.block_ms["p50"],
                s.block_ms["p95"],
                s.block_ms["p99"],
                s.cpu_seconds_per_frame.median,
                s.peak_memory_mb,
                s.peak_device_memory_mb,
                None if s.joules_per_frame is None else s.joules_per_frame.median,
                s.check.psnr_to_float32,
            )
            for s in speeds
        ),
        note="Medians over the runs that count; a configuration that restores something else than in "
        "float32 has no row.",
    )


def _bars(title: str, speeds: Sequence[Speed], names: dict[int, str], field: str) -> Bars:
    stages: list[dict[str, Spread]] = [getattr(speed, field) for speed in speeds]
    return Bars(
        title=title,
        value_label="ms a frame",
        names=tuple(names[id(speed)] for speed in speeds),
        parts=tuple(
            Line(label=name, values=tuple(each[name].median for each in stages))
            for name in (stages[0] if stages else {})
        ),
    )


def _blocks(speeds: Sequence[Speed], names: dict[int, str]) -> Lines:
    longest = max((len(s.block_ms_in_order) for s in speeds), default=0)
    return Lines(
        title="",
        x_label="block of the last run",
        y_label="ms",
        x=tuple(str(n + 1) for n in range(longest)),
        lines=tuple(Line(label=names[id(s)], values=s.block_ms_in_order) for s in speeds),
    )


def _receipt(speeds: Sequence[Speed], command: str) -> dict[str, str]:
    if not speeds:
        return {"command": command}
    first = speeds[0]
    loads = [load for s in speeds for load in s.load_average if load is not None]
    machine = first.hardware
    return {
        "command": command,
        "versions": f"instantvir {first.version}, Python {machine['python']}, PyTorch "
        f"{machine['torch']}, PyAV {machine['av']}",
        "machine": f"{machine['cpu']}, {machine['cores']} cores; {first.device}",
        "weights": first.model_sha256 or "none",
        "clip": first.request["clip"] or f"generated, {first.frames} frames",
        "runs": f"{first.request['repeats']} counted, {first.request['warmup']} before them",
        "load average": f"{min(loads):.1f} to {max(loads):.1f}" if loads else "unknown",
    }
