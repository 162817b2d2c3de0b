"""VMAF of each frame, by a program `ffmpeg` that has the filter libvmaf: on the path, or of imageio-ffmpeg."""

import importlib.util
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instantvir_models.metrics.fidelity import Frames

FILTER = "libvmaf"


@lru_cache(maxsize=1)
def installed_vmaf() -> str | None:
    """A program `ffmpeg` that knows VMAF; None if there is none."""
    return next((program for program in _programs() if _has_filter(program)), None)


def vmaf(restored: Frames, clean: Frames, program: str) -> NDArray[np.float64]:
    """VMAF v0.6.1 of each frame, [T], 0 to 100, of luma at 4:2:0.

    It was made for what compression does to films, and likes noise: read it beside others.

    Raises:
        OSError: if the program fails.
    """
    with tempfile.TemporaryDirectory(prefix="instantvir-") as folder:
        log = Path(folder) / "vmaf.json"
        inputs: list[str] = []
        for name, frames in (("restored", restored), ("clean", clean)):
            path = Path(folder) / name
            path.write_bytes(np.ascontiguousarray(frames).tobytes())
            inputs += ["-f", "rawvideo", "-pix_fmt", "rgb24"]
            inputs += ["-s", f"{frames.shape[2]}x{frames.shape[1]}", "-i", str(path)]
        graph = (
            "[0:v]format=yuv420p[a];[1:v]format=yuv420p[b];"
            f"[a][b]{FILTER}=log_fmt=json:log_path={log.name}"
        )
        command = [program, "-nostdin", "-v", "error", *inputs, "-lavfi", graph, "-f", "null", "-"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not log.is_file():
            raise OSError(f"`{program}` could not measure VMAF: {done.stderr.strip()[-300:]}")
        frames_told = json.loads(log.read_text(encoding="utf-8"))["frames"]
    return np.array([frame["metrics"]["vmaf"] for frame in frames_told])


def _programs() -> Iterator[str]:
    on_path = shutil.which("ffmpeg")
    if on_path is not None:
        yield on_path
    if importlib.util.find_spec("imageio_ffmpeg") is not None:
        yield import_module("imageio_ffmpeg").get_ffmpeg_exe()


def _has_filter(program: str) -> bool:
    command = [program, "-hide_banner", "-filters"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return False
    return f" {FILTER} " in done.stdout
