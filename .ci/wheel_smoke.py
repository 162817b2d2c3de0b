"""Fails unless the installed package, run where there is no source tree, restores a clip.

python .ci/wheel_smoke.py ENVIRONMENT      # where the package must be imported from
"""

import subprocess
import sys
from pathlib import Path

import av
import numpy as np

import instantvir_models

FRAMES, HEIGHT, WIDTH = 6, 48, 64

if Path(sys.argv[1]).resolve() not in Path(instantvir_models.__file__).resolve().parents:
    sys.exit(f"instantvir_models came from {instantvir_models.__file__}, not from the wheel")


def write_clip(path: str) -> None:
    """A grey ramp that moves, with noise on it."""
    noise = np.random.default_rng(0)
    ramp = np.linspace(40, 200, WIDTH)[None, :, None]
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(FRAMES):
            pixels = np.roll(ramp, index, 1) + noise.normal(0, 12, (HEIGHT, WIDTH, 3))
            frame = av.VideoFrame.from_ndarray(pixels.clip(0, 255).astype(np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def frames_in(path: str) -> int:
    """How many frames a video has."""
    with av.open(path) as container:
        return sum(1 for _ in container.decode(video=0))


write_clip("noisy.mp4")
subprocess.run(
    ["instantvir", "restore", "noisy.mp4", "--task", "denoise", "-o", "restored.mp4"], check=True
)
if frames_in("restored.mp4") != FRAMES:
    sys.exit(f"{FRAMES} frames went in, {frames_in('restored.mp4')} came out")
