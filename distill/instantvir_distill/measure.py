"""How far a published transformer is off as a teacher, measured once and kept beside it.

python -m instantvir_distill.measure TEACHER --clips CLEAN
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from instantvir_distill.clips import load_clips
from instantvir_distill.teachers import wan_teacher
from instantvir_distill.teaching import measured_errors
from instantvir_models.autoencoders.base import SPATIAL_FACTOR
from instantvir_models.checkpoints.prior import ERRORS_NAME, save_errors
from instantvir_models.media import to_unit

SIZE_MULTIPLE = 2 * SPATIAL_FACTOR


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teacher", type=Path, help="checkpoint folder")
    parser.add_argument("--clips", type=Path, required=True, help="folder of clean videos")
    parser.add_argument("--frames", type=int, default=17, help="of each clip, 1 + 4 k")
    parser.add_argument("--side", type=int, default=480, help="most pixels on a side")
    parser.add_argument("--most-clips", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args(arguments)
    prior = wan_teacher(asked.teacher, device=asked.device)
    clean = []
    with TemporaryDirectory() as cache:
        clips = load_clips(asked.clips, cache=Path(cache))[: asked.most_clips]
    for clip in clips:
        frames = clip.frames[: (min(asked.frames, len(clip.frames)) - 1) // 4 * 4 + 1]
        height, width = (
            min(side, asked.side) // SIZE_MULTIPLE * SIZE_MULTIPLE for side in frames.shape[1:3]
        )
        clean.append(to_unit(frames[:, :height, :width]).to(asked.device))
    save_errors(measured_errors(prior, clean), asked.teacher)
    sys.stderr.write(f"wrote {asked.teacher / ERRORS_NAME}\n")


if __name__ == "__main__":
    main()
