"""How far a published transformer is off as a teacher, measured once and kept beside it.

python -m instantvir_distill.measure TEACHER --clips CLEAN
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from instantvir_distill.clips import Clip, load_clips
from instantvir_distill.teachers import wan_teacher
from instantvir_distill.teaching import measured_errors
from instantvir_distill.tool import sentences
from instantvir_models.autoencoders.base import SPATIAL_FACTOR
from instantvir_models.checkpoints.prior import ERRORS_NAME, save_errors
from instantvir_models.errors import UsageError
from instantvir_models.media import to_unit

SIZE_MULTIPLE = 2 * SPATIAL_FACTOR


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line of this module."""
    with sentences():
        _main(_asked(arguments))


def _asked(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teacher", type=Path, help="checkpoint folder")
    parser.add_argument("--clips", type=Path, required=True, help="folder of clean videos")
    parser.add_argument("--frames", type=int, default=17, help="of each clip, 1 + 4 k")
    parser.add_argument("--side", type=int, default=480, help="most pixels on a side")
    parser.add_argument("--most-clips", type=int, default=4)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    asked = parser.parse_args(arguments)
    if asked.frames < 1 or asked.most_clips < 1 or asked.side < SIZE_MULTIPLE:
        parser.error(f"--frames and --most-clips are above 0, --side is {SIZE_MULTIPLE} or more")
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no card for `--device cuda`")
    return asked


def _main(asked: argparse.Namespace) -> None:
    prior = wan_teacher(asked.teacher, device=asked.device)
    with TemporaryDirectory() as cache:
        clips = load_clips(asked.clips, cache=Path(cache))
        clean = [_cut(clip, asked).to(asked.device) for clip in _large_enough(clips, asked)]
    save_errors(measured_errors(prior, clean), asked.teacher)
    sys.stderr.write(f"wrote {asked.teacher / ERRORS_NAME}\n")


def _large_enough(clips: list[Clip], asked: argparse.Namespace) -> list[Clip]:
    large = [clip for clip in clips if min(clip.frames.shape[1:3]) >= SIZE_MULTIPLE]
    if not large:
        raise UsageError(f"no clip in `{asked.clips}` has {SIZE_MULTIPLE}x{SIZE_MULTIPLE} pixels")
    return large[: asked.most_clips]


def _cut(clip: Clip, asked: argparse.Namespace) -> Tensor:
    """The beginning and the upper left corner of it, as large as a transformer takes."""
    frames = clip.frames[: (min(asked.frames, len(clip.frames)) - 1) // 4 * 4 + 1]
    height, width = (
        min(side, asked.side) // SIZE_MULTIPLE * SIZE_MULTIPLE for side in frames.shape[1:3]
    )
    return to_unit(frames[:, :height, :width])


if __name__ == "__main__":
    main()
