"""The suite itself: every solver on every task and clip, row by row, each kept as soon as it is known."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from instantvir_models.errors import InstantVIRError, UsageError
from instantvir_models.media import to_uint8, to_unit
from instantvir_models.operators.measurement import Measurement, degrade
from instantvir_models.operators.spec import ClipShape, parse_degradation
from instantvir_models.run.session import Session
from instantvir_models.solvers.base import WHOLE_CLIP, Solver
from instantvir_models.suite.clips import CleanClip
from instantvir_models.suite.measuring import MEASURES, Measured, Meter
from instantvir_models.suite.peers import Peer, PeerError
from instantvir_models.suite.results import (
    FILMS_FOLDER,
    SUITE_FILE,
    ClipFeatures,
    Features,
    Film,
    Frames,
    MeasuredClip,
    Published,
    Row,
    Stage,
    Suite,
    SuiteClip,
    SuiteReceipt,
    SuiteTask,
    file_stem,
    load_suite,
    save_film,
    save_row,
    save_suite,
)
from instantvir_models.suite.systems import ITERATIVE, Made, System
from instantvir_models.tasks import TASKS

Say = Callable[[str], None]

PAPER_TASKS = tuple(
    SuiteTask(name=task.name, about=task.about, spec=task.benchmark_spec)
    for task in (TASKS["denoise"], TASKS["deblur"], TASKS["sr"], TASKS["inpaint"])
)


@dataclass(frozen=True)
class Case:
    """A clip as a task damages it, and what is known of that."""

    task: SuiteTask
    clip: CleanClip
    y: Frames
    measurement: Measurement
    """Of y as it is stored, 8 bits."""
    known: NDArray[np.bool_] | None = None
    """[T, h, w], False where a frame shows what is not of the clip; None where it is the same in all."""
    keep_detail: float = 0.0
    """Part of the fine contrast that stays everywhere."""
    follow: float = 1.0
    """Part of the way from the initial estimate to a solver's result that is gone."""
    is_unchanged: bool = False
    """Whether it is better left as it is, by everybody."""
    file: bytes | None = None
    """The damaged video, where it was one; None where y is all there is."""
    told: str = ""
    """The degradation that solvers are told of, where the task does not tell it."""


def case_of(task: SuiteTask, clip: CleanClip, seed: int) -> Case:
    """A clip as a task measures it, stored as 8 bits; the same noise and holes for every solver."""
    height, width = clip.size
    shape = ClipShape(num_frames=1, height=height, width=width)
    degradation = parse_degradation(task.spec, shape=shape)
    generator = torch.Generator().manual_seed(seed)
    y = to_uint8(degrade(to_unit(clip.frames), degradation, generator=generator).y)
    return Case(task, clip, y, Measurement(to_unit(y), degradation))


MakeCase = Callable[[SuiteTask, CleanClip, int], Case]
"""A clip as a task damages it with a seed."""


@dataclass(frozen=True, kw_only=True)
class SuitePlan:
    """What is to be compared."""

    name: str
    clips: tuple[CleanClip, ...]
    systems: tuple[System, ...]
    peers: tuple[Peer, ...] = ()
    tasks: tuple[SuiteTask, ...] = PAPER_TASKS
    make_case: MakeCase = case_of
    published: tuple[Published, ...] = ()
    """Figures of papers, to stand beside."""
    seed: int = 0

    def __post_init__(self) -> None:
        names = [system.about.name for system in self.systems] + [peer.name for peer in self.peers]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"two solvers are called {', '.join(twice)}", hint="rename the peer")


def run_suite(plan: SuitePlan, folder: Path, receipt: SuiteReceipt, *, say: Say) -> Suite:
    """Do every row that the folder does not hold yet, cheap solvers first.

    A row that failed is tried again; one of a solver whose description has changed since, too. Who
    interrupts it loses the row at work and no other.

    Raises:
        UsageError: if the folder holds another suite.
    """
    meter = Meter()
    suite = _begun(plan, folder, receipt, meter)
    suite = _all_measured(suite, plan, folder, meter, say)
    done = {(row.solver, row.task, row.clip) for row in suite.rows}
    wanted = [key for key in _order(plan) if key not in done]
    measured = {(each.task, each.clip): each for each in suite.measured}
    for index, (name, task, clip) in enumerate(wanted):
        row = _row(plan, folder, meter, name, measured[task, clip])
        save_row(row, folder)
        say(f"{len(done) + index + 1} of {suite.rows_wanted}: {_said(row)}")
    return load_suite(folder)


def _begun(plan: SuitePlan, folder: Path, receipt: SuiteReceipt, meter: Meter) -> Suite:
    """What the folder holds of the plan already; the rest is written into it."""
    fresh = Suite(
        name=plan.name,
        receipt=receipt,
        measures=MEASURES,
        clips=tuple(_described(clip) for clip in plan.clips),
        tasks=plan.tasks,
        solvers=tuple(
            [system.about for system in plan.systems] + [peer.about for peer in plan.peers]
        ),
        published=plan.published,
        missing=meter.missing(min(len(clip.frames) for clip in plan.clips)),
    )
    if not (folder / SUITE_FILE).is_file():
        _refuse_other_files(folder)
        _write_clips(plan, folder)
        fresh = dataclasses.replace(fresh, truth=_truths(plan, meter))
        save_suite(fresh, folder)
        return fresh
    before = load_suite(folder)
    theirs = (before.name, before.clips, before.tasks, before.receipt.seed)
    if theirs != (fresh.name, fresh.clips, fresh.tasks, receipt.seed):
        raise UsageError(
            f"`{folder}` holds a suite of other clips, tasks or seeds",
            hint="go on with the same, or take another `--output`",
        )
    same = {solver.name for solver in before.solvers if solver in fresh.solvers}
    rows = [r for r in before.rows if r.solver in same and (r.failure is None or r.is_refused)]
    went_on = _both(before.receipt, receipt)
    fresh = dataclasses.replace(
        fresh, measured=before.measured, truth=before.truth, receipt=went_on
    )
    save_suite(fresh, folder)
    return dataclasses.replace(fresh, rows=tuple(rows))


def _both(before: SuiteReceipt, now: SuiteReceipt) -> SuiteReceipt:
    """That of the beginning, with all versions that had part in it."""
    versions = dict.fromkeys([*before.instantvir.split(" and "), now.instantvir])
    return dataclasses.replace(before, instantvir=" and ".join(versions))


def _refuse_other_files(folder: Path) -> None:
    """A folder that holds something, but no suite, is not ours; films alone are of one that was stopped."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"`{folder}` is no folder", hint="`--output` is a folder of its own")
    others = [p.name for p in folder.glob("[!.]*") if p.name != FILMS_FOLDER]
    if others:
        raise UsageError(
            f"`{folder}` holds `{others[0]}`, but no suite",
            hint="`--output` is a new folder, or that of a suite to go on with",
        )


CHEAP, DEAR = 60, 500
"""Network evaluations of a frame up to which a solver is done before all others, and from which it waits
for them."""


def _order(plan: SuitePlan) -> Iterator[tuple[str, str, str]]:
    """Keys of all rows: cheap solvers first, dear ones at the end, clip by clip."""
    costs = [(system.about.name, system.cost) for system in plan.systems]
    costs += [(peer.name, CHEAP) for peer in plan.peers]
    costs.sort(key=lambda named: named[1])
    for low, high in ((-1, CHEAP), (CHEAP, DEAR), (DEAR, math.inf)):
        names = [name for name, cost in costs if low < cost <= high]
        for clip in plan.clips:
            for name in names:
                for task in plan.tasks:
                    yield name, task.name, clip.name


def _row(plan: SuitePlan, folder: Path, meter: Meter, name: str, measured: MeasuredClip) -> Row:
    task, clip = measured.task, measured.clip
    case = plan.make_case(
        next(t for t in plan.tasks if t.name == task),
        next(c for c in plan.clips if c.name == clip),
        plan.seed,
    )
    row = Row(solver=name, task=task, clip=clip)
    system = next((s for s in plan.systems if s.about.name == name), None)
    if case.is_unchanged:
        return _left(row, measured, meter.features(case.y))
    try:
        if system is not None:
            result = _by_system(case, system)
        else:
            result = _by_peer(case, next(p for p in plan.peers if p.name == name))
    except UsageError as error:
        return dataclasses.replace(row, failure=str(error), is_refused=True)
    except (InstantVIRError, PeerError) as error:
        return dataclasses.replace(row, failure=str(error))
    except Exception as error:  # a solver that crashes is a row that says so
        return dataclasses.replace(row, failure=f"{type(error).__name__}: {error}")
    restored, filled = result
    per_block = None if system is None else _frames_per_block(system, case)
    found = meter.measured(restored, case.clip.frames, case.measurement, frames_per_block=per_block)
    return dataclasses.replace(
        filled,
        metrics=found.metrics,
        curves=found.curves,
        film=save_film(restored, folder, name, task, clip),
        features=meter.features(restored),
    )


def _left(row: Row, measured: MeasuredClip, features: Features) -> Row:
    """What is not touched, at no cost."""
    return dataclasses.replace(
        row, metrics=measured.metrics, curves=measured.curves, film=measured.film, features=features,
        evaluations_per_frame=0.0, seconds_per_frame=0.0, cpu_seconds_per_frame=0.0,
    )  # fmt: skip


def _by_system(case: Case, system: System) -> tuple[Frames, Row]:
    """What a system makes of a case, and a row with its cost."""
    made = system.make(case.measurement.degradation)
    made.solver.check(case.measurement.degradation)
    if system.about.family != ITERATIVE:
        _restored(case, made.solver)  # what is done only once is not counted
    made = system.make(case.measurement.degradation)
    wall, cpu = time.perf_counter(), time.process_time()
    restored, stages = _restored(case, made.solver)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    count = len(case.clip.frames)
    row = Row(
        solver=system.about.name, task=case.task.name, clip=case.clip.name,
        evaluations_per_frame=_evaluations(system, made, count),
        gradients_per_frame=0.0 if made.counted is None else made.counted.frames_followed / count,
        seconds_per_frame=wall / count, cpu_seconds_per_frame=cpu / count,
        stages=_stages(stages, made, count),
    )  # fmt: skip
    return restored, row


def _evaluations(system: System, made: Made, count: int) -> float | None:
    return system.evaluations_per_frame if made.counted is None else made.counted.frames / count


def _stages(seconds: dict[str, float], made: Made, count: int) -> tuple[Stage, ...]:
    """Where the time went; what a prior takes is apart from what the solver does beside it."""
    if made.counted is not None:
        seconds = seconds | {
            "prior": made.counted.seconds,
            "solver": max(0.0, seconds["solver"] - made.counted.seconds),
        }
    return tuple(
        Stage(name=name, seconds_per_frame=value / count)
        for name, value in seconds.items()
        if value
    )


def _restored(case: Case, solver: Solver[Any]) -> tuple[Frames, dict[str, float]]:
    """Frames as `restore` makes them, and the seconds of each stage."""
    height, width = case.y.shape[1:3]
    session = Session(
        solver, case.measurement.degradation, height=height, width=width,
        keep_detail=case.keep_detail, follow=case.follow,
    )  # fmt: skip
    restored = np.concatenate([session.push(case.y, case.known), session.flush()])
    report = session.report
    return restored, {
        "convert": report.convert_seconds,
        "estimate": report.estimate_seconds,
        "solver": report.student_seconds,
        "consistency": report.consistency_seconds,
    }


def _by_peer(case: Case, peer: Peer) -> tuple[Frames, Row]:
    started = time.perf_counter()
    restored = peer.restored(
        case.y, case.task.name, case.clip.size, case.clip.frames_per_second, file=case.file
    )
    seconds = (time.perf_counter() - started) / len(restored)
    row = Row(
        solver=peer.name, task=case.task.name, clip=case.clip.name, seconds_per_frame=seconds,
        stages=(Stage(name="command", seconds_per_frame=seconds),),
    )  # fmt: skip
    return restored, row


def _frames_per_block(system: System, case: Case) -> int | None:
    count = system.make(case.measurement.degradation).solver.frames_per_block
    return None if count in (1, WHOLE_CLIP) else count


def _truths(plan: SuitePlan, meter: Meter) -> tuple[ClipFeatures, ...]:
    """What the network of FVD sees in the clean clips."""
    seen = ((clip.name, meter.features(clip.frames)) for clip in plan.clips)
    return tuple(ClipFeatures(clip=name, features=features) for name, features in seen if features)


def _all_measured(suite: Suite, plan: SuitePlan, folder: Path, meter: Meter, say: Say) -> Suite:
    """The suite with every damaged clip, each kept as soon as it is known, as rows are."""
    there = {(measured.task, measured.clip) for measured in suite.measured}
    wanted = [(t, c) for c in plan.clips for t in plan.tasks if (t.name, c.name) not in there]
    if wanted:
        say(f"first the damaged clips are measured, {len(wanted)} of them")
    for task, clip in wanted:
        one = _measured_clip(plan.make_case(task, clip, plan.seed), folder, meter)
        suite = dataclasses.replace(suite, measured=(*suite.measured, one))
        save_suite(suite, folder)
    return suite


def _measured_clip(case: Case, folder: Path, meter: Meter) -> MeasuredClip:
    factor = case.clip.size[0] // case.y.shape[1]
    shown = case.y.repeat(factor, 1).repeat(factor, 2)
    found: Measured = meter.measured(shown, case.clip.frames)
    film = save_film(case.y, folder, "measured", case.task.name, case.clip.name)
    return MeasuredClip(
        task=case.task.name,
        clip=case.clip.name,
        film=film,
        metrics=found.metrics,
        curves=found.curves,
        told=case.told,
    )


def _described(clip: CleanClip) -> SuiteClip:
    height, width = clip.size
    return SuiteClip(
        name=clip.name, frames=len(clip.frames), height=height, width=width,
        frames_per_second=clip.frames_per_second, source=clip.source, truth=_truth(clip),
    )  # fmt: skip


def _truth(clip: CleanClip) -> Film:
    height, width = clip.size
    path = f"{FILMS_FOLDER}/{file_stem('truth', clip.name)}.png"
    return Film(path=path, frames=len(clip.frames), height=height, width=width)


def _write_clips(plan: SuitePlan, folder: Path) -> None:
    for clip in plan.clips:
        assert save_film(clip.frames, folder, "truth", clip.name) == _truth(clip)


def _said(row: Row) -> str:
    who = f"{row.solver}, {row.task}, {row.clip}"
    if row.failure is not None:
        return f"{who}: {'refuses' if row.is_refused else 'failed'}: {row.failure}"
    return f"{who}: {row.metrics['psnr']:.2f} dB, {row.seconds_per_frame:.3g} s a frame"
