"""`instantvir restore`: plan -> restore -> say what came of it."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from instantvir_cli import console
from instantvir_cli.degradation import describe_resolution
from instantvir_cli.exit_status import ExitStatus
from instantvir_cli.options import (
    BatchOptions,
    ComparisonOptions,
    EncodingOptions,
    FarmOptions,
    FieldOptions,
    FileDegradationOptions,
    ModelOptions,
)
from instantvir_cli.progress import shown_progress
from instantvir_cli.standard_streams import put
from instantvir_cli.threads import use_threads
from instantvir_models.errors import UsageError
from instantvir_models.farm.shards import parse_shard
from instantvir_models.outputs.rule import check_writable, refuse
from instantvir_models.run.comparison import check_style
from instantvir_models.run.jobs import Job, is_batch, make_folder_of
from instantvir_models.run.opening import OpenedSolver
from instantvir_models.run.plan import RestorePlan, planned_jobs
from instantvir_models.run.restoration import Restoration, prepared
from instantvir_models.run.restore_report import OnProgress, RestoreReport

SAME_PSNR = 0.1
"""Decibels within which the mean over frames and the PSNR of their mean square say the same."""


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
    batch: BatchOptions
    is_quiet: bool

    @property
    def jobs(self) -> int:
        """Videos restored side by side."""
        return self.batch.jobs

    @property
    def folder(self) -> Path | None:
        """The folder of the results, if they go into one."""
        if self.output is None or self.output == "-":
            return None
        is_one = self.output.endswith("/") or Path(self.output).is_dir()
        return Path(self.output) if is_one or is_batch(self.inputs, ()) else None

    def plan(self) -> RestorePlan:
        """The same as the library takes it; UsageError where it makes no sense."""
        check_style(self.comparison.compare_style)
        return RestorePlan(
            wanted=self.degradation.read(),
            limits=self.model.limits(),
            start_seconds=self.part.start,
            duration_seconds=self.part.duration,
            fields=self.part.choice(),
            rules=self.part.rules(),
            encoder=self.encoding.settings(),
            output_format=self.encoding.output_format,
            reference=self.comparison.reference,
            comparison_style=self.comparison.compare_style if self.comparison.compare else None,
            must_go_on=self.batch.resume,
            next_file=self.batch.next_file,
            page=self.comparison.report,
            errors=self.comparison.uncertainty,
        )


def restore_all(request: RestoreRequest) -> None:
    """Restore every input; the exit status says whether all went well."""
    plan = request.plan()
    jobs = planned_jobs(
        request.inputs,
        request.output,
        plan,
        # a dry run writes nothing, so what is there is in nobody's way
        overwrite=request.may_overwrite or request.is_dry_run,
        recursive=request.batch.recursive,
    )
    if request.as_json and any(job.destination == "-" for job in jobs):
        raise UsageError("standard output cannot hold both the video and `--json`")
    if request.picture is not None and len(jobs) > 1:
        raise UsageError("`--picture` shows one video", hint="give one input")
    if request.picture is not None:
        if not plan.wanted.tells_nothing:
            raise _picture_of_nothing()
        refuse(request.picture, reads=request.inputs, may_replace=request.may_overwrite)
        check_writable(request.picture, makes_folder=jobs[0].makes_folder_of(request.picture))
    if request.farm.split is not None:
        from instantvir_cli.farm import restore_split

        restore_split(jobs, plan, request, minutes=request.farm.split)
        return
    are_many = is_batch(request.inputs, jobs) or request.farm.are_asked_for
    if request.farm.shard is not None:
        num_all, jobs = len(jobs), parse_shard(request.farm.shard, os.environ).of(jobs)
        console.say(f"{len(jobs)} of {num_all} inputs are in share {request.farm.shard}")
        if not jobs:
            if request.as_json:
                put("[]")
            return
    if are_many:
        from instantvir_cli.batch import restore_batch

        restore_batch(jobs, plan, request)
        return
    use_threads(request.model.threads)
    solver = request.model.open()
    console.tell(solver.notices)
    with shown_progress() as shown, shown.file() as on_progress:
        report = restore_one(jobs[0], plan, solver, request, on_progress)
    if request.as_json:
        put(json.dumps(asdict(report), indent=2))
    if report.damage or report.is_silent:
        raise typer.Exit(ExitStatus.PARTIAL)


def restore_one(
    job: Job,
    plan: RestorePlan,
    solver: OpenedSolver,
    request: RestoreRequest,
    on_progress: OnProgress,
) -> RestoreReport:
    """What came of one input, said to a person on the way."""
    with prepared(job, plan, solver) as restoration:
        _describe(restoration)
        if request.picture is not None:
            _draw(restoration, request.picture, overwrite=request.may_overwrite)
        if request.is_dry_run:
            console.say("a dry run: no video was written")
            return restoration.report()
        report = restoration.run(on_progress)
        _say(report)
        return report


def _picture_of_nothing() -> UsageError:
    return UsageError(
        "`--picture` shows what is found where nothing is told", hint="leave `--task` out"
    )


def _draw(restoration: Restoration, path: Path, *, overwrite: bool) -> None:
    """A picture of what was found, perhaps the first file in the folder of the output."""
    diagnosis = restoration.resolved.diagnosis
    if diagnosis is None:
        raise _picture_of_nothing()
    if restoration.job.makes_folder_of(path):
        make_folder_of(restoration.job)
    diagnosis.save_picture(path, overwrite=overwrite)
    console.say(f"picture of what was found: {path}")


def _describe(restoration: Restoration) -> None:
    resolved, info = restoration.resolved, restoration.reader.info
    console.tell(restoration.notices)
    describe_resolution(resolved)
    if resolved.is_nothing_to_do:
        how = "whole frames" if not restoration.is_unchanged else "written again as it is"
        how = "copied" if restoration.is_copied else how
        console.say(f"{restoration.job.source} -> {restoration.job.destination}, {how}")
        return
    height, width = restoration.session.output_size
    is_all_told = resolved.is_operator_known and not resolved.estimates
    knowledge = "known" if is_all_told else "estimated or assumed"
    operator = f"operator {resolved.degradation.spec} ({knowledge}); "
    console.say(
        f"{restoration.job.source} ({info.width}x{info.height}) -> {restoration.job.destination} "
        f"({width}x{height}); {'' if resolved.diagnosis else operator}"
        f"model {restoration.solver.name} on {restoration.solver.device.type}"
    )


def _say(report: RestoreReport) -> None:
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
        _say_over_frames(report)
    if report.damage:
        console.warn(f"`{report.input}` is damaged: {report.damage}")


def _say_over_frames(report: RestoreReport) -> None:
    """The PSNR of all frames as one, where it is another: some frames then are equal, or much worse."""
    means = (report.input_psnr, report.output_psnr)
    wholes = (report.input_psnr_over_frames, report.output_psnr_over_frames)
    pairs = [(m, w) for m, w in zip(means, wholes, strict=True) if m is not None and w is not None]
    if all(abs(mean - whole) < SAME_PSNR for mean, whole in pairs):
        return
    before, after = (whole for _, whole in pairs)
    console.say(
        "(that is the mean of the frames, an equal one counts as 100 dB; of the mean square over all "
        f"frames: {before:.2f} dB, {after:.2f} dB)"
    )
