"""Clean clips of a suite: those of a folder, or the bundled ones, all of one size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from instantvir_models.errors import UsageError, VideoOpenError
from instantvir_models.media import open_video
from instantvir_models.media.frame import Pixels
from instantvir_models.suite.results import Film, Frames, load_film

BUNDLED_FOLDER = Path(__file__).parent / "clips"
BUNDLED_FRAMES, BUNDLED_HEIGHT, BUNDLED_WIDTH = 5, 64, 96

SIDE_MULTIPLE = 8
"""Frames are cropped to it: enlargement is by four, and the sides of small files are even."""

SMALLEST_SIDE = 32
"""Below this nothing can be said of a picture."""

SOURCES = {
    "sam2_dog_01": "facebookresearch/sam2, Apache-2.0",
    "sam2_bedroom_02": "facebookresearch/sam2, Apache-2.0",
    "sam2_juggle_02": "facebookresearch/sam2, Apache-2.0",
    "carnd_highway_01": "udacity/CarND-LaneLines-P1, MIT",
    "media3_topshots": "androidx/media, Apache-2.0",
    "sam2_coffee_01": "facebookresearch/sam2, Apache-2.0",
}
"""Bundled clips, and where they are from. Nothing was trained on them."""


@dataclass(frozen=True, eq=False)
class CleanClip:
    """Frames that nothing has happened to."""

    name: str
    frames: Frames
    frames_per_second: float
    source: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        height, width = self.frames.shape[1:3]
        return height, width


def bundled_clips() -> tuple[CleanClip, ...]:
    """The clips inside the package."""
    return tuple(
        CleanClip(name, load_film(_bundled(name), BUNDLED_FOLDER), 25.0, source)
        for name, source in SOURCES.items()
    )


def _bundled(name: str) -> Film:
    return Film(
        path=f"{name}.png", frames=BUNDLED_FRAMES, height=BUNDLED_HEIGHT, width=BUNDLED_WIDTH
    )


def clips_of(
    folder: Path, *, num_frames: int, crop: tuple[int, int] | None
) -> tuple[CleanClip, ...]:
    """The first frames of every video directly inside `folder`.

    Args:
        crop: (height, width) of the middle that is taken; None for whole frames.

    Raises:
        UsageError: if there is none, one is too short or too small, or their sizes differ.
    """
    clips = tuple(_read(folder, num_frames, crop))
    if not clips:
        raise UsageError(f"there is no video in `{folder}`", hint="`--clips` is a folder of videos")
    sizes = {clip.size for clip in clips}
    if len(sizes) > 1:
        named = ", ".join(f"`{clip.name}` {clip.size[1]}x{clip.size[0]}" for clip in clips[:4])
        height, width = (min(sides) for sides in zip(*sizes, strict=True))
        raise UsageError(
            f"the clips have different sizes: {named}",
            hint=f"`--crop {width}x{height}` takes the middle of each",
        )
    return clips


def _read(folder: Path, num_frames: int, crop: tuple[int, int] | None) -> Iterator[CleanClip]:
    if not folder.is_dir():
        raise UsageError(f"`{folder}` is no folder", hint="`--clips` is a folder of videos")
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        try:
            with open_video(path, other_streams=False) as reader:
                rate = float(reader.info.frame_rate or 25)
                pixels = [frame.pixels for frame in islice(reader, num_frames)]
        except VideoOpenError:
            continue  # something else lies there too
        if len(pixels) < num_frames:
            raise UsageError(
                f"`{path.name}` has {len(pixels)} frames, {num_frames} are asked for",
                hint=f"`--length {len(pixels)}`" if pixels else None,
            )
        yield CleanClip(path.stem, _cropped(eight_bits(pixels), crop, path.name), rate)


def eight_bits(frames: Sequence[Pixels]) -> Frames:
    """[T, H, W, 3] uint8 of frames in 8 or 16 bits."""
    return np.stack([f if f.dtype == np.uint8 else (f // 257).astype(np.uint8) for f in frames])


def _cropped(frames: Frames, crop: tuple[int, int] | None, name: str) -> Frames:
    """The middle of the frames, its sides multiples of `SIDE_MULTIPLE`."""
    height, width = frames.shape[1:3]
    rows, columns = crop or (height, width)
    rows, columns = (side // SIDE_MULTIPLE * SIDE_MULTIPLE for side in (rows, columns))
    if rows > height or columns > width or min(rows, columns) < SMALLEST_SIDE:
        raise UsageError(
            f"`{name}` is {width}x{height}; {columns}x{rows} cannot be taken out of it",
            hint=f"clips have at least {SMALLEST_SIDE} pixels a side",
        )
    top, left = (height - rows) // 2, (width - columns) // 2
    return np.ascontiguousarray(frames[:, top : top + rows, left : left + columns])
