"""Resident memory over a long video: its slope after the start, decode left out, encode included.

python benchmarks/memory.py [--frames 10000] [--size 96x64]
"""

import argparse
import os
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from instantvir_models.checkpoints.load import load_student
from instantvir_models.media import Frame, create_video
from instantvir_models.media.settings import EncoderSettings
from instantvir_models.operators.spec import parse_degradation
from instantvir_models.run.pipeline import restore_video
from instantvir_models.run.session import Session
from instantvir_models.solvers.amortised import Amortised

EVERY = 250
"""Frames between two looks at the memory."""


def resident_mb() -> float:
    """Resident set of this process in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def frames(count: int, width: int, height: int, seen: list[float]) -> Iterator[Frame]:
    """Noise that changes every frame; notes the memory now and then."""
    rng = np.random.default_rng(0)
    for t in range(count):
        if t % EVERY == 0:
            seen.append(resident_mb())
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        yield Frame(pixels, t, Fraction(1, 25), 1)


def main() -> None:
    """Run and print the slope."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--size", default="96x64")
    given = parser.parse_args()
    width, height = map(int, given.size.split("x"))
    degradation = parse_degradation("blur:sigma=1.5+noise:std=5")
    session = Session(Amortised(load_student().student), degradation, height=height, width=width)
    seen: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.mkv"
        settings = EncoderSettings()
        with create_video(
            target, width=width, height=height, settings=settings, frame_rate=25
        ) as sink:
            report = restore_video(frames(given.frames, width, height, seen), session, sink)
    settled = np.array(seen[len(seen) // 5 :])
    slope = np.polyfit(np.arange(len(settled)) * EVERY / 1000, settled, 1)[0]
    print(
        f"{report.frames} frames of {given.size}: {seen[0]:.0f} MB at the start, "
        f"{settled[0]:.0f} MB after a fifth, {settled[-1]:.0f} MB at the end; "
        f"slope {slope:+.3f} MB per 1000 frames"
    )


if __name__ == "__main__":
    main()
