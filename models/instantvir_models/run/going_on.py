"""A restoration that goes on where an earlier run of it was: what that depends on, and when it cannot."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from instantvir_models.errors import VideoOpenError, VideoWriteError
from instantvir_models.media import Frame, VideoWriter
from instantvir_models.media.segments import SegmentedWriter, can_be_segmented
from instantvir_models.outputs.claim import claim, told
from instantvir_models.outputs.names import written_path
from instantvir_models.outputs.rule import refuse
from instantvir_models.run.jobs import input_files
from instantvir_models.run.journal import (
    Fingerprint,
    Journal,
    frames_per_segment,
    of_files,
    of_program,
    opened_journal,
)
from instantvir_models.run.kept import KeptMemory
from instantvir_models.run.loose import LooseFrames

if TYPE_CHECKING:
    from instantvir_models.run.restoration import Restoration

logger = logging.getLogger(__name__)

KEEP_SECONDS = 20.0
"""Of work that is lost at most, but for a block: after so many what is done of a piece is kept."""

MOST_WAITING_BYTES = 64 << 20
"""Of restored frames in memory that may be kept."""

MOST_BYTES_PER_PIXEL = 6
"""Three channels of 16 bits."""

PART_OF_FREE = 0.25
"""Of what is free on a disk, for frames that are of use only where a run is ended."""


def opened_pieces(restoration: Restoration, stack: ExitStack) -> Journal | None:
    """Where what is done is kept, until `stack` unwinds; None where the run cannot be gone on with.

    Raises:
        UsageError: if what is there is of another command, unless it may be replaced.
    """
    job, plan = restoration.job, restoration.plan
    path = written_path(job.destination)
    why = why_in_one_piece(restoration)
    if why is not None or path is None:
        if plan.must_go_on and why:
            logger.warning("`--resume` has no effect on `%s`: %s", job.source, why)
        return None
    refuse(path, may_replace=job.may_replace)
    held = claim(path, may_replace=job.may_replace, adopts=True)
    stack.callback(held.release)
    journal = opened_journal(held, fingerprint_of(restoration), must_go_on=plan.must_go_on)
    stack.push(partial(_tell_what_is_kept, journal))
    return journal


def why_in_one_piece(restoration: Restoration) -> str | None:
    """Why this run cannot be gone on with, in words; None where it can."""
    info, plan, session = restoration.reader.info, restoration.plan, restoration.session
    path = written_path(restoration.job.destination)
    if path is None or not can_be_segmented(path, plan.output_format, info):
        return "only MP4, MOV, MKV and WebM without transparency are made in pieces"
    if os.path.exists(path) and not os.path.isfile(path):
        return "the output is no file"
    if plan.reference is not None or plan.comparison_style is not None or plan.page is not None:
        return "a comparison has to see all frames"
    if plan.errors is not None:
        return "the video of expected errors is made in one piece"
    if not input_files(restoration.job.source):
        return "the input is no file, and cannot be read again"
    if not session.can_be_kept:
        return "the memory of this model is not kept"
    return None


def fingerprint_of(restoration: Restoration) -> Fingerprint:
    """All that the output depends on."""
    plan, session, solver = restoration.plan, restoration.session, restoration.solver
    resolved, mask = restoration.resolved, restoration.plan.wanted.mask
    height, width = session.output_size
    return Fingerprint(
        {
            "the input": of_files(input_files(restoration.job.source)),
            "the degradation": resolved.degradation.spec,
            "the detail that is kept": str(resolved.keep_detail),
            "how far the solver is followed": str(resolved.follow),
            "the sharpness": str(session.sharpness),
            "the mask": of_files(_files_of_mask(mask)) if mask is not None else "none",
            "the model": f"{solver.name} {solver.sha256 or ''}".strip(),
            "the device": str(solver.device),
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


@dataclass(eq=False)
class Kept:
    """Ends pieces where they are due, and notes them; of a piece that takes long it keeps what is done."""

    journal: Journal
    writer: SegmentedWriter
    every: int
    waiting: Sequence[Frame]
    """What the session holds of frames that were read."""
    seconds_before: float
    """That an earlier run worked."""
    loose: LooseFrames | None
    """The restored frames of the piece at hand; None where they are not kept."""

    def __post_init__(self) -> None:
        self._last_end = self.journal.frames_in_pieces
        self._started = self._piece_started = self._kept_at = time.perf_counter()
        self._frames_of_piece, self._is_passed_over, self._last_pace = 0, False, 0.0

    @classmethod
    def to_go_on(cls, journal: Journal, writer: VideoWriter, restoration: Restoration) -> Kept:
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
        loose = journal.new_loose()
        if before is not None and before.loose is not None:
            loose = before.loose
            for frame in loose.read():
                writer.write(frame)
        every = frames_per_segment(*session.output_size)
        return cls(
            journal,
            writer,
            every,
            waiting,
            before.seconds if before else 0.0,
            loose if loose.num_frames or _has_room(journal, session.output_size, every) else None,
        )

    def is_due(self, frames_out: int) -> bool:
        """Whether the piece is long enough."""
        if frames_out - self._last_end < self.every:
            return False
        self._last_end = frames_out
        self._kept_at = time.perf_counter()
        return True

    def is_time(self) -> bool:
        """Whether so much work was done since something was kept that it would be missed."""
        now = time.perf_counter()
        if now - self._kept_at < KEEP_SECONDS:
            return False
        self._kept_at = now
        return True

    def end(self, memory: KeptMemory, frames_out: int) -> None:
        """The frames so far are on the disk for good."""
        segment = self.writer.end_segment()
        assert segment is not None, "a piece is due when there are frames"
        self.journal.add(segment, memory, frames_out=frames_out, seconds=self._seconds)
        if self.loose is not None:
            self.journal.forget(self.loose)
            self.loose = self.journal.new_loose()
        self._last_pace = self._pace
        self._piece_started, self._frames_of_piece = time.perf_counter(), 0
        self._is_passed_over = False

    def note(self, memory: KeptMemory, frames_out: int) -> None:
        """The frames of the piece at hand are on the disk, unless it has no room for them."""
        if self.loose is None or self._is_passed_over:
            return
        assert self.loose.num_frames == frames_out - self.journal.frames_in_pieces
        try:
            self.journal.note(self.loose, memory, frames_out=frames_out, seconds=self._seconds)
        except VideoWriteError as error:
            self._give_up(error)

    def add(self, frame: Frame) -> None:
        """Take a frame that was written; a piece that is done soon is passed over, for what is lost of it is
        little and its frames are many."""
        self._frames_of_piece += 1
        if self.loose is None or self._is_passed_over:
            return
        self.loose.waiting.append(frame)
        if self.loose.waiting_bytes < MOST_WAITING_BYTES:
            return
        if self._is_quick and not self.loose.files:
            self.loose.waiting.clear()
            self._is_passed_over = True
            return
        try:
            with told(self.journal.held.path):
                self.loose.store()
        except VideoWriteError as error:
            self._give_up(error)

    @property
    def _is_quick(self) -> bool:
        """Whether the piece at hand takes no longer than what is lost anyway."""
        return max(self._pace, self._last_pace) * self.every <= KEEP_SECONDS

    @property
    def _pace(self) -> float:
        """Seconds for a frame of the piece at hand."""
        return (time.perf_counter() - self._piece_started) / max(1, self._frames_of_piece)

    @property
    def _seconds(self) -> float:
        """That this and earlier runs worked."""
        return self.seconds_before + time.perf_counter() - self._started

    def _give_up(self, error: VideoWriteError) -> None:
        """The output itself may still find room."""
        assert self.loose is not None
        logger.warning("what is done of the piece at hand is not kept: %s", error)
        loose, self.loose = self.loose, None
        with suppress(VideoWriteError):
            self.journal.forget(loose)


def _has_room(journal: Journal, size: tuple[int, int], num_frames: int) -> bool:
    """Whether the frames of a piece take no more than a part of what is free on the disk."""
    try:
        free = shutil.disk_usage(journal.held.folder).free
    except OSError:  # some mounts do not say
        return False
    height, width = size
    return num_frames * height * width * MOST_BYTES_PER_PIXEL <= PART_OF_FREE * free


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
    if error is None:
        return
    if journal.sentence is not None and journal.held.has_kept:
        error.add_note(journal.sentence)
    elif isinstance(error, KeyboardInterrupt):
        error.add_note("no unfinished file was left behind; the same command begins anew")


def _files_of_mask(mask: Path) -> list[Path]:
    return sorted(path for path in mask.iterdir() if path.is_file()) if mask.is_dir() else [mask]
