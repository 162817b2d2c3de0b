"""A zoo of realistic damage: what `restore` does when nothing is told, beside the best it can be told.

    python benchmarks/zoo.py CLIP... --out zoo.json [--kinds mjpeg,film] [--no-best]

Every kind is made from the beginning of one clip (in turn) by real encoders, at a small size. Rows:
the input, `restore FILE` with nothing told, and the best of a few told values, chosen with the truth.
The rule: no row of ours is worse than its input.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from damaged import (
    LOSSLESS,
    Encoder,
    Frames,
    grain,
    h264,
    hevc,
    mjpeg,
    mpeg2,
    mpeg4,
    sensor,
    stored,
    tape,
    white,
)

from instantvir_models.media import open_video
from instantvir_models.metrics.fidelity import frame_difference_psnr, psnr, ssim
from instantvir_models.run.restoration import restore

WIDTH, HEIGHT, FRAMES = 320, 176, 12
SEED = 0
TOLD_NOISE = (2, 4, 6.5, 10, 15)
"""Levels that are tried for the best told result."""


@dataclass(frozen=True)
class Kind:
    """One kind of damage."""

    name: str
    damaged: Callable[[Frames, np.random.Generator], Frames]
    encoder: Encoder
    told: tuple[str, ...] = ("identity",)
    """Operators that are tried, each with every noise."""
    scale: int = 1
    """How much smaller the file is than the clean clip."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One result on one kind."""

    kind: str
    clip: str
    method: str
    psnr: float
    ssim: float
    frame_difference_psnr: float
    cpu_seconds: float
    said: str = ""


def kept(clean: Frames, rng: np.random.Generator) -> Frames:
    """Nothing but the encoder."""
    return clean


def webcam(clean: Frames, rng: np.random.Generator) -> Frames:
    """White noise of 6 levels."""
    return stored(white(clean, 6, rng))


def phone(clean: Frames, rng: np.random.Generator) -> Frames:
    """Sensor noise, sharpened."""
    return sharpened(stored(sensor(clean, 9, rng)), rng, amount=0.5)


def vhs(clean: Frames, rng: np.random.Generator) -> Frames:
    """Soft along rows, softer in colour, tape noise."""
    levels = np.stack([_tape_soft(frame) for frame in clean])
    return stored(tape(levels, 8, rng))


def film(clean: Frames, rng: np.random.Generator) -> Frames:
    """Soft, grain and dust."""
    soft = np.stack([cv2.GaussianBlur(frame, (0, 0), 0.8) for frame in clean])
    return _dusty(stored(grain(soft, 12, rng)), rng)


def sharpened(clean: Frames, rng: np.random.Generator, *, amount: float = 1.2) -> Frames:
    """Unsharp mask, as cameras and editors do it."""
    soft = np.stack([cv2.GaussianBlur(frame, (0, 0), 1.2) for frame in clean]).astype(np.float32)
    return stored(clean + amount * (clean - soft))


def out_of_focus(clean: Frames, rng: np.random.Generator) -> Frames:
    """A disc of radius 3.5."""
    rows, columns = np.indices((9, 9)) - 4
    disc = np.clip(4.0 - np.hypot(rows, columns), 0, 1).astype(np.float32)
    return _filtered(clean, disc)


def shaken(clean: Frames, rng: np.random.Generator) -> Frames:
    """A line of 11 pixels at 30 degrees."""
    line = np.zeros((13, 13), np.float32)
    dx, dy = 5 * np.cos(np.pi / 6), 5 * np.sin(np.pi / 6)
    scaled = [round(16 * (6 + d)) for d in (-dx, dy, dx, -dy)]
    cv2.line(line, (scaled[0], scaled[1]), (scaled[2], scaled[3]), 1, 1, cv2.LINE_AA, 4)
    return _filtered(clean, line)


def smaller(clean: Frames, factor: int, interpolation: int) -> Frames:
    """By a factor."""
    size = (clean.shape[2] // factor, clean.shape[1] // factor)
    return np.stack([cv2.resize(frame, size, interpolation=interpolation) for frame in clean])


def half(clean: Frames, rng: np.random.Generator) -> Frames:
    """By two, bicubic without a filter before it."""
    return smaller(clean, 2, cv2.INTER_CUBIC)


def quarter(clean: Frames, rng: np.random.Generator) -> Frames:
    """By four, area."""
    return smaller(clean, 4, cv2.INTER_AREA)


def woven(clean: Frames, rng: np.random.Generator) -> Frames:
    """Fields of two moments in each picture: odd rows are one frame later."""
    frames = clean.copy()
    frames[:-1, 1::2] = clean[1:, 1::2]
    return frames


def cartoon(clean: Frames, rng: np.random.Generator) -> Frames:
    """Flat colours and lines: what this makes of the clip is the clean picture."""
    return np.stack([_cartoon(frame) for frame in clean])


def screen(clean: Frames, rng: np.random.Generator) -> Frames:
    """Text and boxes that scroll."""
    frames = np.full_like(clean, 245)
    for t, frame in enumerate(frames):
        frame[:, :60] = (40, 44, 60)
        for line in range(12):
            y = 14 + 15 * line - t
            text = f"line {line}: value = {line * 7919 % 1000}"
            cv2.putText(
                frame, text, (70, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (20, 20, 20), 1, cv2.LINE_AA
            )
        cv2.rectangle(frame, (230, 60), (300, 110), (200, 30, 60), -1)
    return frames


KINDS = (
    Kind("mjpeg webcam q18 noise 6", webcam, mjpeg(18)),
    Kind("phone at night", phone, h264(27)),
    Kind("vhs", vhs, mpeg2(6)),
    Kind("film grain and dust", film, h264(20)),
    Kind("h264 crf 36", kept, h264(36)),
    Kind("h264 crf 32", kept, h264(32)),
    Kind("h264 crf 26", kept, h264(26)),
    Kind("mpeg2 q16", kept, mpeg2(16)),
    Kind("mpeg4 q14", kept, mpeg4(14)),
    Kind("hevc crf 32", kept, hevc(32)),
    Kind("out of focus 3.5", out_of_focus, h264(18), ("identity", "defocus:radius=3.5")),
    Kind("motion blur 11", shaken, h264(18), ("identity", "motion:length=11,angle=150")),
    Kind("over-sharpened", sharpened, h264(25)),
    Kind("x2 bicubic", half, h264(24), ("down:factor=2,kernel=bicubic",), 2),
    Kind("x4 area", quarter, h264(24), ("down:factor=4,kernel=area",), 4),
    Kind("interlaced", woven, h264(20)),
    Kind("clean crf 16", kept, h264(16)),
    Kind("lossless noise 10", lambda x, rng: stored(white(x, 10, rng)), LOSSLESS),
    Kind("cartoon crf 28", kept, h264(28)),
    Kind("screen crf 28", kept, h264(28)),
    Kind("clean lossless", kept, LOSSLESS),
)

MADE = {"cartoon crf 28": cartoon, "screen crf 28": screen}
"""Kinds whose clean picture is made of the clip."""


def rows_of(kind: Kind, clip: Path, folder: Path, *, with_best: bool) -> Iterator[Row]:
    """The rows of one kind on one clip."""
    rng = np.random.default_rng(SEED)
    clean = clean_frames(clip)
    if kind.name in MADE:
        clean = MADE[kind.name](clean, rng)
    path = folder / "old.mkv"
    path.write_bytes(kind.encoder.encoded(kind.damaged(clean, rng)))
    seen = frames_of(path)
    at_size = clean if kind.scale == 1 else smaller(clean, kind.scale, cv2.INTER_AREA)
    yield measured(kind, clip, "input", seen, at_size, 0.0)
    started = time.process_time()
    report = restore(path, folder / "new.mkv", codec="ffv1", overwrite=True)
    seconds = time.process_time() - started
    result = frames_of(folder / "new.mkv")
    yield measured(kind, clip, "nothing told", result, at_size, seconds, report.operator)
    if kind.scale > 1:
        enlarged = [cv2.resize(f, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for f in seen]
        yield measured(kind, clip, "input, bicubic", np.stack(enlarged), clean, 0.0)
    if with_best:
        yield max(best_rows(kind, clip, path, clean), key=lambda row: row.psnr)


def best_rows(kind: Kind, clip: Path, path: Path, clean: Frames) -> Iterator[Row]:
    """One row for each thing that may be told."""
    for operator in kind.told:
        for noise in TOLD_NOISE:
            said, target = f"{operator}+noise:std={noise}", path.with_name("told.mkv")
            started = time.process_time()
            restore(path, target, operator=said, codec="ffv1", overwrite=True)
            seconds = time.process_time() - started
            yield measured(kind, clip, "best told", frames_of(target), clean, seconds, said)


def measured(
    kind: Kind,
    clip: Path,
    method: str,
    result: Frames,
    clean: Frames,
    seconds: float,
    said: str = "",
) -> Row:
    """One row; the last frame of a woven clip has no second field, so it does not count. Of frames that
    are one field each, those of first fields count."""
    result = result[:: max(1, round(len(result) / len(clean)))]
    count = min(len(result), len(clean)) - 1
    result, clean = result[:count], clean[:count]
    return Row(
        kind=kind.name,
        clip=clip.stem,
        method=method,
        psnr=float(psnr(result, clean).mean()),
        ssim=float(ssim(result, clean).mean()),
        frame_difference_psnr=float(frame_difference_psnr(result, clean).mean()),
        cpu_seconds=seconds,
        said=said,
    )


def clean_frames(clip: Path) -> Frames:
    """The beginning of a clip at the size of the zoo, its middle if its shape is another."""
    frames = frames_of(clip, FRAMES)
    height, width = frames.shape[1:3]
    scale = max(WIDTH / width, HEIGHT / height)
    size = (max(WIDTH, round(scale * width)), max(HEIGHT, round(scale * height)))
    small = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])
    top, left = (small.shape[1] - HEIGHT) // 2, (small.shape[2] - WIDTH) // 2
    return np.ascontiguousarray(small[:, top : top + HEIGHT, left : left + WIDTH])


def frames_of(path: Path, count: int | None = None) -> Frames:
    """All frames, or the first few."""
    with open_video(path, other_streams=False) as reader:
        return np.stack([frame.pixels for frame in islice(reader, count)]).astype(np.uint8)


def _filtered(clean: Frames, kernel: np.ndarray) -> Frames:
    kernel = kernel / kernel.sum()
    return np.stack([cv2.filter2D(f, -1, kernel, borderType=cv2.BORDER_REFLECT) for f in clean])


def _tape_soft(frame: Frames) -> Frames:
    light, red, blue = cv2.split(cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb))
    light = cv2.GaussianBlur(light, (0, 0), 1.2, sigmaY=0.4)
    red, blue = (cv2.GaussianBlur(c, (0, 0), 4, sigmaY=1) for c in (red, blue))
    return cv2.cvtColor(cv2.merge([light, red, blue]), cv2.COLOR_YCrCb2RGB)


def _dusty(frames: Frames, rng: np.random.Generator) -> Frames:
    frames = frames.copy()
    for frame in frames:
        for _ in range(6):
            x, y = int(rng.integers(WIDTH)), int(rng.integers(HEIGHT))
            axes = (int(rng.integers(1, 5)), int(rng.integers(1, 4)))
            shade = int(rng.choice([12, 240]))
            cv2.ellipse(frame, (x, y), axes, float(rng.integers(180)), 0, 360, (shade,) * 3, -1)
    return frames


def _cartoon(frame: Frames) -> Frames:
    flat = cv2.bilateralFilter(cv2.bilateralFilter(frame, 9, 60, 9), 9, 60, 9)
    levels = (flat // 24 * 24 + 12).astype(np.uint8)
    grey = cv2.medianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), 5)
    lines = cv2.adaptiveThreshold(grey, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, 9, 7)
    return cv2.GaussianBlur(
        np.where(lines[..., None] > 0, levels, 20).astype(np.uint8), (0, 0), 0.5
    )


def main() -> None:
    """Print a table and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--kinds", help="parts of names, separated by commas")
    parser.add_argument(
        "--no-best", action="store_true", help="do not look for the best told value"
    )
    options = parser.parse_args()
    cv2.setNumThreads(1)
    wanted = (options.kinds or "").split(",")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for index, kind in enumerate(KINDS):
            if not any(part in kind.name for part in wanted):
                continue
            clip = options.clips[index % len(options.clips)]
            for row in rows_of(kind, clip, Path(folder), with_best=not options.no_best):
                rows.append(row)
                print(
                    f"{row.kind:26} {row.clip:18} {row.method:14} {row.psnr:6.2f} dB  "
                    f"{row.ssim:.4f}  {row.cpu_seconds:5.1f} s  {row.said}",
                    flush=True,
                )
    if options.out:
        options.out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
