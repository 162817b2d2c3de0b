"""How the videos of one call are restored, and where each goes; what cannot be is refused before any is
looked at."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from instantvir_models.errors import UsageError, VideoOpenError
from instantvir_models.media import USUAL_RULES, EncoderSettings, InputRules, VideoInfo
from instantvir_models.media.fields import FieldChoice
from instantvir_models.media.names import image_files
from instantvir_models.media.rehearsal import check_output
from instantvir_models.media.size_changes import size_changes
from instantvir_models.media.timeline import Trim
from instantvir_models.outputs.names import identity_of, read_paths, written_path
from instantvir_models.outputs.rule import check_writable, refuse
from instantvir_models.report.page import check_page_name
from instantvir_models.run.comparison import check_style
from instantvir_models.run.jobs import (
    Job,
    in_parts,
    input_files,
    is_batch,
    jobs_of,
    refuse_to_overwrite,
)
from instantvir_models.run.masks import MasksFor
from instantvir_models.run.opening import SessionLimits
from instantvir_models.tasks import TaskOptions


@dataclass(frozen=True, kw_only=True)
class RestorePlan:
    """How videos are restored: what the inputs of one call have in common."""

    wanted: TaskOptions = field(default_factory=TaskOptions)
    limits: SessionLimits = field(default_factory=SessionLimits)
    start_seconds: float | None = None
    """What to skip of the input."""
    duration_seconds: float | None = None
    """How much of it to take; None for all."""
    fields: FieldChoice = field(default_factory=FieldChoice)
    """How the pictures of interlaced inputs become whole."""
    rules: InputRules = USUAL_RULES
    """How far inputs may reach, and how large their pictures may be."""
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    output_format: str | None = None
    """FFmpeg's name of the container, where no name tells it."""
    reference: Path | None = None
    """The clean video, to measure the gain against."""
    comparison_style: str | None = None
    """`side` or `wipe`: also write a comparison beside the output; None does not."""
    must_go_on: bool = False
    """Whether what an earlier run has begun is to be gone on with, or nothing is done. Without it, it
    is gone on with where that was the same command."""
    page: Path | None = None
    """Where a page of what came of it goes; None writes none."""
    errors: Path | None = None
    """Where a grey video of the expected error goes; None writes none."""
    next_file: bool = False
    """Whether a video whose pictures get another size goes on in the next file; else they are scaled
    to the first size."""

    def masks_for(self, info: VideoInfo) -> MasksFor:
        """What masks that come along with a video have to fit."""
        return MasksFor(
            size=(info.width, info.height),
            frame_rate=info.frame_rate,
            start_seconds=self.start_seconds,
            duration_seconds=self.duration_seconds,
            rules=self.rules,
        )

    def of(self, job: Job) -> "RestorePlan":
        """The plan of one job, which may be a part of its input."""
        if job.part is None:
            return self
        return replace(
            self,
            start_seconds=job.part.start_seconds,
            duration_seconds=job.part.duration_seconds,
        )

    def __post_init__(self) -> None:
        if self.next_file and self.rules.sandbox:
            raise UsageError("`--next-file` looks for changes of size outside of `--sandbox`")
        if self.comparison_style is not None:
            check_style(self.comparison_style)


def planned_jobs(
    inputs: Sequence[str],
    output: str | None,
    plan: RestorePlan,
    *,
    overwrite: bool,
    recursive: bool = False,
) -> list[Job]:
    """One job per input; nothing has been written by then. A job that is alone replaces nothing that it
    may not; of several, each is asked when its turn comes (`batch.attempted`).

    Args:
        output: a file, an image pattern or `-`; a folder (with `/`, or existing); None puts each
            result beside its input.
        overwrite: whether files that exist may be replaced.
        recursive: whether folders inside folders count, too.

    Raises:
        UsageError: if several inputs would go to one place, a name is missing, or a file exists.
        VideoOpenError: if a folder holds no video, or the reference is not there.
        VideoWriteError: if what is written could not be, whatever the pictures are.
    """
    jobs = jobs_of(inputs, output, recursive=recursive, may_replace=overwrite)
    if plan.next_file:
        jobs = [part for job in jobs for part in _parts_of_one_size(job, plan)]
    _refuse_missing(plan)
    _refuse_page(plan, jobs, may_replace=overwrite)
    _refuse_errors(plan, jobs, may_replace=overwrite)
    for job in jobs:
        refuse_to_overwrite(
            replace(job, may_replace=overwrite or is_batch(inputs, jobs)),
            with_comparison=plan.comparison_style is not None,
            reads=(*(other.source for other in jobs), plan.wanted.mask, plan.reference),
        )
    if not is_batch(inputs, jobs):
        check_output_of(jobs[0], plan)
    return jobs


def check_output_of(job: Job, plan: RestorePlan) -> None:
    """VideoWriteError for an output that would not be written, whatever the pictures are."""
    check_output(
        job.destination,
        plan.encoder,
        output_format=plan.output_format,
        makes_folder=job.folder is not None,
    )


def _parts_of_one_size(job: Job, plan: RestorePlan) -> list[Job]:
    """The job, or one for each size that its pictures have; of what cannot be read it will tell itself."""
    cuts: list[float] = []
    files = input_files(job.source)
    if files and image_files(job.source) is None:
        trim = Trim.of(plan.start_seconds, plan.duration_seconds)
        with suppress(VideoOpenError):
            cuts = [float(cut) for cut in size_changes(files[0], trim=trim, rules=plan.rules)]
    return in_parts(
        job, cuts, start_seconds=plan.start_seconds, duration_seconds=plan.duration_seconds
    )


def _refuse_missing(plan: RestorePlan) -> None:
    """An error of its kind if what is to be read besides the inputs is not there."""
    hint = "check the spelling and the folder"
    if plan.wanted.mask is not None and identity_of(plan.wanted.mask) is None:
        raise UsageError(f"no such file: `{plan.wanted.mask}`", hint=hint)
    if plan.reference is not None and not any(map(identity_of, read_paths(str(plan.reference)))):
        raise VideoOpenError(f"`{plan.reference}` does not exist", hint=hint)


def _refuse_page(plan: RestorePlan, jobs: Sequence[Job], *, may_replace: bool) -> None:
    """UsageError if a page would be of several videos, or replace what it may not."""
    if plan.page is None:
        return
    check_page_name(plan.page)
    if len(jobs) > 1:
        raise UsageError("`--report` shows one video", hint="give one input")
    reads = (jobs[0].source, plan.wanted.mask, plan.reference)
    refuse(plan.page, reads=reads, may_replace=may_replace)
    check_writable(plan.page, makes_folder=jobs[0].makes_folder_of(plan.page))  # not after hours


def _refuse_errors(plan: RestorePlan, jobs: Sequence[Job], *, may_replace: bool) -> None:
    """UsageError if a video of errors would be of several videos, or replace what it may not;
    VideoWriteError if it could not be written."""
    if plan.errors is None:
        return
    if len(jobs) > 1:
        raise UsageError("`--uncertainty` is of one video", hint="give one input")
    target = written_path(jobs[0].destination)
    if target is not None and target.resolve() == plan.errors.resolve():
        raise UsageError("`--uncertainty` and the output are one file", hint="give it another name")
    reads = (jobs[0].source, plan.wanted.mask, plan.reference)
    refuse(plan.errors, reads=reads, may_replace=may_replace)
    check_output(str(plan.errors), makes_folder=jobs[0].makes_folder_of(plan.errors))
