"""`instantvir degrade`: measurements with a note of how they were made."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from instantvir_cli import console
from instantvir_models.errors import UsageError
from instantvir_models.media import (
    EncoderSettings,
    Frame,
    VideoReader,
    create_video,
    open_video,
    to_uint8,
    to_unit,
)
from instantvir_models.media.color import as_uint8
from instantvir_models.operators.measurement import Degradation
from instantvir_models.operators.sidecar import write_sidecar
from instantvir_models.operators.spec import ClipShape, parse_degradation

LOSSLESS_SUFFIXES = {".mkv", ".avi", ".nut"}


def degrade_file(
    source: str,
    output: Path,
    *,
    spec: str,
    seed: int,
    codec: str | None,
    crf: int | None,
    start: float | None,
    duration: float | None,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Write the measurement, and beside it the note that `restore` picks up.

    Raises:
        UsageError: if the specification or the output name makes no sense.
    """
    console.set_up(quiet=quiet)
    if output.exists() and not overwrite:
        raise UsageError(f"`{output}` exists already", hint="give `--overwrite`, or another `-o`")
    if codec is None and output.suffix.lower() in LOSSLESS_SUFFIXES:
        codec = "ffv1"
    if codec is None:
        console.warn(f"`{output.suffix}` is written with a lossy codec; use .mkv for lossless")
    with open_video(source, start_seconds=start, duration_seconds=duration) as reader:
        height, width = _cropped(spec, reader)
        degradation = parse_degradation(
            _with_seed(spec, seed),
            shape=ClipShape(num_frames=_count(reader), height=height, width=width),
        )
        h, w = degradation.operator.measured_size(height, width)
        settings = EncoderSettings(codec=codec, crf=crf)
        with create_video(output, info_of=reader, width=w, height=h, settings=settings) as writer:
            cropped = (_crop(frame, height, width) for frame in reader)
            for frame in measured(cropped, degradation, seed=seed):
                writer.write(frame)
    note = write_sidecar(output, degradation, seed=seed)
    console.say(f"wrote {output} ({w}x{h}) and {note.name}: {degradation.spec}")


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
    y = degradation.operator.at_frame(first).A(x)[:, index : index + 1]
    if degradation.noise_std > 0:
        y = y + degradation.noise_std * torch.randn(y.shape, generator=generator)
    return to_uint8(y)[0]


def _with_seed(spec: str, seed: int) -> str:
    """`spec` with `seed` given to random masks that do not name one."""
    parts = []
    for part in spec.split("+"):
        is_random = part.strip().startswith("mask:") and "keep=" in part and "seed=" not in part
        parts.append(f"{part},seed={seed}" if is_random else part)
    return "+".join(parts)


def _count(reader: VideoReader) -> int:
    """Frames to draw masks for: what the container says, or a minute's worth."""
    return reader.info.num_frames or 1500


def _cropped(spec: str, reader: VideoReader) -> tuple[int, int]:
    """(height, width) of the clean video after cropping it to what the operator divides."""
    height, width = reader.info.height, reader.info.width
    factor = 1
    for part in spec.split("+"):
        if part.strip().startswith("down:"):
            digits = part.partition("factor=")[2].partition(",")[0]
            factor *= int(digits) if digits.strip().isdigit() and int(digits) > 0 else 1
    cropped_height, cropped_width = height - height % factor, width - width % factor
    if (cropped_height, cropped_width) != (height, width) and min(
        cropped_height, cropped_width
    ) > 0:
        console.say(f"cropped {width}x{height} to {cropped_width}x{cropped_height}")
        return cropped_height, cropped_width
    return height, width


def _crop(frame: Frame, height: int, width: int) -> Frame:
    if frame.pixels.shape[:2] == (height, width):
        return frame
    return Frame(frame.pixels[:height, :width], frame.pts, frame.time_base, frame.duration)
