"""Real clips, decoded once and memory-mapped."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instantvir_models.errors import UsageError, VideoOpenError
from instantvir_models.media import open_video
from instantvir_models.outputs.claim import new_file

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".wmv",
     ".flv", ".nut", ".y4m", ".mxf", ".ogv", ".3gp"}
)  # fmt: skip
"""Of the files that are taken for videos."""

MOST_NAMED = 5
"""Files named in a message."""


@dataclass(frozen=True, eq=False)
class Clip:
    """A decoded clip, memory-mapped."""

    name: str
    frames: NDArray[np.uint8]
    """[T, H, W, 3] RGB."""


def load_clips(folder: Path, *, cache: Path) -> list[Clip]:
    """Every video below `folder`, decoded once into `cache` and memory-mapped from there.

    Files that cannot be read are left out, counted and named.

    Raises:
        VideoOpenError: if no video is left.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    if not paths:
        raise VideoOpenError(f"no video in `{folder}`", hint="pass a folder of clips")
    cache.mkdir(parents=True, exist_ok=True)
    clips, bad = [], []
    for path in paths:
        try:
            clips.append(Clip(path.stem, _decoded(path, cache)))
        except VideoOpenError as error:
            bad.append(path.relative_to(folder))
            logger.info("%s", error)
    if bad:
        names = ", ".join(f"`{path}`" for path in bad[:MOST_NAMED])
        more = f" and {len(bad) - MOST_NAMED} more" if len(bad) > MOST_NAMED else ""
        logger.warning("left out %d of %d clips: %s%s", len(bad), len(paths), names, more)
    if not clips:
        raise VideoOpenError(f"none of the {len(paths)} videos in `{folder}` can be read")
    return clips


def _decoded(path: Path, cache: Path) -> NDArray[np.uint8]:
    stamp = hashlib.sha256(f"{path.resolve()}:{path.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    stored = cache / f"{path.stem}-{stamp}.npy"
    if not stored.exists():
        with open_video(path, other_streams=False) as reader:
            frames = np.stack([frame.pixels for frame in reader])
        try:
            with new_file(stored, may_replace=True) as unfinished:
                np.save(unfinished, frames)
        except UsageError:  # another run stores it just now
            return frames  # type: ignore[return-value]
    return np.load(stored, mmap_mode="r")


def split(
    clips: Sequence[Clip], validation_sources: Sequence[str]
) -> tuple[list[Clip], list[Clip]]:
    """(training, validation) clips, split by source so that no scene is on both sides."""
    held_out = [clip for clip in clips if clip.name.startswith(tuple(validation_sources))]
    return [clip for clip in clips if clip not in held_out], held_out
