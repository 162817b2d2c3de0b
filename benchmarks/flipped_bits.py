"""How many flipped bits of a video are told, by codec and container: `python -m benchmarks.flipped_bits`.

One bit of the compressed data of one picture is turned over, FLIPS times for each kind of file, and the
file is read as `restore` does. Counted are flips that changed a picture that came, or cost one.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np

from benchmarks.receipts import RESULTS, machine
from instantvir_models.errors import InstantVIRError
from instantvir_models.media import open_video
from instantvir_models.media.round_trip import LOSSLESS, Encoder, Frames, h264, hevc, mpeg, vp9

FLIPS, SEED, FRAMES, SIZE = 40, 18, 12, (48, 64)
CAVLC = Encoder("h264 baseline", "libx264", (("preset", "veryfast"), ("x264-params", "cabac=0")))
HASHED = Encoder(
    "hevc with MD5", "libx265",
    (("preset", "veryfast"), ("x265-params", "log-level=none:pools=1:hash=1")),
)  # fmt: skip
AV1 = Encoder("av1", "libsvtav1", (("preset", "12"), ("svtav1-params", "lp=1")))
PRORES = Encoder("prores", "prores_ks", pix_fmt="yuv422p10le")
KINDS = [
    *((encoder, container) for encoder in (h264(23), CAVLC, hevc(26), AV1, mpeg("mpeg4", 4))
      for container in ("mp4", "matroska")),
    (HASHED, "mp4"), (vp9(30), "webm"), (vp9(30), "matroska"), (mpeg("mpeg2video", 4), "mpegts"),
    (PRORES, "mov"), (PRORES, "matroska"), (mpeg("mjpeg", 4), "avi"), (mpeg("mjpeg", 4), "matroska"),
    (LOSSLESS, "avi"), (LOSSLESS, "matroska"),
]  # fmt: skip
SUFFIXES = {"matroska": "mkv", "mpegts": "ts"}


@dataclass(frozen=True)
class Row:
    """What came of all flips of one kind of file."""

    kind: str
    changed: int
    told: int


def clip() -> Frames:
    """A noisy picture that moves."""
    rng = np.random.default_rng(SEED)
    ramp = np.linspace(40, 200, SIZE[1])[None, :, None] + np.zeros((*SIZE, 3))
    noisy = ramp + rng.normal(0, 12, ramp.shape)
    moving = np.stack([np.roll(noisy, 2 * index, 1) for index in range(FRAMES)])
    return moving.clip(0, 255).astype(np.uint8)


def seen(path: Path) -> tuple[list[bytes], bool]:
    """Pictures of a file, and whether something is said of damage."""
    try:
        with open_video(path, threads=1) as reader:
            pictures = [frame.pixels.tobytes() for frame in reader]
            return pictures, reader.damage.message is not None
    except InstantVIRError:
        return [], True


def flipped(data: bytes, packets: list[bytes], rng: np.random.Generator) -> bytes:
    """The file with one bit of one packet turned over."""
    while True:
        packet = packets[int(rng.integers(len(packets)))]
        begin = data.find(packet)
        if begin >= 0:  # else the container cuts it into pieces: those of a transport stream
            place = begin + int(rng.integers(len(packet)))
        else:
            place = int(rng.integers(5 * 188, len(data) - 188))
            if place % 188 < 12:
                continue
        changed = bytearray(data)
        changed[place] ^= 1 << int(rng.integers(8))
        return bytes(changed)


def rows(folder: Path) -> Iterator[Row]:
    """One kind of file after the other."""
    frames = clip()
    for encoder, container in KINDS:
        suffix = SUFFIXES.get(container, container)
        data = replace(encoder, container=container).encoded(frames)
        path = folder / f"clip.{suffix}"
        path.write_bytes(data)
        with av.open(str(path)) as file:
            packets = [bytes(packet) for packet in file.demux(video=0) if packet.size]
        whole, is_damaged = seen(path)
        assert not is_damaged, (encoder, container)
        rng, changed, told = np.random.default_rng(SEED), 0, 0
        for _ in range(FLIPS):
            path.write_bytes(flipped(data, packets, rng))
            pictures, is_told = seen(path)
            changed += pictures != whole
            told += pictures != whole and is_told
        yield Row(f"{encoder.name} in .{suffix}", changed, told)


def main() -> None:
    """Write the table."""
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        found = list(rows(Path(folder)))
    lines = [
        "# Flipped bits that are told", "",
        f"{FLIPS} flips of one bit each in {FRAMES} pictures of {SIZE[1]}x{SIZE[0]}, seed {SEED} "
        "(`python -m benchmarks.flipped_bits`). What is untold decodes validly to another picture: "
        "neither the codec nor the container has anything that contradicts it.", "",
        "| kind of file | flips that changed a picture | told | untold |", "|---|---|---|---|",
        *(f"| {row.kind} | {row.changed} | {row.told} | {row.changed - row.told} |" for row in found),
        "", "```", json.dumps(machine()), "```", "",
    ]  # fmt: skip
    (RESULTS / "flipped_bits.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
