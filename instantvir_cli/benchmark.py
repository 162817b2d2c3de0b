"""`instantvir benchmark`: how fast the whole command is here, decode to encode.

This is the speed half; what is measured, and how, is `instantvir_models.speed`.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

import typer
from rich.console import Console
from rich.table import Table

from instantvir_cli import console
from instantvir_cli.exit_status import ExitStatus
from instantvir_cli.options import MeasuringOptions, SweptModelOptions
from instantvir_cli.standard_streams import put
from instantvir_models.errors import InstantVIRError
from instantvir_models.outputs.rule import refuse
from instantvir_models.report.page import check_page_name, save_page
from instantvir_models.speed.baseline import Ratio, compared, read_baseline
from instantvir_models.speed.measure import Bench, Failed, Speed, Spread
from instantvir_models.speed.page import speed_page
from instantvir_models.speed.plan import SpeedPlan, parsed_list, parsed_numbers, swept


class SlowerError(InstantVIRError):
    """Something is slower than it was, by more than is tolerated."""


def run_benchmark(
    clip: str | None,
    measuring: MeasuringOptions,
    model: SweptModelOptions,
    *,
    may_overwrite: bool,
    as_json: bool,
) -> None:
    """Measure, print tables or JSON, and fail if a speed is missing or lower than it was."""
    if measuring.report is not None:
        check_page_name(measuring.report)
        refuse(measuring.report, reads=[clip], may_replace=may_overwrite)
    plans = planned(clip, measuring, model)
    baseline = None if measuring.baseline is None else read_baseline(measuring.baseline)
    with Bench(console.tell) as bench:
        results = list(bench.all_of(plans))
    speeds = [result for result in results if isinstance(result, Speed)]
    if as_json:
        found = [asdict(result) for result in results]
        put(json.dumps(found[0] if len(found) == 1 else found, indent=2))
    else:
        _print_tables(speeds)
    if measuring.report is not None:
        save_page(speed_page(results, _command()), measuring.report, may_replace=may_overwrite)
        console.say(f"the page: {measuring.report}")
    if baseline is not None:
        _judge(compared(speeds, baseline), measuring.tolerance)
    if any(isinstance(result, Failed) for result in results):
        raise typer.Exit(ExitStatus.FAILURE)


def planned(
    clip: str | None, measuring: MeasuringOptions, model: SweptModelOptions
) -> list[SpeedPlan]:
    """One plan for each combination of what has several values.

    Raises:
        UsageError: for a value that cannot be.
    """
    plan = SpeedPlan(
        clip=clip,
        task=measuring.task,
        frames=measuring.frames,
        repeats=measuring.repeats,
        warmup=measuring.warmup,
        model=model.model,
        solver=model.solver,
        prompt=model.prompt,
        vram=model.vram,
        tile=model.tile,
    )
    return swept(
        plan,
        sizes=parsed_list(measuring.size, "--size"),
        dtypes=parsed_list(measuring.dtype, "--dtype"),
        devices=parsed_list(model.device, "--device"),
        latencies=parsed_numbers(model.latency, "--latency"),
        windows=parsed_numbers(model.window, "--window"),
        threads=parsed_numbers(model.threads, "--threads"),
    )


def _judge(ratios: Sequence[Ratio], tolerance: float) -> None:
    """Say how speeds compare with those before; SlowerError if one lost more than `tolerance`."""
    for each in ratios:
        what = ", ".join(f"{k} {v}" for k, v in each.settings.items() if v not in (None, "auto"))
        console.say(
            f"{each.ratio:.2f} x: {each.fps:.2f} FPS, before {each.fps_before:.2f} ({what})"
        )
    if any(each.is_other_machine for each in ratios):
        console.warn("the baseline is from another machine, or from other versions of libraries")
    slower = [each for each in ratios if each.ratio < 1 - tolerance]
    if slower:
        least = min(each.ratio for each in slower)
        raise SlowerError(
            f"{len(slower)} of {len(ratios)} configurations are slower than the baseline by more than "
            f"{tolerance:.0%}, at worst {least:.2f} x",
            hint="measure again while nothing else runs, or say how much is tolerated with "
            "`--tolerance`",
        )


def _command() -> str:
    return " ".join(["instantvir", *sys.argv[1:]])


def _print_tables(speeds: Sequence[Speed]) -> None:
    """The tables, on standard output: they are the data of this verb."""
    if len(speeds) == 1:
        _print_one(speeds[0])
    elif speeds:
        _print_sweep(speeds)
    if speeds:
        _print_machine(speeds[0])


def _print_one(speed: Speed) -> None:
    table = Table(title=f"{speed.frames} frames, task {speed.request['task']}")
    table.add_column("measure")
    table.add_column("median", justify="right")
    table.add_column("min .. max", justify="right")
    rows: list[tuple[str, Spread, int]] = [
        ("whole command, FPS", speed.fps, 2),
        ("first frame, s", speed.first_frame_seconds, 2),
        *((f"{name}, ms/frame", each, 1) for name, each in speed.timeline_ms_per_frame.items()),
        *((f"{name} beside, ms/frame", each, 1) for name, each in _beside(speed).items()),
        ("CPU time, ms/frame", _thousandfold(speed.cpu_seconds_per_frame), 1),
    ]
    if speed.joules_per_frame is not None:
        rows.append(("energy of the card, J/frame", speed.joules_per_frame, 2))
    for name, each, digits in rows:
        spread = f"{each.low:.{digits}f} .. {each.high:.{digits}f}"
        table.add_row(name, f"{each.median:.{digits}f}", spread)
    table.add_row("in no stage and no wait", f"{speed.unexplained.median:.1%}", "")
    for name, value in speed.block_ms.items():
        table.add_row(f"block {name}, ms", f"{value:.0f}", "")
    table.add_row("load the model, s", f"{speed.load_seconds:.2f}", "")
    if speed.peak_memory_mb is not None:
        table.add_row("peak memory, MB", f"{speed.peak_memory_mb:.0f}", "")
    if speed.peak_device_memory_mb is not None:
        table.add_row("peak on the card, MB", f"{speed.peak_device_memory_mb:.0f}", "")
    if speed.check.psnr_to_float32 is not None:
        table.add_row("against float32, dB", f"{speed.check.psnr_to_float32:.1f}", "")
    Console().print(table)


def _beside(speed: Speed) -> dict[str, Spread]:
    """What other threads do meanwhile."""
    return {name: speed.stage_ms_per_frame[name] for name in ("decode", "encode")}


def _thousandfold(spread: Spread) -> Spread:
    return Spread(1000 * spread.median, 1000 * spread.low, 1000 * spread.high)


def _print_sweep(speeds: Sequence[Speed]) -> None:
    plans = [SpeedPlan(**speed.request) for speed in speeds]
    table = Table(title=f"whole command, task {plans[0].task}")
    for name in plans[0].differences(plans):
        table.add_column(name)
    for name in (
        "FPS",
        "min .. max",
        "first frame, s",
        "block p50",
        "p95",
        "p99, ms",
        "MB",
        "J/frame",
    ):
        table.add_column(name, justify="right")
    for plan, speed in zip(plans, speeds, strict=True):
        memory, energy = speed.peak_memory_mb, speed.joules_per_frame
        table.add_row(
            *plan.differences(plans).values(),
            f"{speed.fps.median:.2f}",
            f"{speed.fps.low:.2f} .. {speed.fps.high:.2f}",
            f"{speed.first_frame_seconds.median:.2f}",
            *(f"{value:.0f}" for value in speed.block_ms.values()),
            "" if memory is None else f"{memory:.0f}",
            "" if energy is None else f"{energy.median:.2f}",
        )
    Console().print(table)


def _print_machine(speed: Speed) -> None:
    machine = speed.hardware
    card = "" if speed.device == "cpu" else f"{speed.device}; "
    before, after = (f"{load:.1f}" if load is not None else "?" for load in speed.load_average)
    Console().print(
        f"{card}{machine['cpu']}, {machine['cores']} cores, {machine['torch_threads']} threads, "
        f"torch {machine['torch']}, {speed.dtype}; load {before} before, {after} after",
        highlight=False,
    )
