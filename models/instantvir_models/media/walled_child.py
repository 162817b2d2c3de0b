"""The process in which a stranger's video is decoded: it raises walls, reads, and hands on.

Two pipes lead out. One carries the video as NUT or Matroska, its pictures as plain numbers and what comes along as
it was; the other carries a line of JSON for what is known of the whole, for each picture, and for how it
ended. Whoever reads them trusts neither.
"""

from __future__ import annotations

import base64
import json
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from instantvir_models.errors import InstantVIRError
from instantvir_models.media.base import VideoReader
from instantvir_models.media.fields import FieldChoice
from instantvir_models.media.frame import Frame
from instantvir_models.media.open import create_video, open_video
from instantvir_models.media.plain import from_plain, to_plain
from instantvir_models.media.reach import InputRules
from instantvir_models.media.settings import EncoderSettings
from instantvir_models.media.walls import Limits, allow_cpu_seconds, raise_walls

CPU_SECONDS = 120
"""For opening, and for each picture."""

ENCODERS = {
    "nut": EncoderSettings(codec="rawvideo"),
    "matroska": EncoderSettings(codec="ffv1"),
}
"""By container, what loses nothing and costs least; Matroska refuses raw RGB."""

PIX_FMTS = {
    ("nut", 8, False): "rgb24",
    ("nut", 8, True): "rgba",
    ("nut", 16, False): "rgb48le",
    ("nut", 16, True): "rgba64le",
    ("matroska", 8, False): "bgr0",
    ("matroska", 8, True): "bgra",
    ("matroska", 16, False): "gbrp16le",
    ("matroska", 16, True): "gbrap16le",
}
"""By container, bits of a number, and whether there is opacity."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be read, and what it may take."""

    source: tuple[str, ...]
    """A path or `-`; or the images of a sequence."""
    is_sequence: bool
    start_seconds: Fraction | None
    duration_seconds: Fraction | None
    frame_rate: Fraction | None
    threads: int | None
    other_streams: bool
    fields: tuple[str, bool] | None
    max_pixels: int
    memory_bytes: int


def main(wanted: Wanted, pictures: int, words: int) -> None:
    """Hand on what is wanted, over these two descriptors."""
    with os.fdopen(words, "w", encoding="utf-8", buffering=1) as lines:

        def tell(**what: Any) -> None:
            lines.write(json.dumps(what) + "\n")
            lines.flush()

        try:
            readable = [Path(path) for path in wanted.source if path != "-"]
            allow_cpu_seconds(CPU_SECONDS)
            tell(walls=raise_walls(Limits(memory_bytes=wanted.memory_bytes), readable))
            _hand_on(wanted, pictures, tell)
        except InstantVIRError as error:
            tell(error=str(error), hint=error.hint)
        except MemoryError:
            tell(memory=True)
        except BrokenPipeError:  # nobody wants more
            pass
        except BaseException:
            tell(bug=traceback.format_exc()[-4000:])


def _hand_on(wanted: Wanted, pictures: int, tell: Callable[..., None]) -> None:
    with _opened(wanted) as reader:
        info = reader.info
        container = container_for(reader)
        told = {"info": to_plain(info), "fields": to_plain(reader.fields), "container": container}
        frames = iter(reader)
        first = next(frames, None)
        tell(**told)
        if first is not None:
            depth = 8 * first.pixels.itemsize
            pix_fmt = PIX_FMTS[container, depth, first.alpha is not None]
            settings = replace(ENCODERS[container], pix_fmt=pix_fmt)
            with (
                os.fdopen(pictures, "wb", buffering=0) as pipe,
                create_video(
                    pipe,
                    info_of=reader,
                    width=info.width,
                    height=info.height,
                    settings=settings,
                    output_format=container,
                ) as writer,
            ):
                frame: Frame | None = first
                while frame is not None:
                    allow_cpu_seconds(CPU_SECONDS)
                    tell(frame=_noted(frame))
                    writer.write(frame)
                    frame = next(frames, None)
                losses = writer.losses
        else:
            losses = ()
        tell(damage=to_plain(reader.damage), losses=losses)


def container_for(reader: VideoReader) -> str:
    """NUT, which keeps times exactly; Matroska where words and fonts come along, which NUT cannot hold."""
    demuxer = reader.demuxer
    attached = demuxer is not None and (demuxer.attached.covers or demuxer.attached.attachments)
    return "matroska" if reader.info.subtitle_streams or attached else "nut"


def _opened(wanted: Wanted) -> VideoReader:
    fields = None if wanted.fields is None else FieldChoice(
        fields=wanted.fields[0], each_field=wanted.fields[1]
    )  # fmt: skip
    return open_video(
        [Path(path) for path in wanted.source] if wanted.is_sequence else wanted.source[0],
        start_seconds=wanted.start_seconds,
        duration_seconds=wanted.duration_seconds,
        frame_rate=wanted.frame_rate,
        threads=wanted.threads,
        other_streams=wanted.other_streams,
        fields=fields,
        rules=InputRules(max_pixels=wanted.max_pixels),
    )


def _noted(frame: Frame) -> dict[str, Any]:
    """What a picture says besides its numbers."""
    coding = frame.coding
    steps = None if coding is None or coding.steps is None else coding.steps
    return {
        "pts": frame.pts,
        "time_base": to_plain(frame.time_base),
        "duration": frame.duration,
        "coding": None if coding is None else [
            coding.codec_name, coding.picture_type, coding.num_bytes,
            None if steps is None else packed(steps.astype("<f4").tobytes()),
        ],
        "guessed": None if frame.guessed is None else packed(np.packbits(frame.guessed).tobytes()),
    }  # fmt: skip


def packed(data: bytes) -> str:
    """Bytes as a line of text holds them."""
    return base64.b64encode(data).decode()


def run(wanted: str, pictures: str, words: str) -> None:
    """`main`, told as a command line tells it."""
    main(from_plain(Wanted, json.loads(wanted)), int(pictures), int(words))
