"""`instantvir benchmark`: how fast the whole command is here, decode to encode.

This is the speed half. The quality half (rivals, PSNR, SSIM, flicker) lives in
`benchmarks/quality.py` until it joins this verb.
"""

import json
import os
import platform
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from instantvir_cli import __version__, console
from instantvir_cli.options import MeasuringOptions, ModelOptions
from instantvir_cli.standard_streams import put
from instantvir_cli.threads import use_threads
from instantvir_models.errors import UsageError
from instantvir_models.media import EncoderSettings, Frame, create_video, open_video
from instantvir_models.operators.measurement import Degradation
from instantvir_models.operators.spec import ClipShape, parse_degradation
from instantvir_models.run.opening import OpenedSolver, SessionLimits
from instantvir_models.run.pipeline import PipelineReport, restore_video
from instantvir_models.tasks import TASKS, parse_task

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Spread:
    """Several runs in three numbers."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """Median, minimum and maximum of `values`."""
        return cls(statistics.median(values), min(values), max(values))


def run_benchmark(
    clip: str | None, measuring: MeasuringOptions, model: ModelOptions, *, as_json: bool
) -> None:
    """Run and print the table or the JSON."""
    _check(measuring)
    limits = model.limits()
    use_threads(model.threads)
    asked = None if measuring.dtype == "auto" else DTYPES[measuring.dtype]
    opened = model.open(dtype=asked)
    console.tell(opened.notices)
    with tempfile.TemporaryDirectory(prefix="instantvir-") as folder:
        path = Path(clip) if clip else _generated(Path(folder), measuring)
        target = Path(folder) / "out.mp4"
        reports = []
        for index in range(measuring.warmup + measuring.repeats):
            report = _run(path, target, measuring.task, opened, limits)
            kind = "warm-up" if index < measuring.warmup else "run"
            console.say(f"{kind} {index + 1}: {report.fps:.2f} FPS")
            if index >= measuring.warmup:
                reports.append(report)
    request = {"clip": clip, **asdict(measuring), **asdict(model)}
    summary = _summary(request, reports, opened)
    if as_json:
        put(json.dumps(summary, indent=2))
    else:
        _print_tables(summary)


def _check(measuring: MeasuringOptions) -> None:
    parse_task(measuring.task)
    if measuring.dtype != "auto" and measuring.dtype not in DTYPES:
        raise UsageError(f"`--dtype` is `{measuring.dtype}`; it is auto, float32 or bfloat16")
    if measuring.repeats < 1 or measuring.warmup < 0 or measuring.frames < 1:
        raise UsageError("`--repeats` and `--frames` are at least 1, `--warmup` at least 0")
    _size(measuring.size)


def _size(text: str) -> tuple[int, int]:
    """(width, height) of `832x480`."""
    width, x, height = text.partition("x")
    if not (x and width.isdigit() and height.isdigit() and int(width) > 0 and int(height) > 0):
        raise UsageError(f"`--size` is `{text}`", hint="it is WIDTHxHEIGHT, such as 832x480")
    return int(width), int(height)


def _generated(folder: Path, measuring: MeasuringOptions) -> Path:
    """A moving texture as an H.264 file, so that decoding is real."""
    width, height = _size(measuring.size)
    path = folder / "generated.mp4"
    with create_video(
        path, width=width, height=height, settings=EncoderSettings(), frame_rate=25
    ) as writer:
        for frame in _moving_texture(width, height, measuring.frames):
            writer.write(frame)
    return path


def _moving_texture(width: int, height: int, num_frames: int) -> Iterator[Frame]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0 : width + 2 * num_frames].astype(np.float32)
    picture = np.zeros((*x.shape, 3), np.float32)
    for _ in range(12):
        angle, period = rng.uniform(0, np.pi), rng.uniform(4, 80)
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period))
        picture += wave[..., None] * rng.uniform(5, 20, 3).astype(np.float32)
    pixels: NDArray[np.uint8] = (picture + 128).clip(0, 255).astype(np.uint8)
    for t in range(num_frames):
        yield Frame(np.ascontiguousarray(pixels[:, 2 * t : 2 * t + width]), t, Fraction(1, 25), 1)


def _run(
    clip: Path,
    target: Path,
    task: str,
    opened: OpenedSolver,
    limits: SessionLimits,
) -> PipelineReport:
    with open_video(clip) as reader:
        height, width = reader.info.height, reader.info.width
        degradation = _degradation(task, height, width)
        made = opened.new_session(degradation, height=height, width=width, limits=limits)
        console.tell(made.notices)
        height, width = made.session.output_size
        with create_video(target, info_of=reader, width=width, height=height) as writer:
            return restore_video(reader, made.session, writer)


def _degradation(task: str, height: int, width: int) -> Degradation:
    shape = ClipShape(num_frames=1, height=height, width=width)
    return parse_degradation(TASKS[task].benchmark_spec, shape=shape)


def _summary(
    request: dict[str, Any],
    reports: list[PipelineReport],
    opened: OpenedSolver,
) -> dict[str, Any]:
    blocks = np.concatenate([report.session.block_seconds for report in reports])
    stages = {
        name: asdict(Spread.of([1000 * r.stage_seconds[name] / r.frames for r in reports]))
        for name in reports[0].stage_seconds
    }
    first = [report.first_frame_seconds or 0.0 for report in reports]
    return {
        "version": __version__,
        "request": request,
        "model_sha256": opened.sha256,
        "dtype": str(opened.solver.needs.dtype).removeprefix("torch."),
        "frames": reports[0].frames,
        "fps": asdict(Spread.of([report.fps for report in reports])),
        "first_frame_seconds": asdict(Spread.of(first)),
        "stage_ms_per_frame": stages,
        "block_ms": {f"p{q}": float(np.percentile(1000 * blocks, q)) for q in (50, 95, 99)},
        "peak_memory_mb": _peak_memory_mb(),
        "device": _device_name(opened.device),
        "peak_device_memory_mb": _peak_device_memory_mb(opened.device),
        "hardware": hardware(),
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _peak_device_memory_mb(device: torch.device) -> float | None:
    """Most that tensors took on a card at once; None on the CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None


def _peak_memory_mb() -> float | None:
    """Largest resident memory of this process so far; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if platform.system() == "Darwin" else 2**10)


def hardware() -> dict[str, Any]:
    """The machine and the versions that a speed belongs to."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if "model name" in line), cpu)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "av": version("av"),
        "numpy": np.__version__,
    }


def _print_tables(summary: dict[str, Any]) -> None:
    """The tables, on standard output: they are the data of this verb."""
    out = Console()
    fps, first = summary["fps"], summary["first_frame_seconds"]
    table = Table(title=f"{summary['frames']} frames, task {summary['request']['task']}")
    table.add_column("measure")
    table.add_column("median", justify="right")
    table.add_column("min .. max", justify="right")
    table.add_row(
        "whole command, FPS", f"{fps['median']:.2f}", f"{fps['low']:.2f} .. {fps['high']:.2f}"
    )
    table.add_row(
        "first frame, s", f"{first['median']:.2f}", f"{first['low']:.2f} .. {first['high']:.2f}"
    )
    for name, spread in summary["stage_ms_per_frame"].items():
        table.add_row(
            f"{name}, ms/frame",
            f"{spread['median']:.1f}",
            f"{spread['low']:.1f} .. {spread['high']:.1f}",
        )
    for name, value in summary["block_ms"].items():
        table.add_row(f"block {name}, ms", f"{value:.0f}", "")
    if summary["peak_memory_mb"] is not None:
        table.add_row("peak memory, MB", f"{summary['peak_memory_mb']:.0f}", "")
    if summary["peak_device_memory_mb"] is not None:
        table.add_row("peak on the card, MB", f"{summary['peak_device_memory_mb']:.0f}", "")
    out.print(table)
    machine = summary["hardware"]
    card = "" if summary["device"] == "cpu" else f"{summary['device']}; "
    out.print(
        f"{card}{machine['cpu']}, {machine['cores']} cores, {machine['torch_threads']} threads, "
        f"torch {machine['torch']}, {summary['dtype']}; stages overlap",
        highlight=False,
    )
