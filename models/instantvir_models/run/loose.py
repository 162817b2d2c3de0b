"""Restored frames of the piece at hand, on the disk as they are.

A run that was ended between the ends of two pieces gives them to the encoder once more, which then makes of
the piece what it would have made of it at once: so how often they are kept may depend on the clock, and
nothing that comes out does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from instantvir_models.checkpoints.tensors import write_tensors
from instantvir_models.media import Frame
from instantvir_models.outputs.moving import sync_file

PIXELS = "pixels"


@dataclass(frozen=True)
class FrameTime:
    """When a frame is shown, as `Frame` says it."""

    pts: int
    time_base: Fraction
    duration: int

    def as_json(self) -> list[Any]:
        """The same in plain values."""
        return [self.pts, str(self.time_base), self.duration]

    @classmethod
    def from_json(cls, said: Sequence[Any]) -> FrameTime:
        """What `as_json` said; ValueError or TypeError if it is none."""
        pts, time_base, duration = said
        return cls(int(pts), Fraction(time_base), int(duration))


@dataclass(eq=False)
class LooseFrames:
    """The frames of one piece so far, in files of as many as came at a time.

    Args:
        folder: where they lie.
        index: the number of the piece, which their names begin with.
    """

    folder: Path
    index: int
    files: list[Path] = field(default_factory=list)
    times: list[FrameTime] = field(default_factory=list)
    """Of the frames in `files`."""
    waiting: list[Frame] = field(default_factory=list)
    """Frames that are in no file yet."""

    @property
    def waiting_bytes(self) -> int:
        """What the waiting ones take in memory."""
        return sum(frame.pixels.nbytes for frame in self.waiting)

    @property
    def num_frames(self) -> int:
        """Frames in files and waiting."""
        return len(self.times) + len(self.waiting)

    def store(self) -> None:
        """Put the waiting frames on the disk; OSError if it does not take them."""
        if not self.waiting:
            return
        path = self.folder / f"{self.index:05d}-{len(self.files):05d}.frames"
        pixels = np.ascontiguousarray(np.stack([frame.pixels for frame in self.waiting]))
        write_tensors(path, {PIXELS: torch.from_numpy(pixels)})
        sync_file(path)
        self.files.append(path)
        self.times += [FrameTime(f.pts, f.time_base, f.duration) for f in self.waiting]
        self.waiting.clear()

    def read(self) -> Iterator[Frame]:
        """The frames in files, in their order.

        Raises:
            OSError, SafetensorError, KeyError, ValueError: if a file is not what `store` wrote.
        """
        times = iter(self.times)
        for path in self.files:
            for pixels in load_file(path)[PIXELS].numpy():
                time = next(times, None)
                if time is None:
                    raise ValueError(f"`{path}` holds frames without times")
                yield Frame(pixels, time.pts, time.time_base, time.duration)

    def discard(self) -> None:
        """Take the files away, and forget what waits."""
        for path in self.files:
            path.unlink(missing_ok=True)
        self.files.clear()
        self.times.clear()
        self.waiting.clear()

    def as_json(self) -> dict[str, Any]:
        """What is in files, in plain values, without the folder they are in."""
        return {
            "index": self.index,
            "files": [path.name for path in self.files],
            "times": [time.as_json() for time in self.times],
        }

    @classmethod
    def from_json(cls, said: dict[str, Any], folder: Path) -> LooseFrames:
        """What `as_json` said.

        Raises:
            ValueError, KeyError, TypeError: if it is none.
        """
        return cls(
            folder,
            int(said["index"]),
            [folder / Path(name).name for name in said["files"]],
            [FrameTime.from_json(time) for time in said["times"]],
        )
