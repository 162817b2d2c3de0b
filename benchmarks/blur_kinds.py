"""Which blur is seen, and how large: true against found, through codecs and noise.

    python benchmarks/blur_kinds.py CLIP... --out blur_kinds [--noise 0 2 5] [--crf 0 18 28 36]

CRF 0 is lossless. Each row of the confusion matrix is a true blur; "none" is a clip as it is. Found is
what `restore` finds: it abstains where the codec's steps are coarse, and knows what that leaves.
"""

import argparse
from collections import Counter
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from damaged import decoded
from receipts import machine, write_result

from instantvir_models.diagnosis.blur import doubt_about_blur
from instantvir_models.diagnosis.error_model import expected_codec_error
from instantvir_models.diagnosis.sample import Sample
from instantvir_models.diagnosis.traces import traces_of
from instantvir_models.media import open_video, to_uint8, to_unit
from instantvir_models.media.round_trip import LOSSLESS, h264
from instantvir_models.operators.estimate_blur import EstimatedBlur, estimate_blur
from instantvir_models.operators.measurement import LEVEL, Degradation, degrade
from instantvir_models.operators.spec import parse_degradation

BLURS = {
    "none": ("identity",),
    "gaussian": ("blur:sigma=1.2", "blur:sigma=2", "blur:sigma=3.5"),
    "defocus": ("defocus:radius=2.5", "defocus:radius=3.5", "defocus:radius=6"),
    "motion": (
        "motion:length=7,angle=0",
        "motion:length=11,angle=30",
        "motion:length=17,angle=110",
    ),
}
FRAMES = 4
LARGEST = (320, 512)
"""Rows and columns of the middle of a frame that is looked at."""


@dataclass(frozen=True)
class Seen:
    """One measurement: what was done, and what was found."""

    clip: str
    kind: str
    spec: str
    noise_levels: float
    crf: int
    found: EstimatedBlur | None
    """None where the codec's steps are so coarse that nobody looks."""

    @property
    def found_kind(self) -> str:
        """The kind found, `none`, or `not looked at`."""
        return "not looked at" if self.found is None else self.found.kind or "none"

    @property
    def relative_error(self) -> float:
        """Of the standard deviation of the blur."""
        assert self.found is not None
        true = parse_degradation(self.spec).operator.traits.blur_sigma
        return abs(self.found.operator.traits.blur_sigma / true - 1)

    @property
    def is_right(self) -> bool:
        """Whether kind and size, within two of its bars, are those of the truth."""
        if self.found_kind != self.kind:
            return False
        if self.kind == "none":
            return True
        assert self.found is not None
        size = self.found.parameters[0]
        return self.relative_error < 2 * size.std / size.value


def first_frames(path: Path) -> np.ndarray:
    """uint8 [FRAMES, H, W, 3] from the beginning of a clip, the middle of large frames."""
    frames: list[np.ndarray] = []
    with open_video(path, other_streams=False) as reader:
        for frame in reader:
            height, width = frame.pixels.shape[:2]
            top, left = (max(0, n - m) // 2 for n, m in zip((height, width), LARGEST, strict=True))
            frames.append(frame.pixels[top : top + LARGEST[0], left : left + LARGEST[1]])
            if len(frames) == FRAMES:
                break
    return np.stack(frames)


def measured(x: np.ndarray, spec: str, noise_levels: float, crf: int) -> Sample:
    """The frames as a camera that blurs and an encoder leave them."""
    operator = parse_degradation(spec).operator
    degradation = Degradation(operator=operator, noise_std=noise_levels * LEVEL)
    generator = torch.Generator().manual_seed(0)
    y = np.asarray(to_uint8(degrade(to_unit(x), degradation, generator=generator).y))
    encoder = h264(crf) if crf else LOSSLESS
    return decoded(encoder.encoded(np.ascontiguousarray(y)), len(x))


def found_in(sample: Sample) -> EstimatedBlur | None:
    """The blur that is found, if anybody looks."""
    traces = traces_of(sample.frames, sample.codings)
    if doubt_about_blur(traces) is not None:
        return None
    return estimate_blur(sample.frames, codec_std=expected_codec_error(traces).value * LEVEL)


def summary(seen: list[Seen]) -> dict[str, object]:
    """Confusion, error of the size where the kind is right, and what confidence is worth."""
    confusion = {kind: Counter(s.found_kind for s in seen if s.kind == kind) for kind in BLURS}
    errors = [s.relative_error for s in seen if s.kind == s.found_kind != "none"]
    right = {
        level: [s.is_right for s in seen if s.found and s.found.confidence == level]
        for level in ("high", "medium", "low")
    }
    return {
        "confusion": {kind: dict(counts) for kind, counts in confusion.items()},
        "median_relative_error": round(float(np.median(errors)), 3) if errors else None,
        "right_of_said": {
            level: [sum(is_right), len(is_right)] for level, is_right in right.items()
        },
    }


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--out", default="blur_kinds", help="results/OUT.json")
    parser.add_argument("--noise", nargs="+", type=float, default=[0, 2, 5])
    parser.add_argument("--crf", nargs="+", type=int, default=[0, 18, 28, 36])
    given = parser.parse_args()
    torch.set_num_threads(1)
    seen = []
    cases = [(kind, spec) for kind, specs in BLURS.items() for spec in specs]
    for path in given.clips:
        x = first_frames(path)
        for (kind, spec), noise, crf in product(cases, given.noise, given.crf):
            one = Seen(path.stem, kind, spec, noise, crf, found_in(measured(x, spec, noise, crf)))
            seen.append(one)
            said = (one.found.operator.spec, one.found.confidence) if one.found else ("",)
            print(path.stem, spec, noise, crf, one.found_kind, *said, flush=True)
    tables = {f"crf {crf}": summary([s for s in seen if s.crf == crf]) for crf in given.crf}
    tables["all"] = summary(seen)
    write_result(given.out, {**machine(), "tables": tables})


if __name__ == "__main__":
    main()
