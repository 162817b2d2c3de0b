"""Real clips, decoded once and memory-mapped."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instantvir_models.errors import VideoOpenError
from instantvir_models.media import open_video


@dataclass(frozen=True, eq=False)
class Clip:
    """A decoded clip, memory-mapped."""

    name: str
    frames: NDArray[np.uint8]
    """[T, H, W, 3] RGB."""


def load_clips(folder: Path, *, cache: Path) -> list[Clip]:
    """Every video of `folder`, decoded once into `cache` and memory-mapped from there.

    Raises:
        VideoOpenError: if the folder holds no video.
    """
    paths = sorted(folder.glob("*.mp4"))
    if not paths:
        raise VideoOpenError(f"no .mp4 clips in `{folder}`", hint="pass a folder of clips")
    cache.mkdir(parents=True, exist_ok=True)
    return [Clip(path.stem, _decoded(path, cache)) for path in paths]


def _decoded(path: Path, cache: Path) -> NDArray[np.uint8]:
    stamp = hashlib.sha256(f"{path.resolve()}:{path.stat().st_mtime_ns}".encode()).hexdigest()[:12]
    stored = cache / f"{path.stem}-{stamp}.npy"
    if not stored.exists():
        with open_video(path, other_streams=False) as reader:
            frames = np.stack([frame.pixels for frame in reader])
        partial = stored.with_suffix(".part.npy")
        np.save(partial, frames)
        partial.replace(stored)
    return np.load(stored, mmap_mode="r")


def split(
    clips: Sequence[Clip], validation_sources: Sequence[str]
) -> tuple[list[Clip], list[Clip]]:
    """(training, validation) clips, split by source so that no scene is on both sides."""
    held_out = [clip for clip in clips if clip.name.startswith(tuple(validation_sources))]
    return [clip for clip in clips if clip not in held_out], held_out
