"""One long video in pieces: looked through, restored piece by piece by whoever is free, and joined.

A piece is kept without loss, and encoded only when all are joined: the file has one encoder, the times of the
source, and its sound, as if it had been restored at once.
"""

import hashlib
import itertools
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from instantvir_models import __version__
from instantvir_models.errors import UsageError, VideoOpenError, VideoWriteError
from instantvir_models.farm.pieces import Blocks, Piece, cuts_in, pieces_of
from instantvir_models.farm.worker import OnProgress
from instantvir_models.media import (
    USUAL_RULES,
    EncoderSettings,
    Frame,
    InputRules,
    VideoWriter,
    create_video,
    open_video,
)
from instantvir_models.media.frame import Pixels
from instantvir_models.operators.compose import awaits_masks
from instantvir_models.operators.measurement import Degradation
from instantvir_models.run.jobs import Job, make_folder_of
from instantvir_models.run.opening import OpenedSolver
from instantvir_models.run.pipeline import restore_video
from instantvir_models.run.plan import RestorePlan
from instantvir_models.run.resolution import Resolved
from instantvir_models.run.restoration import prepared
from instantvir_models.run.restore_report import Progress

WARM_UP_FRAMES = 24
"""What the embedded student remembers of more distant frames changes nothing that can be seen."""

THUMBNAIL = 32
"""Pixels, or boxes, along each side of what pictures are compared by."""

PIXEL_FORMATS = {np.dtype(np.uint8): "bgr0", np.dtype(np.uint16): "gbrp16le"}
"""In which FFV1 keeps pixels to the bit."""


@dataclass(frozen=True, kw_only=True)
class PieceJob(Job):
    """A piece of `source`, kept without loss in `destination`."""

    piece: Piece
    mark: int
    """Of the first picture to be read, by which it is known again."""
    degradation: Degradation = field(compare=False)
    keep_detail: float
    follow: float


@dataclass(frozen=True)
class PieceReport:
    """What came of a piece."""

    frames: int
    """Of the piece itself, without those before and behind it."""
    residual: float | None
    frames_guarded: int


@dataclass(frozen=True)
class Seen:
    """What a look through a video has found."""

    times: tuple[Fraction, ...]
    cuts: tuple[int, ...]
    marks: tuple[int, ...]
    """A checksum of some pixels of each picture."""


@dataclass(frozen=True)
class SplitVideo:
    """A video in pieces."""

    job: Job
    plan: RestorePlan
    pieces: tuple[PieceJob, ...]
    cuts: tuple[int, ...]
    degradation: Degradation

    @property
    def folder(self) -> Path:
        """Where the pieces are, until they are joined."""
        return Path(self.pieces[0].destination).parent


def split(
    job: Job,
    plan: RestorePlan,
    solver: OpenedSolver,
    *,
    minutes: float,
    warm_up: int = WARM_UP_FRAMES,
) -> SplitVideo:
    """The pieces of one video, each about so many minutes long, all told the same degradation.

    Raises:
        UsageError: for what cannot be split: pipes, images, fields, masks, a part of a video.
    """
    _refuse(job, plan, minutes)
    with prepared(job, plan, solver) as restoration:
        if restoration.resolved.is_nothing_to_do:
            raise UsageError(
                f"nothing is to be done to `{job.source}`",
                hint="say what is wrong: `--task denoise`",
            )
        resolved, session = restoration.resolved, restoration.session
        degradation = resolved.degradation
        if awaits_masks(degradation.operator):
            raise UsageError(
                "`--split` does not go with masks that change, such as those of dust",
                hint="leave it out, or say what else is wrong: `--task denoise`",
            )
        if restoration.reader.fields is not None and restoration.reader.fields.first is not None:
            raise UsageError("`--split` does not cut interlaced videos", hint="leave it out")
        blocks = Blocks(
            first=min(solver.solver.first_block_frames, session.frames_per_block),
            following=session.frames_per_block,
            radius=degradation.operator.temporal_radius,
        )
    seen = look_through(job.source, plan.rules)
    seconds = float(seen.times[-1] - seen.times[0]) or 1.0
    pieces = pieces_of(
        seen.times, seen.cuts, warm_up=warm_up, blocks=blocks,
        frames_per_piece=max(blocks.following, round(len(seen.times) * 60 * minutes / seconds)),
    )  # fmt: skip
    target = Path(job.destination)
    folder = target.with_name(f".{target.name}.pieces-{_recipe(job, plan, solver, resolved)}")
    jobs = tuple(
        PieceJob(
            source=job.source, destination=str(folder / f"{piece.name}.mkv"), folder=folder,
            piece=piece, mark=seen.marks[piece.read_first], degradation=degradation,
            keep_detail=resolved.keep_detail, follow=resolved.follow,
        )
        for piece in pieces
    )  # fmt: skip
    return SplitVideo(job, plan, jobs, seen.cuts, degradation)


def _recipe(job: Job, plan: RestorePlan, solver: OpenedSolver, resolved: Resolved) -> str:
    """Tells apart pieces that do not belong together: another input, other weights, other wishes."""
    degradation = resolved.degradation
    found = Path(job.source).stat()
    words = (
        found.st_size, found.st_mtime_ns, degradation.spec, degradation.noise_std, solver.name,
        solver.sha256, plan.limits, resolved.keep_detail, resolved.follow,
        plan.wanted.sharpness, __version__,
    )  # fmt: skip
    return hashlib.sha256(repr(words).encode()).hexdigest()[:12]


def _refuse(job: Job, plan: RestorePlan, minutes: float) -> None:
    if minutes <= 0:
        raise UsageError(f"`--split` is {minutes:g}; it is minutes, above 0")
    if not Path(job.source).is_file() or job.destination == "-":
        raise UsageError(f"`--split` cuts a video file into pieces, not `{job.source}`")
    others = {
        "--start and --duration": plan.start_seconds or plan.duration_seconds,
        "--mask and --dust": plan.wanted.mask or plan.wanted.dust,
        "--report": plan.page,
        "--reference and --compare": plan.reference or plan.comparison_style,
        "--uncertainty": plan.errors,
    }
    for names, value in others.items():
        if value:
            raise UsageError(f"`--split` does not go with {names}", hint="leave one of them out")


def look_through(source: str, rules: InputRules = USUAL_RULES) -> Seen:
    """Times, cuts between scenes, and a mark of each picture; decodes all of the video once."""
    times: list[Fraction] = []
    changes: list[float] = []
    marks: list[int] = []
    before: NDArray[np.float32] | None = None
    with open_video(source, other_streams=False, rules=rules) as reader:
        for frame in reader:
            times.append(frame.pts * frame.time_base)
            marks.append(zlib.crc32(_some_pixels(frame).tobytes()))
            means = _means(frame)
            changes.append(0.0 if before is None else float(np.abs(means - before).mean()))
            before = means
    return Seen(tuple(times), tuple(cuts_in(changes)), tuple(marks))


def _some_pixels(frame: Frame) -> Pixels:
    """By which a picture is known again, on whatever machine."""
    height, width = frame.pixels.shape[:2]
    return frame.pixels[:: max(1, height // THUMBNAIL), :: max(1, width // THUMBNAIL)].copy()


def _means(frame: Frame) -> NDArray[np.float32]:
    """In 8-bit levels, over boxes: noise, which is what a video is often restored for, hides no cut there."""
    largest = float(np.iinfo(frame.pixels.dtype).max)
    boxes = cv2.resize(frame.pixels, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return boxes.astype(np.float32) * (255 / largest)


class _Kept:
    """Keeps the frames first .. stop of a piece without loss; those before and behind are dropped."""

    def __init__(self, job: PieceJob, size: tuple[int, int]) -> None:
        self._job, self._size = job, size
        self._next = job.piece.read_first
        self.stack = ExitStack()
        self._writer: VideoWriter | None = None

    def write(self, frame: Frame) -> None:
        """Take the next restored frame."""
        index, self._next = self._next, self._next + 1
        if not self._job.piece.first <= index < self._job.piece.stop:
            return
        if self._writer is None:
            make_folder_of(self._job)
            height, width = self._size
            settings = EncoderSettings(codec="ffv1", pix_fmt=PIXEL_FORMATS[frame.pixels.dtype])
            self._writer = self.stack.enter_context(
                create_video(
                    self._job.destination,
                    width=width,
                    height=height,
                    settings=settings,
                    frame_rate=25,
                )
            )
        self._writer.write(Frame(frame.pixels, index - self._job.piece.first, Fraction(1, 25), 1))


def restore_piece(
    job: Job, plan: RestorePlan, solver: OpenedSolver, on_progress: OnProgress
) -> PieceReport:
    """One piece restored into its file.

    Raises:
        VideoOpenError: if its first picture is not found again.
        VideoWriteError: if it cannot be kept.
    """
    assert isinstance(job, PieceJob)
    piece = job.piece
    with open_video(
        job.source, start_seconds=piece.start_seconds, other_streams=False, rules=plan.rules
    ) as reader:
        frames = itertools.islice(reader, piece.read_stop - piece.read_first)
        first = next(frames, None)
        if first is None or zlib.crc32(_some_pixels(first).tobytes()) != job.mark:
            raise VideoOpenError(
                f"`{job.source}` does not give frame {piece.read_first} at "
                f"{float(piece.start_seconds or 0):.3f} s: it cannot be entered in the middle",
                hint="restore it without `--split`",
            )
        height, width = reader.info.height, reader.info.width
        session = solver.new_session(
            job.degradation, height=height, width=width, limits=plan.limits,
            keep_detail=job.keep_detail, follow=job.follow, sharpness=plan.wanted.sharpness,
        ).session  # fmt: skip
        kept, total = _Kept(job, session.output_size), piece.read_stop - piece.read_first
        counted = itertools.count(1)
        with kept.stack:
            ran = restore_video(
                itertools.chain([first], frames), session, kept,
                on_pair=lambda *_: on_progress(Progress(next(counted), total, 0.0)),
            )  # fmt: skip
    return PieceReport(piece.stop - piece.first, ran.session.residual, ran.session.frames_guarded)


def join(video: SplitVideo) -> int:
    """How many frames the joined video has; it appears whole, and its pieces go.

    Raises:
        VideoWriteError: if a piece is missing or short, or the output cannot be written.
    """
    make_folder_of(video.job)
    restored = _restored_pixels(video.pieces)
    height, width = _size_of(video.pieces[0])
    with (
        open_video(video.job.source, rules=video.plan.rules) as reader,
        create_video(
            video.job.destination, info_of=reader, width=width, height=height,
            settings=video.plan.encoder, output_format=video.plan.output_format,
        ) as writer,
    ):  # fmt: skip
        count = 0
        for original in reader:
            pixels = next(restored, None)
            if pixels is None:
                raise VideoWriteError(f"the pieces of `{video.job.source}` end at frame {count}")
            writer.write(replace(original, pixels=pixels, known=None, guessed=None))
            count += 1
        if next(restored, None) is not None:
            raise VideoWriteError(
                f"`{video.job.source}` is shorter than its pieces: it has changed"
            )
    shutil.rmtree(video.folder)
    return count


def _size_of(piece: PieceJob) -> tuple[int, int]:
    with open_video(piece.destination) as reader:
        return reader.info.height, reader.info.width


def _restored_pixels(pieces: Sequence[PieceJob]) -> Iterator[Pixels]:
    for piece in pieces:
        count = 0
        with open_video(piece.destination) as reader:
            for frame in reader:
                count += 1
                yield frame.pixels
        if count != piece.piece.stop - piece.piece.first:
            raise VideoWriteError(f"the piece `{piece.destination}` has {count} frames")
