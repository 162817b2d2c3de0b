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
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from instantvir_cli import __version__, console
from instantvir_cli.degradation import check_tile
from instantvir_cli.threads import use_threads
from instantvir_models.errors import UsageError
from instantvir_models.media import EncoderSettings, Frame, VideoReader, create_video, open_video
from instantvir_models.operators.measurement import Degradation
from instantvir_models.operators.spec import ClipShape, parse_degradation
from instantvir_models.run.opening import OpenedSolver, SessionLimits, open_student
from instantvir_models.run.pipeline import PipelineReport, restore_video

SPEC_OF_TASK = {
    "deblur": "blur:sigma=3+noise:std=2.55",
    "sr": "down:factor=4",
    "inpaint": "mask:keep=0.5,seed=0",
    "denoise": "identity+noise:std=25",
}
"""The degradation that stands for each task."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class BenchmarkRequest:
    """What the user typed."""

    clip: str | None
    task: str
    size: str
    frames: int
    repeats: int
    warmup: int
    model: str
    device: str
    dtype: str
    threads: int | None
    vram: float | None
    tile: int | None
    json_summary: bool
    quiet: bool


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


def run_benchmark(request: BenchmarkRequest) -> None:
    """Run and print the table or the JSON."""
    console.set_up(quiet=request.quiet)
    _check(request)
    use_threads(request.threads)
    asked = None if request.dtype == "auto" else DTYPES[request.dtype]
    opened = open_student(request.model, device=request.device, prompt=None, dtype=asked)
    console.tell(opened.notices)
    with tempfile.TemporaryDirectory(prefix="instantvir-") as folder:
        clip = Path(request.clip) if request.clip else _generated(Path(folder), request)
        reports = []
        for index in range(request.warmup + request.repeats):
            report = _run(clip, Path(folder) / "out.mp4", request, opened)
            kind = "warm-up" if index < request.warmup else "run"
            console.say(f"{kind} {index + 1}: {report.fps:.2f} FPS")
            if index >= request.warmup:
                reports.append(report)
    summary = _summary(request, reports, opened)
    if request.json_summary:
        typer.echo(json.dumps(summary, indent=2))
    else:
        _print_tables(summary)


def _check(request: BenchmarkRequest) -> None:
    if request.task not in SPEC_OF_TASK:
        raise UsageError(
            f"there is no task called `{request.task}`", hint=f"use {', '.join(SPEC_OF_TASK)}"
        )
    if request.dtype != "auto" and request.dtype not in DTYPES:
        raise UsageError(f"`--dtype` is `{request.dtype}`; it is auto, float32 or bfloat16")
    if request.repeats < 1 or request.warmup < 0 or request.frames < 1:
        raise UsageError("`--repeats` and `--frames` are at least 1, `--warmup` at least 0")
    check_tile(request.tile)
    _size(request.size)


def _size(text: str) -> tuple[int, int]:
    """(width, height) of `832x480`."""
    width, x, height = text.partition("x")
    if not (x and width.isdigit() and height.isdigit() and int(width) > 0 and int(height) > 0):
        raise UsageError(f"`--size` is `{text}`", hint="it is WIDTHxHEIGHT, such as 832x480")
    return int(width), int(height)


def _generated(folder: Path, request: BenchmarkRequest) -> Path:
    """A moving texture as an H.264 file, so that decoding is real."""
    width, height = _size(request.size)
    path = folder / "generated.mp4"
    with create_video(
        path, width=width, height=height, settings=EncoderSettings(), frame_rate=25
    ) as writer:
        for frame in _moving_texture(width, height, request.frames):
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
    clip: Path, target: Path, request: BenchmarkRequest, opened: OpenedSolver
) -> PipelineReport:
    with open_video(clip) as reader:
        degradation = _degradation(request.task, reader)
        made = opened.new_session(
            degradation,
            height=reader.info.height,
            width=reader.info.width,
            limits=SessionLimits(gigabytes=request.vram, tile_pixels=request.tile),
        )
        console.tell(made.notices)
        session = made.session
        height, width = session.output_size
        with create_video(target, info_of=reader, width=width, height=height) as writer:
            return restore_video(reader, session, writer)


def _degradation(task: str, reader: VideoReader) -> Degradation:
    shape = ClipShape(num_frames=1, height=reader.info.height, width=reader.info.width)
    return parse_degradation(SPEC_OF_TASK[task], shape=shape)


def _summary(
    request: BenchmarkRequest,
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
        "request": asdict(request),
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
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


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
