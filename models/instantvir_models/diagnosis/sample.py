"""What is looked at of a video: a few consecutive frames from one or several places."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from instantvir_models.errors import VideoOpenError
from instantvir_models.media import USUAL_RULES, Frame, InputRules, VideoInfo, open_video
from instantvir_models.media.coding import FrameCoding
from instantvir_models.media.fields import WEAVE, FieldChoice
from instantvir_models.media.frame import Pixels

FRAMES_PER_PLACE = 6

LATER_PLACES = (0.35, 0.7)
"""Parts of a file's length at which it is looked at besides its beginning."""

SHORTEST_SECONDS = 4.0
"""A file that is shorter is looked at once."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Consecutive frames, and how a codec stored them."""

    frames: Pixels
    """[T, h, w, 3], at least one frame."""
    codings: tuple[FrameCoding | None, ...] = ()

    def part(self, rows: slice, columns: slice) -> "Sample":
        """A part of its pictures, with as much of what they were stored in."""
        frames: Pixels = self.frames[:, rows, columns]
        share = frames[0].size / self.frames[0].size
        codings = tuple(None if one is None else _part_of(one, share) for one in self.codings)
        return Sample(frames, codings)

    @classmethod
    def of(cls, frames: Sequence[Frame]) -> "Sample":
        """The sample that these frames are."""
        pixels: Pixels = np.stack([frame.pixels for frame in frames])  # type: ignore[assignment]
        return cls(pixels, tuple(frame.coding for frame in frames))


def _part_of(coding: FrameCoding, share: float) -> FrameCoding:
    size = coding.num_bytes
    return replace(coding, num_bytes=None if size is None else round(share * size))


def first_sample(
    source: str,
    frames: Sequence[Frame],
    *,
    start_seconds: float | None = None,
    fields: FieldChoice = WEAVE,
    rules: InputRules = USUAL_RULES,
) -> Sample:
    """The sample that the first frames of a source are.

    A file is opened once more, because decoders do not say how coarsely frames were stored while
    several threads decode.

    Args:
        fields: how its pictures became whole.
    """
    if not Path(source).is_file() or all(map(_is_told, frames)):
        return Sample.of(frames)
    again = _sample_at(source, start_seconds, len(frames), fields, rules)
    is_same = again is not None and again.frames.shape == (len(frames), *frames[0].pixels.shape)
    return again if again is not None and is_same else Sample.of(frames)


def _is_told(frame: Frame) -> bool:
    return frame.coding is not None and (frame.coding.is_lossless or frame.coding.steps is not None)


def later_samples(
    source: str,
    info: VideoInfo,
    *,
    start_seconds: float | None = None,
    fields: FieldChoice = WEAVE,
    rules: InputRules = USUAL_RULES,
) -> tuple[Sample, ...]:
    """Samples of a file from behind its beginning; none of what is short, or cannot be sought in.

    Args:
        start_seconds: where the part that is wanted begins; its length is in `info`.
        fields: how its pictures become whole.
    """
    length = info.duration_seconds
    if not Path(source).is_file() or length is None or length < SHORTEST_SECONDS:
        return ()
    begin = start_seconds or 0.0
    places = (begin + part * length for part in LATER_PLACES)
    found = (_sample_at(source, place, FRAMES_PER_PLACE, fields, rules) for place in places)
    return tuple(sample for sample in found if sample is not None)


def _sample_at(
    source: str, seconds: float | None, count: int, fields: FieldChoice, rules: InputRules
) -> Sample | None:
    """None where nothing decodes."""
    try:
        with open_video(
            source,
            start_seconds=seconds,
            other_streams=False,
            threads=1,
            fields=fields,
            rules=rules,
        ) as reader:
            return Sample.of(list(islice(reader, count)))
    except VideoOpenError:
        return None
