"""One live run from a synthetic camera to a reader: what came out, when, and how it sounded."""

import json
import math
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from synthetic_camera import LARGEST_SAMPLE, milliseconds_since, read_stamp

from instantvir_models.media.live_io import StandardInput

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join(
        str(ROOT / folder) for folder in (".", "kernels", "models", "distill")
    ),
}
COMMAND = [sys.executable, "-c", "from instantvir_cli.app import app; app()", "stream"]
CAMERA = [sys.executable, str(ROOT / "benchmarks" / "synthetic_camera.py")]

ROUNDING_FRAMES = 0.01
"""Containers round the time of a packet of sound."""


@dataclass
class Received:
    """What a reader of the restored stream saw."""

    numbers: list[int] = field(default_factory=list)
    """Of the frames, as burned in."""
    seconds: list[float] = field(default_factory=list)
    """Their time stamps."""
    delays_ms: list[int] = field(default_factory=list)
    """From the camera's hand-over to decoded here."""
    sound: list[tuple[float, int]] = field(default_factory=list)
    """Time stamp and number of each packet of sound."""

    @property
    def is_monotonic(self) -> bool:
        """Whether every time stamp is later than the one before."""
        return all(b > a for a, b in zip(self.seconds, self.seconds[1:], strict=False))

    def sound_offset_frames(self, fps: float) -> float:
        """Largest distance in frames between sound and picture over the last packets of sound."""
        number_at = {round(s * fps): n for s, n in zip(self.seconds, self.numbers, strict=True)}
        offsets = []
        for seconds, number in self.sound[-50:]:
            shown = number_at.get(math.floor(seconds * fps + ROUNDING_FRAMES))
            if shown is not None:
                offsets.append(abs(shown % LARGEST_SAMPLE - number))
        return float(max(offsets)) if offsets else float("nan")


@dataclass(frozen=True)
class LiveRun:
    """Everything one run left."""

    received: Received
    lines: list[dict[str, Any]]
    """The JSON lines of the stream."""
    return_codes: tuple[int, int]
    """Of the camera and the stream."""

    @property
    def summary(self) -> dict[str, Any]:
        """The last status."""
        return next(line["summary"] for line in reversed(self.lines) if "summary" in line)

    @property
    def statuses(self) -> list[dict[str, Any]]:
        """One a second."""
        return [line["status"] for line in self.lines if "status" in line]


def run_live(camera: list[str], stream: list[str]) -> LiveRun:
    """Camera | instantvir stream | this process, to the end."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "status.jsonl"
        source = subprocess.Popen([*CAMERA, *camera], stdout=subprocess.PIPE, env=ENVIRONMENT)
        restorer = subprocess.Popen(
            [*COMMAND, "-", "-o", "-", "--json-lines", str(log), "--threads", "1", *stream],
            stdin=source.stdout,
            stdout=subprocess.PIPE,
            stderr=sys.stderr if "--quiet" not in stream else None,
            env=ENVIRONMENT,
        )
        assert source.stdout is not None
        assert restorer.stdout is not None
        source.stdout.close()
        received = receive(restorer.stdout.fileno())
        codes = (source.wait(), restorer.wait())
        lines = [json.loads(line) for line in log.read_text().splitlines()]
    return LiveRun(received, lines, codes)


def receive(descriptor: int) -> Received:
    """Decode everything a pipe delivers, noting the delay of each frame."""
    received = Received()
    pipe = StandardInput(threading.Event(), descriptor=descriptor)
    options = {"analyzeduration": "200000", "flags": "low_delay"}
    with av.open(pipe, buffer_size=4096, options=options) as container:
        video = container.streams.video[0]
        video.codec_context.thread_type = "SLICE"
        for packet in container.demux():
            if packet.size == 0:
                continue
            if packet.stream is not video:
                samples = np.frombuffer(bytes(packet), np.int16)
                received.sound.append((float(packet.pts * packet.time_base), int(samples[0])))
                continue
            for frame in video.codec_context.decode(packet):
                number, stamp = read_stamp(frame.to_ndarray(format="rgb24"))
                received.numbers.append(number)
                received.delays_ms.append(milliseconds_since(stamp))
                received.seconds.append(float(frame.pts * Fraction(frame.time_base)))
    return received


def percentiles(values: list[int] | list[float]) -> dict[str, float]:
    """p50, p95, p99 and the largest."""
    return {
        **{f"p{q}": round(float(np.percentile(values, q)), 1) for q in (50, 95, 99)},
        "max": round(float(max(values)), 1),
    }
