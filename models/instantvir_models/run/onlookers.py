"""What looks at each frame and what became of it: the gain, a comparison, expected errors, a page, and who
wants to know how far it is."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from instantvir_models.media import Frame
from instantvir_models.report.page import save_page
from instantvir_models.run.album import Album
from instantvir_models.run.comparison import Comparison
from instantvir_models.run.error_video import ErrorVideo
from instantvir_models.run.gain import Gain
from instantvir_models.run.pace import Pace
from instantvir_models.run.page import restored_page
from instantvir_models.run.pipeline import PipelineReport
from instantvir_models.run.restore_report import OnProgress, Progress, RestoreReport

if TYPE_CHECKING:
    from instantvir_models.run.restoration import Restoration


def opened_gain(restoration: Restoration, stack: ExitStack) -> Gain | None:
    """What compares with the reference, until `stack` unwinds; None without one."""
    plan = restoration.plan
    if plan.reference is None:
        return None
    gain = Gain(plan.reference, start_seconds=plan.start_seconds, rules=plan.rules)
    stack.callback(gain.close)
    return gain


@dataclass(frozen=True, eq=False)
class Onlookers:
    """Those that a plan asks for. What they write is there when they are closed, or not at all."""

    gain: Gain | None
    comparison: Comparison | None
    errors: ErrorVideo | None
    """Takes the expected errors from the pipeline; the others are shown pairs."""
    album: Album | None

    @classmethod
    def of(cls, restoration: Restoration, gain: Gain | None, stack: ExitStack) -> Onlookers:
        """All that are asked for; what they have begun ends when `stack` unwinds."""
        return cls(
            gain,
            _opened_comparison(restoration, stack),
            _opened_error_video(restoration, stack),
            None if restoration.plan.page is None else Album(restoration.resolved.degradation),
        )

    def add(self, original: Frame, restored: Frame) -> None:
        """Show them one pair."""
        if self.gain is not None:
            self.gain.add(original, restored)
        if self.comparison is not None:
            self.comparison.add(original, restored)
        if self.album is not None:
            self.album.add(original, restored, None if self.gain is None else self.gain.clean)

    def close(self) -> None:
        """Let what they wrote appear."""
        if self.comparison is not None:
            self.comparison.close()
        if self.errors is not None:
            self.errors.close()

    def write_page(
        self, restoration: Restoration, report: RestoreReport, ran: PipelineReport
    ) -> None:
        """The page, if one is asked for."""
        path = restoration.plan.page
        if path is None or self.album is None:
            return
        page = restored_page(
            report,
            ran,
            moments=self.album.moments(),
            frames_per_second=self.album.frames_per_second,
            gain=self.gain,
        )
        save_page(page, path, may_replace=restoration.job.may_replace)


def _opened_comparison(restoration: Restoration, stack: ExitStack) -> Comparison | None:
    plan, job = restoration.plan, restoration.job
    if plan.comparison_style is None:
        return None
    height, width = restoration.session.output_size
    comparison = Comparison(
        *job.comparison_paths,
        width=width,
        height=height,
        style=plan.comparison_style,
        frame_rate=restoration.reader.info.frame_rate,
        may_replace=job.may_replace,
    )
    stack.callback(comparison.abort)
    return comparison


def _opened_error_video(restoration: Restoration, stack: ExitStack) -> ErrorVideo | None:
    path, session = restoration.plan.errors, restoration.session
    if path is None:
        return None
    height, width = session.output_size
    errors = ErrorVideo(
        path,
        width=width,
        height=height,
        frame_rate=restoration.reader.info.frame_rate,
        may_replace=restoration.job.may_replace,
    )
    stack.callback(errors.abort)
    session.keeps_errors = True
    return errors


class Teller:
    """Tells how far a restoration is, frame by frame.

    Args:
        on_progress: who is told.
        is_kept: whether what is done is kept.
    """

    def __init__(self, restoration: Restoration, on_progress: OnProgress, *, is_kept: bool) -> None:
        self._reader, self._on_progress, self._is_kept = restoration.reader, on_progress, is_kept
        self._frames = restoration.session.frames_out
        self._started = time.perf_counter()
        self._pace = Pace(frames_per_block=restoration.session.frames_per_block)

    def one_more(self) -> None:
        """One more frame came out."""
        self._frames += 1
        seconds = time.perf_counter() - self._started
        total_frames = self._reader.expected_frames()
        self._pace.note(self._frames, seconds)
        self._on_progress(
            Progress(
                self._frames,
                total_frames,
                seconds,
                self._pace.fps,
                self._pace.seconds_left(total_frames),
                is_kept=self._is_kept,
            )
        )
