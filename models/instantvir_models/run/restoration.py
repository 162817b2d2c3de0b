"""One video restored: opened, its degradation found, a session made for it, run and reported."""

import itertools
import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from instantvir_models import __version__
from instantvir_models.diagnosis.sample import FRAMES_PER_PLACE, Sample, first_sample, later_samples
from instantvir_models.errors import UsageError
from instantvir_models.media import (
    Frame,
    InputRules,
    VideoInfo,
    VideoReader,
    VideoWriter,
    create_video,
    open_video,
)
from instantvir_models.media.fields import WEAVE, FieldChoice, Fields
from instantvir_models.media.open import create_segmented_video
from instantvir_models.operators.measurement import LEVEL, Degradation
from instantvir_models.operators.sidecar import forget_sidecar, noted_frames
from instantvir_models.outputs.claim import new_file
from instantvir_models.outputs.names import written_path
from instantvir_models.report.page import save_page
from instantvir_models.run.asked import asked_for, note_on
from instantvir_models.run.gain import Gain
from instantvir_models.run.going_on import Kept, opened_pieces
from instantvir_models.run.jobs import Job, make_folder_of
from instantvir_models.run.journal import Fingerprint, Journal
from instantvir_models.run.masks import masks_along
from instantvir_models.run.onlookers import Onlookers, Teller, opened_gain
from instantvir_models.run.opening import OpenedSolver, open_solver
from instantvir_models.run.page import restored_page
from instantvir_models.run.pipeline import PipelineReport, restore_video
from instantvir_models.run.plan import RestorePlan, check_output_of
from instantvir_models.run.resolution import (
    SAMPLE_FRAMES,
    Resolved,
    needs_first_frames,
    needs_to_be_looked_at,
    resolve_by_looking,
    resolve_video,
)
from instantvir_models.run.restore_report import OnProgress, RestoreReport
from instantvir_models.run.session import Session
from instantvir_models.students.fitting import Notice

logger = logging.getLogger(__name__)

UNCHANGED = "as_measured"
"""The solver that gives back a video with which nothing is wrong."""

MOST_NOISE_OF_FIELDS = 3 * LEVEL
"""Beyond it what bwdif makes of fields is denoised as whole pictures, for which rows by themselves show
motion too badly: over that, ten fields of sam2_dog_01 and carnd_highway_01 at 256x144 gain 0.35 and 1.33
dB without noise, 0.20 and 0.29 at 2 levels, 0.08 and -0.04 at 4, and lose 0.10 and 0.22 at 8."""


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
    asked: Fingerprint
    """What a person said of how it is to be made."""

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
        report = self._copied() if self.is_copied else self._restored(on_progress)
        if (written := written_path(self.job.destination)) is not None:
            note_on(written, self.asked)
        return report

    def _restored(self, on_progress: OnProgress | None) -> RestoreReport:
        with ExitStack() as stack:
            gain = opened_gain(self, stack)
            make_folder_of(self.job)
            journal = opened_pieces(self, stack)
            writer = self._writer(stack, journal)
            onlookers = Onlookers.of(self, gain, stack)
            kept = Kept.to_go_on(journal, writer, self) if journal is not None else None
            teller = on_progress and Teller(self, on_progress, is_kept=journal is not None)

            def on_pair(original: Frame, restored: Frame) -> None:
                onlookers.add(original, restored)
                if teller is not None:
                    teller.one_more()

            ran = restore_video(
                self.frames,
                self.session,
                writer,
                on_pair=on_pair,
                on_error=None if onlookers.errors is None else onlookers.errors.add,
                segments=kept,
                waiting=kept.waiting if kept else (),
                seconds_before=kept.seconds_before if kept else 0.0,
            )
            writer.close()
            if journal is not None:
                journal.held.commit()  # and the pieces go
            if (written := written_path(self.job.destination)) is not None:
                forget_sidecar(written)  # that of a file that was there before
            onlookers.close()
            report = self.report(ran, gain, writer)
            onlookers.write_page(self, report, ran)
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
            sharpness=self.session.sharpness,
            input_psnr_over_frames=gain.input_psnr_over_frames if gain else None,
            output_psnr_over_frames=gain.output_psnr_over_frames if gain else None,
        )

    def _damage(self, ran: PipelineReport) -> str | None:
        """What could not be read, and what the note of the measurement says that there was."""
        found = self.reader.damage.message
        noted = None if self.resolved.note is None else noted_frames(Path(self.job.source))
        is_whole = self.plan.start_seconds is None and self.plan.duration_seconds is None
        if found is None and is_whole and noted is not None and noted != ran.frames:
            return f"its note promises {noted} frames, {ran.frames} could be read"
        return found

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


@contextmanager
def prepared(job: Job, plan: RestorePlan, solver: OpenedSolver) -> Iterator[Restoration]:
    """The restoration of `job`, ready to run; the input is open as long as this lasts.

    Raises:
        VideoOpenError: if the input is no video.
        UsageError: if nothing says what is wrong with it, or options do not go together.
        DeviceMemoryError: if the student does not fit the device.
        VideoWriteError: if the output could not be written, whatever the pictures are.
    """
    asked = asked_for(plan, solver.name, prompt=solver.prompt)
    plan = plan.of(job)
    check_output_of(job, plan)
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
        sharpness, unused = plan.wanted.sharpness, list[Notice]()
        if resolved.is_nothing_to_do:
            solver = open_solver(UNCHANGED)
            if sharpness:
                text = "`--sharpness` has no effect: nothing is restored"
                sharpness, unused = 0.0, [Notice(text, is_warning=True)]
        made = solver.new_session(
            degradation,
            height=reader.info.height,
            width=reader.info.width,
            limits=plan.limits,
            keep_detail=resolved.keep_detail,
            follow=resolved.follow,
            sharpness=sharpness,
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
                    *unused,
                ),
                asked=asked,
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
