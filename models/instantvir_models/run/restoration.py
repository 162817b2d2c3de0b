"""One video restored: opened, its degradation found, a session made for it, run and reported."""

import itertools
import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from instantvir_models import __version__
from instantvir_models.checkpoints.load import EMBEDDED
from instantvir_models.diagnosis.findings import Finding
from instantvir_models.diagnosis.sample import FRAMES_PER_PLACE, Sample, first_sample, later_samples
from instantvir_models.errors import UsageError, VideoOpenError
from instantvir_models.media import (
    USUAL_RULES,
    EncoderSettings,
    Frame,
    InputRules,
    VideoInfo,
    VideoReader,
    VideoWriter,
    create_video,
    open_video,
)
from instantvir_models.media.fields import WEAVE, FieldChoice, Fields
from instantvir_models.media.names import image_files
from instantvir_models.media.open import create_segmented_video
from instantvir_models.media.reach import MOST_PIXELS
from instantvir_models.media.segments import SegmentedWriter, can_be_segmented
from instantvir_models.media.size_changes import size_changes
from instantvir_models.media.timeline import Trim
from instantvir_models.operators.measurement import LEVEL, Degradation
from instantvir_models.operators.sidecar import forget_sidecar, noted_frames
from instantvir_models.outputs.claim import claim, new_file
from instantvir_models.outputs.names import written_path
from instantvir_models.outputs.rule import check_writable, refuse
from instantvir_models.report.page import check_page_name, save_page
from instantvir_models.run.album import Album
from instantvir_models.run.comparison import Comparison, check_style
from instantvir_models.run.error_video import ErrorVideo
from instantvir_models.run.gain import Gain
from instantvir_models.run.jobs import (
    Job,
    in_parts,
    is_batch,
    jobs_of,
    make_folder_of,
    refuse_to_overwrite,
)
from instantvir_models.run.journal import (
    Fingerprint,
    Journal,
    frames_per_segment,
    of_files,
    of_program,
    opened_journal,
)
from instantvir_models.run.kept import KeptMemory
from instantvir_models.run.masks import MasksFor, masks_along
from instantvir_models.run.opening import OpenedSolver, SessionLimits, open_chosen, open_solver
from instantvir_models.run.pace import Pace
from instantvir_models.run.page import restored_page
from instantvir_models.run.pipeline import PipelineReport, restore_video
from instantvir_models.run.resolution import (
    SAMPLE_FRAMES,
    EstimatedParameter,
    Resolved,
    needs_first_frames,
    needs_to_be_looked_at,
    resolve_by_looking,
    resolve_video,
)
from instantvir_models.run.session import GuardedFrame, Session
from instantvir_models.solvers.base import Solver
from instantvir_models.students.fitting import Notice
from instantvir_models.tasks import TaskOptions, parse_tasks

logger = logging.getLogger(__name__)

UNCHANGED = "as_measured"
"""The solver that gives back a video with which nothing is wrong."""

MOST_NOISE_OF_FIELDS = 3 * LEVEL
"""Beyond it what bwdif makes of fields is denoised as whole pictures, for which rows by themselves show
motion too badly: over that, ten fields of sam2_dog_01 and carnd_highway_01 at 256x144 gain 0.35 and 1.33
dB without noise, 0.20 and 0.29 at 2 levels, 0.08 and -0.04 at 4, and lose 0.10 and 0.22 at 8."""


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


@dataclass(frozen=True)
class Progress:
    """How far a restoration is."""

    frames: int
    """Restored so far."""
    total_frames: int | None
    """Of the input, an estimate; None where it does not say."""
    seconds: float
    """Since the first frame was asked for."""
    fps: float | None = None
    """Of the last minute, warm-up left out; None before enough was measured."""
    seconds_left: float | None = None
    """At that pace; None where that, or the length of the input, is not known."""
    is_kept: bool = False
    """Whether the run may be ended, and the same call goes on where it was."""


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True)
class RestoreReport:
    """What came of one video; what `instantvir restore --json` prints.

    Nothing was restored in a dry run: numbers of the run are None then.
    """

    version: str
    input: str
    output: str | None
    input_size: tuple[int, int]
    """(width, height) in pixels, likewise below."""
    output_size: tuple[int, int]
    frames: int | None
    """Frames that came out."""
    fps: float | None
    """Of the whole run."""
    wall_seconds: float | None
    stage_seconds: dict[str, float] | None
    """Busy seconds by stage; stages overlap."""
    operator: str
    """The degradation, as `parse_degradation` reads it."""
    is_operator_known: bool
    """False where it was estimated or assumed."""
    is_lossy_input: bool
    noise_levels: float
    """Standard deviation of the noise in 8-bit levels."""
    estimates: tuple[EstimatedParameter, ...]
    """What was read off the video."""
    residual: float | None
    """||A x - y|| / ||y|| of the restored frames."""
    frames_guarded: int | None
    """Frames that are the initial estimate in some places, because the student's contradicted the
    measurement there or had no reason in it."""
    frames_replaced: int | None
    """Of those, frames that are the initial estimate altogether."""
    guarded: tuple[GuardedFrame, ...] | None
    """The latest of `frames_guarded`, each with the part of its area that was replaced."""
    input_psnr: float | None
    """Against the reference in dB, mean over frames; None without one."""
    output_psnr: float | None
    model: str
    model_sha256: str | None
    """Of its weights; None where it has none."""
    damage: str | None
    """One sentence where the input was damaged: what could be decoded was restored."""
    not_carried_over: tuple[str, ...] | None
    """What of the input the output does not have, in words."""
    is_silent: bool | None
    """True where the input had sound, the output could hold some, and has none."""
    findings: tuple[Finding, ...] = ()
    """What was found where nothing was told."""
    command: str | None = None
    """The command that does the same explicitly; None where all was told, or nothing is changed."""
    is_unchanged: bool = False
    """Whether nothing was sure enough to be changed."""
    keep_detail: float = 0.0
    """Part of the fine contrast that stayed everywhere."""

    @property
    def gain(self) -> float | None:
        """How many dB closer to the reference the output is than the input was."""
        if self.input_psnr is None or self.output_psnr is None:
            return None
        return self.output_psnr - self.input_psnr


@dataclass(frozen=True, eq=False, kw_only=True)
class Restoration:
    """A video whose degradation is known and whose session is ready; see `prepared`."""

    job: Job
    plan: RestorePlan
    solver: OpenedSolver
    reader: VideoReader
    frames: Iterator[Frame]
    resolved: Resolved
    session: Session
    notices: tuple[Notice, ...]
    """What a person is to be told before it runs."""

    @property
    def is_copied(self) -> bool:
        """Whether nothing is to be done and nothing else is wanted, so that the file is copied."""
        is_plain = self.plan == replace(
            RestorePlan(),
            wanted=self.plan.wanted,
            limits=self.plan.limits,
            must_go_on=self.plan.must_go_on,
            rules=self.plan.rules,
            page=self.plan.page,
        )
        source, destination = Path(self.job.source), written_path(self.job.destination)
        is_alike = destination is not None and source.suffix.lower() == destination.suffix.lower()
        return self.is_unchanged and is_plain and is_alike and source.is_file()

    @property
    def is_unchanged(self) -> bool:
        """Whether nothing is to be done, not even about fields."""
        found = self.reader.fields
        has_fields = found is not None and found.first is not None
        return self.resolved.is_nothing_to_do and not has_fields

    def _copied(self) -> RestoreReport:
        """What came of copying the file, which appears under its name whole."""
        make_folder_of(self.job)
        target = written_path(self.job.destination)
        assert target is not None
        with new_file(target, may_replace=self.job.may_replace) as unfinished:
            shutil.copyfile(self.job.source, unfinished)
        forget_sidecar(target)
        report = replace(self.report(), output=self.job.destination)
        if self.plan.page is not None:
            save_page(restored_page(report), self.plan.page, may_replace=self.job.may_replace)
        return report

    def run(self, on_progress: OnProgress | None = None) -> RestoreReport:
        """What came of it, once; on any failure nothing is left under a final name.

        Args:
            on_progress: called in this thread after every frame; what it raises ends the run.

        Raises:
            VideoWriteError: if the output cannot be written.
            UsageError: if the reference has another size.
        """
        if self.is_copied:
            return self._copied()
        with ExitStack() as stack:
            gain = self._gain(stack)
            make_folder_of(self.job)
            journal = self._journal(stack)
            writer = self._writer(stack, journal)
            comparison = self._comparison(stack)
            errors = self._error_video(stack)
            kept = _Kept.to_go_on(journal, writer, self) if journal is not None else None
            first = 1 + (self.session.frames_out if kept else 0)
            started, frames_done = time.perf_counter(), itertools.count(first)
            pace = Pace(frames_per_block=self.session.frames_per_block)
            album = None if self.plan.page is None else Album(self.resolved.degradation)

            def on_pair(original: Frame, restored: Frame) -> None:
                if gain is not None:
                    gain.add(original, restored)
                if comparison is not None:
                    comparison.add(original, restored)
                if album is not None:
                    album.add(original, restored, None if gain is None else gain.clean)
                if on_progress is not None:
                    frames, seconds = next(frames_done), time.perf_counter() - started
                    total_frames = self.reader.expected_frames()
                    pace.note(frames, seconds)
                    on_progress(
                        Progress(
                            frames,
                            total_frames,
                            seconds,
                            pace.fps,
                            pace.seconds_left(total_frames),
                            is_kept=journal is not None,
                        )
                    )

            ran = restore_video(
                self.frames,
                self.session,
                writer,
                on_pair=on_pair,
                on_error=None if errors is None else errors.add,
                segments=kept,
                waiting=kept.waiting if kept else (),
                seconds_before=kept.seconds_before if kept else 0.0,
            )
            writer.close()
            if journal is not None:
                journal.held.commit()  # and the pieces go
            if (written := written_path(self.job.destination)) is not None:
                forget_sidecar(written)  # that of a file that was there before
            if comparison is not None:
                comparison.close()
            if errors is not None:
                errors.close()
            report = self.report(ran, gain, writer)
            if self.plan.page is not None and album is not None:
                page = restored_page(
                    report,
                    ran,
                    moments=album.moments(),
                    frames_per_second=album.frames_per_second,
                    gain=gain,
                )
                save_page(page, self.plan.page, may_replace=self.job.may_replace)
            return report

    def report(
        self,
        ran: PipelineReport | None = None,
        gain: Gain | None = None,
        writer: VideoWriter | None = None,
    ) -> RestoreReport:
        """What there is to say, before or after the run."""
        info, degradation = self.reader.info, self.resolved.degradation
        diagnosis = self.resolved.diagnosis
        height, width = self.session.output_size
        return RestoreReport(
            version=__version__,
            input=self.job.source,
            output=self.job.destination if ran else None,
            input_size=(info.width, info.height),
            output_size=(width, height),
            frames=ran.frames if ran else None,
            fps=ran.fps if ran else None,
            wall_seconds=ran.wall_seconds if ran else None,
            stage_seconds=ran.stage_seconds if ran else None,
            operator=degradation.spec,
            is_operator_known=self.resolved.is_operator_known,
            is_lossy_input=not info.is_lossless,
            noise_levels=degradation.noise_std / LEVEL,
            estimates=self.resolved.estimates,
            residual=ran.session.residual if ran else None,
            frames_guarded=ran.session.frames_guarded if ran else None,
            frames_replaced=ran.session.frames_replaced if ran else None,
            guarded=ran.session.guarded if ran else None,
            input_psnr=gain.input_psnr if gain else None,
            output_psnr=gain.output_psnr if gain else None,
            model=self.solver.name,
            model_sha256=self.solver.sha256,
            damage=self._damage(ran) if ran else None,
            not_carried_over=writer.losses if writer else None,
            is_silent=writer.is_silent if writer else None,
            findings=diagnosis.findings if diagnosis else (),
            command=diagnosis.command if diagnosis else None,
            is_unchanged=self.is_unchanged,
            keep_detail=self.resolved.keep_detail,
        )

    def _damage(self, ran: PipelineReport) -> str | None:
        """What could not be read, and what the note of the measurement says that there was."""
        found = self.reader.damage.message
        noted = None if self.resolved.note is None else noted_frames(Path(self.job.source))
        is_whole = self.plan.start_seconds is None and self.plan.duration_seconds is None
        if found is None and is_whole and noted is not None and noted != ran.frames:
            return f"its note promises {noted} frames, {ran.frames} could be read"
        return found

    def _gain(self, stack: ExitStack) -> Gain | None:
        if self.plan.reference is None:
            return None
        gain = Gain(
            self.plan.reference, start_seconds=self.plan.start_seconds, rules=self.plan.rules
        )
        stack.callback(gain.close)
        return gain

    def _journal(self, stack: ExitStack) -> Journal | None:
        """Where what is done is kept; None where the run is short, or cannot be gone on with."""
        path = written_path(self.job.destination)
        why = self._why_without_journal(path)
        if why is not None or path is None:
            if self.plan.must_go_on and why:
                logger.warning("`--resume` has no effect on `%s`: %s", self.job.source, why)
            return None
        refuse(path, may_replace=self.job.may_replace)
        held = claim(path, may_replace=self.job.may_replace, adopts=True)
        stack.callback(held.release)
        journal = opened_journal(held, self._fingerprint(), must_go_on=self.plan.must_go_on)
        stack.push(partial(_tell_what_is_kept, journal))
        return journal

    def _why_without_journal(self, path: Path | None) -> str | None:
        """Why this run cannot be gone on with, in words."""
        info, plan = self.reader.info, self.plan
        if path is None or not can_be_segmented(path, plan.output_format, info):
            return "only MP4, MOV, MKV and WebM without transparency are made in pieces"
        if os.path.exists(path) and not os.path.isfile(path):
            return "the output is no file"
        if plan.reference is not None or plan.comparison_style is not None or plan.page is not None:
            return "a comparison has to see all frames"
        if plan.errors is not None:
            return "the video of expected errors is made in one piece"
        if not _input_files(self.job.source):
            return "the input is no file, and cannot be read again"
        if not self.session.can_be_kept:
            return "the memory of this model is not kept"
        longest = frames_per_segment(*self.session.output_size)
        if info.num_frames is not None and info.num_frames <= longest:
            return "it is so short that it is restored in one piece"
        return None

    def _fingerprint(self) -> Fingerprint:
        plan, session = self.plan, self.session
        mask = plan.wanted.mask
        height, width = session.output_size
        return Fingerprint(
            {
                "the input": of_files(_input_files(self.job.source)),
                "the degradation": self.resolved.degradation.spec,
                "the detail that is kept": str(self.resolved.keep_detail),
                "how far the solver is followed": str(self.resolved.follow),
                "the mask": of_files(_files_of_mask(mask)) if mask is not None else "none",
                "the model": f"{self.solver.name} {self.solver.sha256 or ''}".strip(),
                "the device": str(self.solver.device),
                "the block": f"{session.frames_per_block} frames",
                "the tiles": str(plan.limits.tile_pixels),
                "the size": f"{width}x{height}",
                "the part": f"from {plan.start_seconds or 0} s, {plan.duration_seconds or 'all'}",
                "the fields": repr(plan.fields),
                "the encoder": repr(plan.encoder),
                "the container": str(plan.output_format),
                "the piece": f"{frames_per_segment(height, width)} frames",
                **of_program(),
            }
        )

    def _writer(self, stack: ExitStack, journal: Journal | None) -> VideoWriter:
        height, width = self.session.output_size
        if journal is not None:
            segmented = create_segmented_video(
                journal.held,
                info_of=self.reader,
                width=width,
                height=height,
                settings=self.plan.encoder,
                output_format=self.plan.output_format,
                finished=journal.before.segments if journal.before else (),
            )
            stack.callback(segmented.abort)
            return segmented
        writer = create_video(
            self.job.destination,
            info_of=self.reader,
            width=width,
            height=height,
            settings=self.plan.encoder,
            output_format=self.plan.output_format,
            overwrite=self.job.may_replace,
        )
        stack.callback(writer.abort)
        return writer

    def _comparison(self, stack: ExitStack) -> Comparison | None:
        if self.plan.comparison_style is None:
            return None
        height, width = self.session.output_size
        comparison = Comparison(
            *self.job.comparison_paths,
            width=width,
            height=height,
            style=self.plan.comparison_style,
            frame_rate=self.reader.info.frame_rate,
            may_replace=self.job.may_replace,
        )
        stack.callback(comparison.abort)
        return comparison

    def _error_video(self, stack: ExitStack) -> ErrorVideo | None:
        if self.plan.errors is None:
            return None
        height, width = self.session.output_size
        errors = ErrorVideo(
            self.plan.errors,
            width=width,
            height=height,
            frame_rate=self.reader.info.frame_rate,
            may_replace=self.job.may_replace,
        )
        stack.callback(errors.abort)
        self.session.keeps_errors = True
        return errors


@dataclass(eq=False)
class _Kept:
    """Ends pieces where they are due, and notes them."""

    journal: Journal
    writer: SegmentedWriter
    every: int
    waiting: Sequence[Frame]
    """What the session holds of frames that were read."""
    seconds_before: float
    """That an earlier run worked."""

    def __post_init__(self) -> None:
        self._last_end = self.journal.frames_kept
        self._started = time.perf_counter()

    @classmethod
    def to_go_on(cls, journal: Journal, writer: VideoWriter, restoration: Restoration) -> "_Kept":
        """For a restoration whose session and frames then are where an earlier run left them."""
        assert isinstance(writer, SegmentedWriter)
        session, before = restoration.session, journal.before
        waiting: Sequence[Frame] = ()
        if before is not None:
            session.go_on(before.memory)
            logger.info("going on behind frame %d, which an earlier run came to", before.frames_out)
            waiting = _passed_over(
                restoration.frames, before.frames_out + session.frames_held, session.frames_held
            )
        return cls(
            journal,
            writer,
            frames_per_segment(*session.output_size),
            waiting,
            before.seconds if before else 0.0,
        )

    def is_due(self, frames_out: int) -> bool:
        """Whether the piece is long enough."""
        if frames_out - self._last_end < self.every:
            return False
        self._last_end = frames_out
        return True

    def end(self, memory: KeptMemory, frames_out: int) -> None:
        """The frames so far are on the disk for good."""
        segment = self.writer.end_segment()
        assert segment is not None, "a piece is due when there are frames"
        seconds = self.seconds_before + time.perf_counter() - self._started
        self.journal.add(segment, memory, frames_out=frames_out, seconds=seconds)


def _passed_over(frames: Iterator[Frame], count: int, wanted: int) -> Sequence[Frame]:
    """The last `wanted` of the next `count` frames.

    Raises:
        VideoOpenError: if there are fewer.
    """
    read = deque(itertools.islice(frames, count - wanted), maxlen=0)
    del read
    last = list(itertools.islice(frames, wanted))
    if len(last) < wanted:
        raise VideoOpenError(
            "the input ends before the frame that an earlier run came to",
            hint="give `--overwrite` to begin anew",
        )
    return last


def _tell_what_is_kept(
    journal: Journal,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> None:
    """What ends the run says what of it is not lost."""
    if error is not None and journal.sentence is not None and journal.held.has_kept:
        error.add_note(journal.sentence)


def _input_files(source: str) -> list[Path]:
    """The files of an input that can be read again; none of a pipe, a device or an address."""
    files = image_files(source)
    files = [Path(source.removeprefix("file:"))] if files is None else files
    return files if source != "-" and all(path.is_file() for path in files) else []


def _files_of_mask(mask: Path) -> list[Path]:
    return sorted(path for path in mask.iterdir() if path.is_file()) if mask.is_dir() else [mask]


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
        VideoOpenError: if a folder holds no video.
    """
    jobs = jobs_of(inputs, output, recursive=recursive, may_replace=overwrite)
    if plan.next_file:
        jobs = [part for job in jobs for part in _parts_of_one_size(job, plan)]
    _refuse_page(plan, jobs, may_replace=overwrite)
    _refuse_errors(plan, jobs, may_replace=overwrite)
    for job in jobs:
        refuse_to_overwrite(
            replace(job, may_replace=overwrite or is_batch(inputs, jobs)),
            with_comparison=plan.comparison_style is not None,
            reads=(*(other.source for other in jobs), plan.wanted.mask, plan.reference),
        )
    return jobs


def _parts_of_one_size(job: Job, plan: RestorePlan) -> list[Job]:
    """The job, or one for each size that its pictures have; of what cannot be read it will tell itself."""
    cuts: list[float] = []
    files = _input_files(job.source)
    if files and image_files(job.source) is None:
        trim = Trim.of(plan.start_seconds, plan.duration_seconds)
        with suppress(VideoOpenError):
            cuts = [float(cut) for cut in size_changes(files[0], trim=trim, rules=plan.rules)]
    return in_parts(
        job, cuts, start_seconds=plan.start_seconds, duration_seconds=plan.duration_seconds
    )


def _refuse_page(plan: RestorePlan, jobs: Sequence[Job], *, may_replace: bool) -> None:
    """UsageError if a page would be of several videos, or replace what it may not."""
    if plan.page is None:
        return
    check_page_name(plan.page)
    if len(jobs) > 1:
        raise UsageError("`--report` shows one video", hint="give one input")
    reads = (jobs[0].source, plan.wanted.mask, plan.reference)
    refuse(plan.page, reads=reads, may_replace=may_replace)
    check_writable(plan.page)  # not after hours


def _refuse_errors(plan: RestorePlan, jobs: Sequence[Job], *, may_replace: bool) -> None:
    """UsageError if a video of errors would be of several videos, or replace what it may not."""
    if plan.errors is None:
        return
    if len(jobs) > 1:
        raise UsageError("`--uncertainty` is of one video", hint="give one input")
    target = written_path(jobs[0].destination)
    if target is not None and target.resolve() == plan.errors.resolve():
        raise UsageError("`--uncertainty` and the output are one file", hint="give it another name")
    reads = (jobs[0].source, plan.wanted.mask, plan.reference)
    refuse(plan.errors, reads=reads, may_replace=may_replace)


@contextmanager
def prepared(job: Job, plan: RestorePlan, solver: OpenedSolver) -> Iterator[Restoration]:
    """The restoration of `job`, ready to run; the input is open as long as this lasts.

    Raises:
        VideoOpenError: if the input is no video.
        UsageError: if nothing says what is wrong with it, or options do not go together.
        DeviceMemoryError: if the student does not fit the device.
    """
    plan = plan.of(job)
    with open_video(
        job.source,
        start_seconds=plan.start_seconds,
        duration_seconds=plan.duration_seconds,
        fields=plan.fields,
        rules=plan.rules,
    ) as reader:
        frames = iter(reader)
        first = list(itertools.islice(frames, SAMPLE_FRAMES))
        resolved = _resolved(job, plan, reader, first)
        if plan.wanted.keep_detail is not None:
            resolved = replace(resolved, keep_detail=plan.wanted.keep_detail)
        degradation = resolved.degradation
        _refuse_to_enlarge_too_far(reader.info, degradation, plan.rules)
        if resolved.is_nothing_to_do:
            solver = open_solver(UNCHANGED)
        made = solver.new_session(
            degradation,
            height=reader.info.height,
            width=reader.info.width,
            limits=plan.limits,
            keep_detail=resolved.keep_detail,
            follow=resolved.follow,
        )
        with masks_along(degradation.operator, plan.masks_for(reader.info)) as masks:
            yield Restoration(
                job=job,
                plan=plan,
                solver=solver,
                reader=reader,
                frames=masks.along(
                    _as_told(
                        itertools.chain(first, frames), keep_guesses=_corrects(solver, degradation)
                    )
                ),
                resolved=resolved,
                session=made.session,
                notices=(
                    *notices_of_fields(reader, plan.fields),
                    *doubts_of(solver, degradation),
                    *made.notices,
                ),
            )


def _refuse_to_enlarge_too_far(
    info: VideoInfo, degradation: Degradation, rules: InputRules
) -> None:
    """UsageError if the restored pictures would be larger than a picture may be."""
    height, width = degradation.operator.clean_size(info.height, info.width)
    if height * width > rules.max_pixels:
        raise UsageError(
            f"{info.width}x{info.height} would become {width}x{height}; "
            f"a picture has at most {rules.max_pixels} pixels",
            hint=f"enlarge less, or give `--max-pixels {height * width}`",
        )


def _resolved(job: Job, plan: RestorePlan, reader: VideoReader, first: Sequence[Frame]) -> Resolved:
    """The degradation of one input whose first frames were read."""
    is_lossy, start, rules = not reader.info.is_lossless, plan.start_seconds, plan.rules
    fields = _found_again(reader.fields, plan.fields)

    def first_of(frames: Sequence[Frame]) -> Sample:
        return first_sample(job.source, frames, start_seconds=start, fields=fields, rules=rules)

    if not needs_to_be_looked_at(job.source, plan.wanted, rules):
        is_seen = needs_first_frames(job.source, plan.wanted, is_lossy=is_lossy, rules=rules)
        sample = first_of(first) if is_seen else None
        return resolve_video(job.source, plan.wanted, sample=sample, is_lossy=is_lossy, rules=rules)
    samples = (
        first_of(first[:FRAMES_PER_PLACE]),
        *later_samples(job.source, reader.info, start_seconds=start, fields=fields, rules=rules),
    )
    return resolve_by_looking(job.source, samples, is_lossy=is_lossy, fields=reader.fields)


def _found_again(found: Fields | None, choice: FieldChoice) -> FieldChoice:
    """What makes pictures whole elsewhere in a video as it did at its beginning."""
    if found is None:
        return WEAVE
    return replace(found.choice, each_field=choice.each_field)


def doubts_of(solver: OpenedSolver, degradation: Degradation) -> tuple[Notice, ...]:
    """What a person is to be told of a degradation that the solver may not undo well."""
    return tuple(Notice(text, is_warning=True) for text in solver.doubts(degradation))


def _corrects(solver: OpenedSolver, degradation: Degradation) -> bool:
    """Whether a solver makes more of fields when it is told which rows were guessed: a student that is
    told of holes, where nothing else is to be inverted and there is little noise."""
    is_fine = degradation.noise_std <= MOST_NOISE_OF_FIELDS
    if solver.loaded is None or not degradation.operator.only_selects or not is_fine:
        return False
    return "known_fraction" in solver.loaded.student.capabilities.traits


def _as_told(frames: Iterable[Frame], *, keep_guesses: bool) -> Iterator[Frame]:
    for frame in frames:
        yield frame if keep_guesses else replace(frame, guessed=None)


def notices_of_fields(reader: VideoReader, choice: FieldChoice) -> tuple[Notice, ...]:
    """What a person is to be told of the fields of a video."""
    found, rate = reader.fields, reader.info.frame_rate
    if found is None or found.first is None:
        return ()
    shown = "" if rate is None else f", {float(rate):.5g} a second"
    one_for = (
        "film picture"
        if found.scan == "telecined"
        else ("field" if choice.each_field else "two fields")
    )
    how = "found" if choice.fields == "auto" else "told"
    text = f"the video is {found.sentence} ({how}): one whole frame for each {one_for}{shown}"
    return (Notice(text),)


def log_notices(notices: Iterable[Notice]) -> None:
    """Leave what a person is to be told to the log of the program that calls."""
    for notice in notices:
        logger.log(logging.WARNING if notice.is_warning else logging.INFO, "%s", notice.text)


def restore(
    source: str | Path,
    destination: str | Path | None = None,
    *,
    task: str | Sequence[str] = (),
    operator: str | Degradation | None = None,
    blur_sigma: float | None = None,
    noise: float | None = None,
    scale: int | None = None,
    mask: str | Path | None = None,
    dust: bool = False,
    keep_detail: float | None = None,
    model: str = EMBEDDED,
    solver: str | Solver[Any] | None = None,
    device: str = "auto",
    prompt: str | None = None,
    vram: float | None = None,
    tile: int | None = None,
    latency: int | None = None,
    start: float | None = None,
    duration: float | None = None,
    fields: str = "auto",
    same_rate: bool = False,
    follow_references: bool = False,
    max_pixels: int = MOST_PIXELS,
    sandbox: bool = False,
    codec: str | None = None,
    crf: int | None = None,
    preset: str | None = None,
    pix_fmt: str | None = None,
    output_format: str | None = None,
    reference: str | Path | None = None,
    compare_style: str | None = None,
    report: str | Path | None = None,
    uncertainty: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    on_progress: OnProgress | None = None,
) -> RestoreReport:
    """What came of restoring one video into a file: `instantvir restore` as a call.

    Args:
        source: a video, an image pattern such as `in_%04d.png`, or `-` for standard input.
        destination: a file, a folder (with `/`), an image pattern or `-`; None writes
            `IN.restored.mp4` beside the input.
        task: `denoise`, `deblur`, `sr`, `inpaint`, or several of them; with nothing told at all, what
            `diagnose` finds is mended where that is sure to help.
        operator: what happened to the video, exactly: `blur:sigma=3+noise:std=5`, or a
            `Degradation` with an operator of your own.
        blur_sigma: pixels; estimated if not given.
        noise: 8-bit levels; estimated if not given.
        scale: enlargement for `sr`, 2 to 8; 4 if not given.
        mask: an image, or a video or folder of images with one for each frame, white where pixels are
            known; estimated if not given.
        dust: whether dust and scratches are found and filled, too, or alone.
        keep_detail: part of the fine contrast that stays everywhere, 0 to 1, so that faint texture is
            not smoothed; found where nothing is told, else 0.
        model: what `load_student` takes.
        solver: a method without weights instead, by its name, or one of your own.
        device: `auto`, `cpu` or `cuda`.
        prompt: what is seen, for a student that reads text; or a file of precomputed rows.
        vram: gigabytes a full-size student may take; None takes what is free on the card.
        tile: side of the tiles in pixels, a multiple of 64; 0 never tiles.
        latency: frames per block.
        start, duration: seconds of the input to skip and to take.
        fields: of an interlaced video, which comes first: `top`, `bottom`, `telecine` (film at 3:2),
            `none` for whole pictures; `auto` finds out.
        same_rate: one frame for two fields, instead of one for each at twice the rate.
        follow_references: whether files and addresses that the input names are opened, too.
        max_pixels: of the largest picture that is decoded or made.
        sandbox: whether a process of its own decodes the input, which can reach nothing else.
        codec, crf, preset, pix_fmt, output_format: of the output, as the command names them.
        reference: the clean video, to measure the gain against.
        compare_style: `side` or `wipe` also writes a comparison beside the output.
        report: where a page goes that shows it: a wipe, what was found, how long it took.
        uncertainty: where a grey video goes that shows how far each pixel is expected to be off, ten
            grey levels for each 8-bit level.
        overwrite: whether files that exist may be replaced.
        resume: whether what was begun has to be gone on with; else it is where this is the same call.
        on_progress: called after every frame; what it raises ends the run and leaves no file.

    Raises:
        InstantVIRError: a sentence and a hint, of the kind that says what is wrong: `UsageError`,
            `VideoOpenError`, `VideoWriteError`, `CheckpointError`, `DeviceMemoryError`.
    """
    plan = RestorePlan(
        wanted=TaskOptions(
            tasks=parse_tasks((task,) if isinstance(task, str) else task),
            operator=operator,
            blur_sigma=blur_sigma,
            noise_levels=noise,
            scale=scale,
            mask=None if mask is None else Path(mask),
            dust=dust,
            keep_detail=keep_detail,
        ),
        limits=SessionLimits(gigabytes=vram, tile_pixels=tile, frames_per_block=latency),
        start_seconds=start,
        duration_seconds=duration,
        fields=FieldChoice(fields=fields, each_field=not same_rate),
        rules=InputRules(
            follow_references=follow_references, max_pixels=max_pixels, sandbox=sandbox
        ),
        encoder=EncoderSettings(codec=codec, crf=crf, preset=preset, pix_fmt=pix_fmt),
        output_format=output_format,
        reference=None if reference is None else Path(reference),
        comparison_style=compare_style,
        must_go_on=resume,
        page=None if report is None else Path(report),
        errors=None if uncertainty is None else Path(uncertainty),
    )
    jobs = planned_jobs(
        [str(source)], None if destination is None else str(destination), plan, overwrite=overwrite
    )
    if len(jobs) > 1:
        raise UsageError(f"`{source}` are {len(jobs)} videos", hint="restore them one by one")
    opened = open_chosen(model=model, solver=solver, device=device, prompt=prompt)
    with prepared(jobs[0], plan, opened) as restoration:
        log_notices((*opened.notices, *restoration.notices))
        return restoration.run(on_progress)
