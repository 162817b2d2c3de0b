"""The bundled clips of `instantvir benchmark --suite`, cut from held-out clips.

    python benchmarks/suite_clips.py --clips DIR --cache DIR

Half the size by area average, five frames from the fifth on, 96x64 of the middle: short and small
enough for the package, and for a thousand steps on two cores.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from instantvir_distill.clips import load_clips
from instantvir_models.suite.clips import (
    BUNDLED_FOLDER,
    BUNDLED_FRAMES,
    BUNDLED_HEIGHT,
    BUNDLED_WIDTH,
    SOURCES,
)
from instantvir_models.suite.results import save_film

FIRST_FRAME = 5


def main() -> None:
    """Write one PNG for each clip."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    asked = parser.parse_args()
    by_name = {clip.name: clip for clip in load_clips(asked.clips, cache=asked.cache)}
    for name in SOURCES:
        frames = by_name[name].frames[FIRST_FRAME : FIRST_FRAME + BUNDLED_FRAMES]
        small = np.stack(
            [
                cv2.resize(f, (f.shape[1] // 2, f.shape[0] // 2), interpolation=cv2.INTER_AREA)
                for f in frames
            ]
        )
        top, left = (small.shape[1] - BUNDLED_HEIGHT) // 2, (small.shape[2] - BUNDLED_WIDTH) // 2
        cut = small[:, top : top + BUNDLED_HEIGHT, left : left + BUNDLED_WIDTH]
        film = save_film(cut, BUNDLED_FOLDER.parent, name)
        BUNDLED_FOLDER.mkdir(exist_ok=True)
        (BUNDLED_FOLDER.parent / film.path).replace(BUNDLED_FOLDER / f"{name}.png")
    (BUNDLED_FOLDER.parent / "films").rmdir()


if __name__ == "__main__":
    main()
