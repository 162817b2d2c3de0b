"""`instantvir restore`: plan -> restore -> say what came of it."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from instantvir_cli import console
from instantvir_cli.degradation import describe_resolution
from instantvir_cli.exit_status import ExitStatus
from instantvir_cli.options import (
    ComparisonOptions,
    EncodingOptions,
    FarmOptions,
    FieldOptions,
    FileDegradationOptions,
    ModelOptions,
)
from instantvir_cli.threads import use_threads
from instantvir_models.errors import UsageError
from instantvir_models.run import restoration as library
from instantvir_models.run.comparison import check_style
from instantvir_models.run.jobs import Job, jobs_of
from instantvir_models.run.opening import OpenedSolver


@dataclass(frozen=True, kw_only=True)
class RestoreRequest:
    """What the user typed."""

    inputs: tuple[str, ...]
    output: str | None
    degradation: FileDegradationOptions
    model: ModelOptions
    part: FieldOptions
    encoding: EncodingOptions
    comparison: ComparisonOptions
    farm: FarmOptions
    may_overwrite: bool
    is_dry_run: bool
    picture: Path | None
    """Where a picture of what was found goes."""
    as_json: bool

    def plan(self) -> library.RestorePlan:
        """The same as the library takes it; UsageError where it makes no sense."""
        check_style(self.comparison.compare_style)
        return library.RestorePlan(
            wanted=self.degradation.read(),
            limits=self.model.limits(),
            start_seconds=self.part.start,
            duration_seconds=self.part.duration,
            fields=self.part.choice(),
            encoder=self.encoding.settings(),
            output_format=self.encoding.output_format,
            reference=self.comparison.reference,
            comparison_style=self.comparison.compare_style if self.comparison.compare else None,
        )


def restore_all(request: RestoreRequest) -> None:
    """Restore every input; the exit status says whether all went well."""
    plan = request.plan()
    if request.farm.shard or request.farm.cluster:
        _restore_batch(plan, request)
        return
    jobs = library.planned_jobs(
        request.inputs, request.output, plan, overwrite=request.may_overwrite
    )
    if request.as_json and any(job.destination == "-" for job in jobs):
        raise UsageError("standard output cannot hold both the video and `--json`")
    if request.picture is not None and len(jobs) > 1:
        raise UsageError("`--picture` shows one video", hint="give one input")
    use_threads(request.model.threads)
    solver = request.model.open()
    console.tell(solver.notices)
    reports = [_restore_one(job, plan, solver, request) for job in jobs]
    if request.as_json:
        summaries = [asdict(report) for report in reports]
        typer.echo(json.dumps(summaries[0] if len(summaries) == 1 else summaries, indent=2))
    if any(report.damage or report.is_silent for report in reports):
        raise typer.Exit(ExitStatus.PARTIAL)


def _restore_batch(plan: library.RestorePlan, request: RestoreRequest) -> None:
    from instantvir_cli.farm import restore_batch

    if request.is_dry_run or request.picture is not None:
        raise UsageError(
            "`--dry-run` and `--picture` look at one machine's videos",
            hint="leave `--shard` and `--cluster` out",
        )
    restore_batch(
        jobs_of(request.inputs, request.output), plan, request.model, request.farm,
        may_overwrite=request.may_overwrite, as_json=request.as_json,
    )  # fmt: skip


def _restore_one(
    job: Job, plan: library.RestorePlan, solver: OpenedSolver, request: RestoreRequest
) -> library.RestoreReport:
    with library.prepared(job, plan, solver) as restoration:
        _describe(restoration)
        if request.picture is not None:
            _draw(restoration, request.picture)
        if request.is_dry_run:
            return restoration.report()
        with _progress() as advance:
            report = restoration.run(advance)
        _say(report)
        return report


def _draw(restoration: library.Restoration, path: Path) -> None:
    """A picture of what was found."""
    diagnosis = restoration.resolved.diagnosis
    if diagnosis is None:
        raise UsageError(
            "`--picture` shows what is found where nothing is told", hint="leave `--task` out"
        )
    diagnosis.save_picture(path)
    console.say(f"picture of what was found: {path}")


def _describe(restoration: library.Restoration) -> None:
    resolved, info = restoration.resolved, restoration.reader.info
    console.tell(restoration.notices)
    describe_resolution(resolved)
    if resolved.is_nothing_to_do:
        how = "copied" if restoration.is_copied else "written again as it is"
        console.say(f"{restoration.job.source} -> {restoration.job.destination}, {how}")
        return
    height, width = restoration.session.output_size
    knowledge = "known" if resolved.is_operator_known else "estimated or assumed"
    console.say(
        f"{restoration.job.source} ({info.width}x{info.height}) -> {restoration.job.destination} "
        f"({width}x{height}); operator {resolved.degradation.spec} ({knowledge}); "
        f"model {restoration.solver.name} on {restoration.solver.device.type}"
    )


@contextmanager
def _progress() -> Iterator[library.OnProgress]:
    """A live line on a terminal, nothing elsewhere."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[fps]}"),
        TimeRemainingColumn(),
        console=console.console,
        disable=console.console.quiet or not sys.stderr.isatty(),
        transient=True,
    )
    with bar:
        line = bar.add_task("restoring", total=None, fps="")

        def advance(progress: library.Progress) -> None:
            bar.update(line, completed=progress.frames, total=progress.total_frames)
            speed = bar.tasks[line].speed
            bar.update(line, fps=f"{speed:.1f} FPS" if speed else "")

        yield advance


def _say(report: library.RestoreReport) -> None:
    if report.frames is None:  # copied
        return
    busy = ", ".join(
        f"{name} {seconds:.1f}" for name, seconds in (report.stage_seconds or {}).items()
    )
    console.say(
        f"{report.frames} frames in {report.wall_seconds:.1f} s ({report.fps:.2f} FPS; "
        f"seconds: {busy})"
    )
    if report.residual is not None:
        against = "" if report.is_operator_known else "estimated "
        console.say(
            f"residual |A x - y| / |y| against the {against}operator: {report.residual:.4f}"
        )
    if report.frames_guarded:
        console.warn(
            f"{report.frames_guarded} of {report.frames} frames are the initial estimate in some "
            f"places, {report.frames_replaced} of them altogether: what the student made of them "
            "contradicted the measurement, or had no reason in it"
        )
    if report.gain is not None:
        console.say(
            f"PSNR against the reference: {report.input_psnr:.2f} dB before, "
            f"{report.output_psnr:.2f} dB after, gain {report.gain:+.2f} dB"
        )
    if report.damage:
        console.warn(f"`{report.input}` is damaged: {report.damage}")
