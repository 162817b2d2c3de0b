"""Videos as pictures that fit into a page: all frames one below the other, in one WebP.

A browser decodes a strip once and then shows any frame of it at once, so two videos play in step.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
"""[T, H, W, 3] RGB."""

QUALITIES = ((92, 85, 75), (60, 45, 30))
"""Of WebP. Frames, then half of the size, are given up before the second row is tried."""

FEWEST_FRAMES = 4
"""Fewer would hardly be a video."""

TALLEST_STRIP = 16_383
"""Rows that WebP can hold."""

KeyT = TypeVar("KeyT")


@dataclass(frozen=True, kw_only=True)
class Strip:
    """A short video as one picture."""

    data_uri: str
    frames: int
    width: int
    """Pixels of a frame."""
    height: int


@dataclass(frozen=True)
class Strips:
    """Videos of a page, and what they had to give up to fit into it."""

    strips: Mapping[Any, Strip]
    first: int
    """The first frame that is shown."""
    frames: int
    """Consecutive frames that are shown."""
    quality: int
    """Of the WebP pictures, up to 100."""
    scale: float
    """Of the size in which frames are shown, to their own."""

    @property
    def sentence(self) -> str:
        """What was given up."""
        size = "" if self.scale == 1 else f", at {self.scale:g} of their size"
        return f"Pictures are WebP of quality {self.quality}{size}; numbers and maps are of the originals."


def fitted_strips(videos: Mapping[KeyT, Frames], *, budget_bytes: float) -> Strips:
    """Strips of all `videos`, together no larger than `budget_bytes` of text where that can be.

    Frames that are left out are those at both ends: what is shown is consecutive, so flicker shows.

    Args:
        videos: all with as many frames.

    Raises:
        ValueError: if there is none, or their frames differ in number.
    """
    numbers = {len(frames) for frames in videos.values()}
    if len(numbers) != 1:
        raise ValueError(f"strips of one page have as many frames, got {sorted(numbers)}")
    tallest = max(frames.shape[1] for frames in videos.values())
    total = min(*numbers, TALLEST_STRIP // tallest)
    for scale, qualities, count in product((1, 0.5, 0.25), QUALITIES, _counts(total)):
        first = (max(numbers) - count) // 2
        shown = {key: _scaled(each[first : first + count], scale) for key, each in videos.items()}
        for quality in qualities:
            if _expected_bytes(list(shown.values()), quality) <= budget_bytes:
                strips = strips_of(shown, quality)
                if _size(strips.values()) <= budget_bytes:
                    return Strips(strips, first, count, quality, scale)
    return Strips(strips_of(shown, qualities[-1]), first, count, qualities[-1], scale)


def strips_of(videos: Mapping[KeyT, Frames], quality: int) -> dict[KeyT, Strip]:
    """Each of the videos as a strip."""
    return {key: strip(frames, quality) for key, frames in videos.items()}


def _counts(total: int) -> list[int]:
    """Numbers of frames to try, from all to the fewest."""
    counts = [total]
    while counts[-1] * 2 // 3 >= FEWEST_FRAMES:
        counts.append(counts[-1] * 2 // 3)
    return counts


def _scaled(frames: Frames, scale: float) -> Frames:
    if scale == 1:
        return frames
    small = [
        cv2.resize(each, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for each in frames
    ]
    return np.asarray(np.stack(small), np.uint8)


def _expected_bytes(videos: Sequence[Frames], quality: int) -> float:
    """Text that the strips would take, judged by one frame of some of them."""
    some = videos[:: max(1, len(videos) // 12)]
    text = sum(len(strip(frames[:1], quality).data_uri) for frames in some)
    return text / sum(frames[0].size for frames in some) * sum(frames.size for frames in videos)


def _size(strips: Any) -> int:
    return sum(len(each.data_uri) for each in strips)


def strip(frames: Frames, quality: int) -> Strip:
    """The frames as one WebP."""
    return _strip(frames, "webp", [cv2.IMWRITE_WEBP_QUALITY, quality])


def heat_strip(error_levels: NDArray[np.floating[Any]], *, most: float, width: int) -> Strip:
    """Where a video is wrong, as a small grey strip.

    Args:
        error_levels: [T, H, W], absolute errors in 8-bit levels.
        most: the error that is shown white.
        width: pixels of the map; each shows the mean over a box.
    """
    height = max(1, round(error_levels.shape[1] * width / error_levels.shape[2]))
    means = [
        cv2.resize(frame.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        for frame in error_levels
    ]
    grey = (np.stack(means) * (255 / most)).clip(0, 255).round().astype(np.uint8)
    return _strip(grey[..., None], "png", [cv2.IMWRITE_PNG_COMPRESSION, 9])


def _strip(frames: Frames, kind: str, settings: list[int]) -> Strip:
    count, height, width, channels = frames.shape
    picture = frames.reshape(count * height, width, channels)[..., ::-1]
    is_done, data = cv2.imencode(f".{kind}", np.ascontiguousarray(picture), settings)
    assert is_done
    text = base64.b64encode(data.tobytes()).decode()
    return Strip(
        data_uri=f"data:image/{kind};base64,{text}", frames=count, width=width, height=height
    )


def largest_error(errors: Sequence[NDArray[np.floating[Any]]]) -> float:
    """A round number of levels that few errors exceed, for the last colour of a map."""
    high = max((float(np.percentile(error, 99)) for error in errors), default=0.0)
    return next((level for level in (2, 4, 8, 16, 32, 64, 128) if high <= level), 255)
