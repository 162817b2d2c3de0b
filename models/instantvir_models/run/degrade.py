"""Measurements of clean videos, with a note of how they were made."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from instantvir_models.media import (
    EncoderSettings,
    Frame,
    InputRules,
    VideoReader,
    create_video,
    open_video,
    to_uint8,
    to_unit,
)
from instantvir_models.media.color import as_uint8
from instantvir_models.media.destination import claimed
from instantvir_models.media.reach import MOST_PIXELS
from instantvir_models.operators.compose import masked
from instantvir_models.operators.measurement import Degradation, noisy
from instantvir_models.operators.sidecar import NotedFile, names_beside, sidecar_files, sidecar_path
from instantvir_models.operators.spec import ClipShape, Specification
from instantvir_models.outputs.claim import Claim, told
from instantvir_models.outputs.names import written_path
from instantvir_models.outputs.rule import refuse
from instantvir_models.run.jobs import Job, refuse_to_overwrite
from instantvir_models.run.masks import MasksFor, masks_along

LOSSLESS_SUFFIXES = {".mkv", ".avi", ".nut"}
LOSSLESS_FORMATS = {"matroska", "avi", "nut"}


_LOSSLESS_PICTURES = frozenset({".png", ".tif", ".tiff", ".bmp", ".webp", ".apng"})


@dataclass(frozen=True, kw_only=True)
class DegradeReport:
    """What came of making a measurement."""

    output: Path
    note: Path | None
    """Beside it: which operator made it, for `restore` to pick up."""
    input_size: tuple[int, int]
    """(width, height) in pixels, likewise below."""
    clean_size: tuple[int, int]
    """Of the clean video after cropping to what the operator divides."""
    output_size: tuple[int, int]
    operator: str
    """The degradation, as `parse_degradation` reads it."""
    is_lossy: bool
    """Whether it was left to the name, and that stands for a lossy codec, which adds an error of
    its own."""


def degrade(
    source: str | Path,
    destination: str | Path,
    *,
    operator: str,
    seed: int = 0,
    start: float | None = None,
    duration: float | None = None,
    follow_references: bool = False,
    max_pixels: int = MOST_PIXELS,
    sandbox: bool = False,
    codec: str | None = None,
    crf: int | None = None,
    preset: str | None = None,
    pix_fmt: str | None = None,
    output_format: str | None = None,
    overwrite: bool = False,
) -> DegradeReport:
    """What came of writing a measurement y = A x + n of a clean video: `instantvir degrade` as a call.

    Args:
        source: a clean video.
        destination: a file; `.mkv` is lossless.
        operator: what is to happen to it, such as `blur:sigma=3+noise:std=5`.
        seed: of the noise, and of random masks that name none.
        start, duration: seconds of the input to skip and to take.
        follow_references: whether files and addresses that the input names are opened, too.
        max_pixels: of the largest picture that is decoded.
        sandbox: whether a process of its own decodes the input, which can reach nothing else.
        codec, crf, preset, pix_fmt, output_format: of the output, as the command names them.
        overwrite: whether a file that exists may be replaced.

    Raises:
        UsageError: if the specification or the output name makes no sense.
        VideoOpenError, VideoWriteError: if a video cannot be read or written.
    """
    written = written_path(destination)
    output = written or Path(destination)
    said = Specification.read(operator).seeded(seed)
    _refuse(Job(str(source), str(destination), may_replace=overwrite), said)
    holds_lossless = output.suffix.lower() in LOSSLESS_SUFFIXES or output_format in LOSSLESS_FORMATS
    if codec is None and holds_lossless:
        codec = "ffv1"
    settings = EncoderSettings(codec=codec, crf=crf, preset=preset, pix_fmt=pix_fmt)
    rules = InputRules(follow_references=follow_references, max_pixels=max_pixels, sandbox=sandbox)
    with (
        open_video(source, start_seconds=start, duration_seconds=duration, rules=rules) as reader,
        claimed(destination, may_replace=overwrite) or nullcontext() as held,
    ):
        height, width = _cropped(said.factor, reader)
        degradation = said.degradation(
            shape=ClipShape(num_frames=_count(reader), height=height, width=width),
        )
        h, w = degradation.operator.measured_size(height, width)
        with create_video(
            held or destination,
            info_of=reader,
            width=w,
            height=h,
            settings=settings,
            output_format=output_format,
        ) as writer:
            cropped = (_crop(frame, height, width) for frame in reader)
            fit = MasksFor(
                size=(w, h),
                frame_rate=reader.info.frame_rate,
                start_seconds=start,
                duration_seconds=duration,
                rules=rules,
            )
            frames = 0
            with masks_along(degradation.operator, fit) as masks:
                for frame in measured(masks.along(cropped), degradation, seed=seed):
                    writer.write(frame)
                    frames += 1
        if held is not None:
            _commit_with_note(held, degradation, seed=seed, frames=frames)
    return DegradeReport(
        output=output,
        note=None if held is None else sidecar_path(output),
        input_size=(reader.info.width, reader.info.height),
        clean_size=(width, height),
        output_size=(w, h),
        operator=degradation.spec,
        is_lossy=codec is None and output.suffix.lower() not in _LOSSLESS_PICTURES,
    )


def _refuse(job: Job, said: Specification) -> None:
    """UsageError if the measurement, its note or a mask would take the place of what is there."""
    files = [part.values["path"] for part in said.parts if "path" in part.values]
    refuse_to_overwrite(job, with_comparison=False, reads=files)
    if (video := written_path(job.destination)) is not None:
        for path in names_beside(video, len(said.parts)):
            refuse(path, reads=(job.source, *files), may_replace=job.may_replace)


def _commit_with_note(held: Claim, degradation: Degradation, *, seed: int, frames: int) -> None:
    """Give measurement, note and masks their names, the measurement last."""
    made = held.made()
    with told(sidecar_path(held.path)):
        noted = NotedFile.of(made, frames)
        beside = sidecar_files(held.path, degradation, seed=seed, noted=noted)
        for name, data in beside.items():
            (held.folder / name).write_bytes(data)
    held.commit([*(held.folder / name for name in beside), *made])


def measured(frames: Iterator[Frame], degradation: Degradation, *, seed: int) -> Iterator[Frame]:
    """The measurement of each frame, 8-bit; noise comes from `seed`.

    An operator that blurs over time sees each frame with its neighbours; memory stays constant.
    """
    radius = degradation.operator.temporal_radius
    generator = torch.Generator().manual_seed(seed)
    window: list[Frame] = []
    first_in_window = done = 0
    iterator = iter(frames)
    is_end = False
    while True:
        while not is_end and first_in_window + len(window) <= done + radius:
            frame = next(iterator, None)
            is_end = frame is None
            if frame is not None:
                window.append(frame)
        index = done - first_in_window
        if index >= len(window):
            return
        pixels = _measured_pixels(window, index, first_in_window, degradation, generator)
        frame = window[index]
        yield Frame(pixels, frame.pts, frame.time_base, frame.duration)
        done += 1
        drop = max(0, done - radius - first_in_window)
        del window[:drop]
        first_in_window += drop


def _measured_pixels(
    window: list[Frame],
    index: int,
    first: int,
    degradation: Degradation,
    generator: torch.Generator,
) -> NDArray[np.uint8]:
    x = to_unit(np.stack([as_uint8(frame.pixels) for frame in window]))
    operator = degradation.operator.at_frame(first)
    if window[0].known is not None:
        known = np.stack([frame.known for frame in window])  # type: ignore[misc]
        operator = masked(operator, torch.from_numpy(known).float()[:, None])
    y = operator.A(x)[:, index : index + 1]
    return to_uint8(noisy(y, degradation.noise_std, generator=generator))[0]


def _count(reader: VideoReader) -> int:
    """Frames to draw masks for: what the container says, or a minute's worth."""
    return reader.info.num_frames or 1500


def _cropped(factor: int, reader: VideoReader) -> tuple[int, int]:
    """(height, width) of the clean video after cropping it to multiples of `factor`.

    A video that is smaller than that stays, for the operator to refuse.
    """
    height, width = reader.info.height, reader.info.width
    if min(height, width) < factor:
        return height, width
    return height - height % factor, width - width % factor


def _crop(frame: Frame, height: int, width: int) -> Frame:
    if frame.pixels.shape[:2] == (height, width):
        return frame
    return Frame(frame.pixels[:height, :width], frame.pts, frame.time_base, frame.duration)
