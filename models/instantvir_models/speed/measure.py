"""The whole command, run again and again: how long it takes, and what it spends its time on."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from instantvir_models import __version__
from instantvir_models.cpu import use_threads
from instantvir_models.errors import InstantVIRError, UsageError
from instantvir_models.media import create_video, open_video
from instantvir_models.operators.measurement import Degradation
from instantvir_models.operators.spec import ClipShape, parse_degradation
from instantvir_models.run.opening import OpenedSolver
from instantvir_models.run.pipeline import PipelineReport, restore_video
from instantvir_models.speed.clip import generated_clip
from instantvir_models.speed.correctness import Check, checked
from instantvir_models.speed.meters import (
    CpuMeter,
    EnergyMeter,
    MemoryMeter,
    device_name,
    hardware,
    load_average,
)
from instantvir_models.speed.opening import open_planned
from instantvir_models.speed.plan import SpeedPlan
from instantvir_models.students.fitting import Notice
from instantvir_models.tasks import TASKS

MOST_UNEXPLAINED = 0.03
"""Part of the wall time that stages and waits may leave out before a person is told."""


@dataclass(frozen=True)
class Spread:
    """Several runs in three numbers."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Median, minimum and maximum of `values`."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of the whole command: a file opened, restored, written and closed."""

    wall_seconds: float
    open_seconds: float
    """To read the head of the file, make a session and begin the output."""
    close_seconds: float
    """To finish the file."""
    cpu_seconds: float
    joules: float | None
    pipeline: PipelineReport

    @property
    def fps(self) -> float:
        """Frames per second of the whole command."""
        return self.pipeline.frames / self.wall_seconds

    @property
    def first_frame_seconds(self) -> float:
        """From opening the file to the first restored frame."""
        return self.open_seconds + (self.pipeline.first_frame_seconds or 0.0)

    @property
    def timeline_seconds(self) -> dict[str, float]:
        """Where the wall time goes, one thing after the other in the thread that restores: what is
        not in it, nobody can say."""
        session = self.pipeline.session
        return {
            "open": self.open_seconds,
            "wait for input": self.pipeline.input_wait_seconds,
            "convert": session.convert_seconds,
            "estimate": session.estimate_seconds,
            "student": session.student_seconds,
            "consistency": session.consistency_seconds,
            "wait for output": self.pipeline.output_wait_seconds,
            "close": self.close_seconds,
        }

    @property
    def unexplained(self) -> float:
        """The part of the wall time that is in none of these; below 0 where they overlap."""
        return 1 - sum(self.timeline_seconds.values()) / self.wall_seconds


@dataclass(frozen=True, kw_only=True)
class Speed:
    """One configuration measured; what `instantvir benchmark --json` prints."""

    version: str
    request: dict[str, Any]
    """The plan."""
    model_sha256: str | None
    dtype: str
    frames: int
    fps: Spread
    """Frames per second of the whole command, from opening the file to closing the result."""
    first_frame_seconds: Spread
    stage_ms_per_frame: dict[str, Spread]
    """Busy milliseconds of each stage; stages overlap."""
    timeline_ms_per_frame: dict[str, Spread]
    """Stages and waits of the thread that restores, one after the other."""
    unexplained: Spread
    """The part of the wall time that is not in the timeline."""
    block_ms: dict[str, float]
    """Percentiles of the time of a block."""
    block_ms_in_order: tuple[float, ...]
    """Of each block of the last run."""
    cpu_seconds_per_frame: Spread
    joules_per_frame: Spread | None
    """Of the card; None where NVML does not say."""
    load_seconds: float
    """To load the model, which the runs leave out."""
    peak_memory_mb: float | None
    device: str
    peak_device_memory_mb: float | None
    load_average: tuple[float | None, float | None]
    """Processes that wanted a core, before and after."""
    check: Check
    hardware: dict[str, Any] = field(default_factory=hardware)


@dataclass(frozen=True, kw_only=True)
class Failed:
    """One configuration of a sweep that has no speed."""

    request: dict[str, Any]
    failure: str
    """A sentence."""


Tell = Callable[[Sequence[Notice]], None]


def measured(plan: SpeedPlan, tell: Tell) -> Speed:
    """The speed of one configuration.

    Raises:
        IncorrectError: if it restores something else than it should.
        InstantVIRError: as restoring does.
    """
    with Bench(tell) as bench:
        return bench.measured(plan)


class Bench:
    """Where plans are measured: a scratch folder, and the model that was opened last.

    Args:
        tell: is given what a person should know meanwhile.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._folder = tempfile.TemporaryDirectory(prefix="instantvir-")
        self._opened: tuple[tuple[Any, ...], OpenedSolver, float] | None = None

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def all_of(self, plans: Sequence[SpeedPlan]) -> Iterator[Speed | Failed]:
        """Each plan measured, or why it cannot be; one alone raises instead."""
        for plan in plans:
            if len(plans) == 1:
                yield self.measured(plan)
                return
            shown = ", ".join(f"{k} {v}" for k, v in plan.differences(plans).items())
            self._tell([Notice(shown)])
            try:
                yield self.measured(plan)
            except InstantVIRError as error:
                self._tell([Notice(f"{shown}: {error}", is_warning=True)])
                yield Failed(request=asdict(plan), failure=str(error))

    def measured(self, plan: SpeedPlan) -> Speed:
        """The speed of one configuration; see the function of that name."""
        use_threads(plan.threads)
        opened, load_seconds = self._open(plan)
        folder = Path(self._folder.name)
        clip = Path(plan.clip) if plan.clip else generated_clip(folder, plan)
        degradation = _degradation(plan, clip)
        check = checked(plan, opened, clip, degradation)
        if check.unchecked is not None:
            self._tell([Notice(f"not compared with float32: {check.unchecked}")])
        memory, load_before = MemoryMeter(opened.device), load_average()
        runs = []
        for index in range(plan.warmup + plan.repeats):
            run = self._run(plan, opened, clip, folder / "out.mp4", degradation)
            kind = "warm-up" if index < plan.warmup else "run"
            self._tell([Notice(f"{kind} {index + 1}: {run.fps:.2f} FPS")])
            if index >= plan.warmup:
                runs.append(run)
        speed = _speed(plan, opened, runs, check, memory, load_seconds, load_before)
        if speed.unexplained.median > MOST_UNEXPLAINED:
            text = f"{speed.unexplained.median:.1%} of the time is in no stage and no wait"
            self._tell([Notice(text, is_warning=True)])
        return speed

    def _open(self, plan: SpeedPlan) -> tuple[OpenedSolver, float]:
        """The solver of a plan and the seconds that it took to open it, once for plans in a row."""
        key = (plan.model, plan.solver, plan.device, plan.prompt, plan.dtype, plan.window)
        if self._opened is None or self._opened[0] != key:
            self._opened = None  # lets go of the one before
            started = time.perf_counter()
            opened = open_planned(plan)
            self._opened = key, opened, time.perf_counter() - started
            self._tell(opened.notices)
        return self._opened[1:]

    def _run(
        self,
        plan: SpeedPlan,
        opened: OpenedSolver,
        clip: Path,
        target: Path,
        degradation: Degradation,
    ) -> Run:
        energy, cpu, started = EnergyMeter(opened.device), CpuMeter(), time.perf_counter()
        with open_video(clip) as reader:
            height, width = reader.info.height, reader.info.width
            made = opened.new_session(degradation, height=height, width=width, limits=plan.limits)
            height, width = made.session.output_size
            with create_video(target, info_of=reader, width=width, height=height) as writer:
                begun = time.perf_counter()
                report = restore_video(reader, made.session, writer)
                done = time.perf_counter()
        ended = time.perf_counter()
        self._tell(made.notices)
        with suppress(OSError):
            target.unlink()
        return Run(
            wall_seconds=ended - started,
            open_seconds=begun - started,
            close_seconds=ended - done,
            cpu_seconds=cpu.seconds,
            joules=energy.joules,
            pipeline=report,
        )


def _degradation(plan: SpeedPlan, clip: Path) -> Degradation:
    """What the task stands for at the size of the clip."""
    with open_video(clip) as reader:
        shape = ClipShape(num_frames=1, height=reader.info.height, width=reader.info.width)
    return parse_degradation(TASKS[plan.task].benchmark_spec, shape=shape)


def _speed(
    plan: SpeedPlan,
    opened: OpenedSolver,
    runs: Sequence[Run],
    check: Check,
    memory: MemoryMeter,
    load_seconds: float,
    load_before: float | None,
) -> Speed:
    frames = runs[0].pipeline.frames
    if frames == 0:
        raise UsageError(f"`{plan.clip}` has no frame to measure with")
    blocks = np.concatenate([run.pipeline.session.block_seconds for run in runs])
    joules = [run.joules / frames for run in runs if run.joules is not None]
    return Speed(
        version=__version__,
        request=asdict(plan),
        model_sha256=opened.sha256,
        dtype=str(opened.solver.needs.dtype).removeprefix("torch."),
        frames=frames,
        fps=Spread.of([run.fps for run in runs]),
        first_frame_seconds=Spread.of([run.first_frame_seconds for run in runs]),
        stage_ms_per_frame=_per_frame([run.pipeline.stage_seconds for run in runs], frames),
        timeline_ms_per_frame=_per_frame([run.timeline_seconds for run in runs], frames),
        unexplained=Spread.of([run.unexplained for run in runs]),
        block_ms={f"p{q}": float(np.percentile(1000 * blocks, q)) for q in (50, 95, 99)},
        block_ms_in_order=tuple(1000 * s for s in runs[-1].pipeline.session.block_seconds),
        cpu_seconds_per_frame=Spread.of([run.cpu_seconds / frames for run in runs]),
        joules_per_frame=Spread.of(joules) if joules else None,
        load_seconds=load_seconds,
        peak_memory_mb=memory.peak_mb,
        device=device_name(opened.device),
        peak_device_memory_mb=memory.peak_device_mb,
        load_average=(load_before, load_average()),
        check=check,
    )


def _per_frame(seconds: Sequence[dict[str, float]], frames: int) -> dict[str, Spread]:
    """Milliseconds a frame, by name."""
    return {
        name: Spread.of([1000 * each[name] / frames for each in seconds]) for name in seconds[0]
    }
