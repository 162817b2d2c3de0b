"""Small clips with nothing wrong: how often something is said of them, and of the same with noise.

    python benchmarks/clean_inputs.py drawn CLIP_OR_PHOTO... --rows rows.jsonl
    python benchmarks/clean_inputs.py --rows rows.jsonl --out benchmarks/results/clean_inputs.md

Clips and photos, averaged down until no grain or codec of theirs is left, and drawn pictures: text,
cartoons, fades, games, dither. Sizes from 32x24 to 160x120, one to five frames, nothing lost in
storing. A false alarm is a clean clip that is said to be noisy; with white noise of a known strength,
what was missed. Two ways in: nothing told (`diagnose_samples`) and `--task denoise` (`resolve`). Rows
are appended as they are made.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from damaged import read_frames

from instantvir_models.diagnosis.diagnose import (
    diagnose_samples,
    error_finding,
    shows_something,
)
from instantvir_models.diagnosis.sample import Sample
from instantvir_models.diagnosis.traces import traces_of
from instantvir_models.media.round_trip import Frames
from instantvir_models.operators.measurement import LEVEL
from instantvir_models.run.resolution import resolve
from instantvir_models.suite.damage import stored, white
from instantvir_models.tasks import DENOISE, TaskOptions

SIZES = ((24, 32), (48, 64), (120, 160))
"""Rows and columns."""

COUNTS = (1, 2, 5)
"""Of frames."""

NOISES = (0, 2, 5, 10, 25)
"""Of white noise."""

NOISY = 2.0
"""Levels from which on a clean clip counts as called noisy."""

NEAR = 1.5
"""Factor within which noise counts as found."""

Content = Callable[[int, int, int], Frames]
"""From rows, columns and frames."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """What was said of one clip."""

    content: str
    height: int
    width: int
    num_frames: int
    noise: float
    """True, in levels."""
    found: float | None
    """Levels of error where nothing is told; None where nothing is claimed."""
    found_confidence: str
    is_changed: bool
    """Whether something is done where nothing is told; asked of clean clips only, for it takes long."""
    told: float
    """Levels that `--task denoise` tells its solver."""
    told_confidence: str


def said_of(content: str, frames: Frames, noise: float) -> Said:
    """What both ways say of frames with that much noise."""
    sample = Sample(frames)
    traces = traces_of(frames)
    error = error_finding([traces])[0] if shows_something(traces) else None
    resolved = resolve(TaskOptions(tasks=(DENOISE,)), sample=sample, is_lossy=False)
    return Said(
        content=content,
        height=frames.shape[1],
        width=frames.shape[2],
        num_frames=len(frames),
        noise=noise,
        found=None if error is None else error.value,
        found_confidence="none" if error is None else error.confidence,
        is_changed=not noise and _is_changed(sample),
        told=resolved.degradation.noise_std / LEVEL,
        told_confidence=resolved.estimates[0].confidence,
    )


def _is_changed(sample: Sample) -> bool:
    return diagnose_samples("in", [sample], is_lossy=False).remedy.degradation is not None


def rows_of(contents: dict[str, Content]) -> Iterator[Said]:
    """All of it."""
    rng = np.random.default_rng(0)
    for name, content in contents.items():
        for height, width in SIZES:
            clean = content(height, width, max(COUNTS))
            for count in COUNTS:
                for levels in NOISES:
                    part = clean[:count]
                    noisy = stored(white(part, levels, rng)) if levels else part
                    yield said_of(name, noisy, levels)


def filmed(picture: Frames, step: float, zoom: float = 1.0) -> Content:
    """A photo [h, w, 3] seen by a camera that moves by so many pixels of the result a frame."""

    def content(height: int, width: int, count: int) -> Frames:
        reach = round(step * count) + 2
        scale = zoom * min(picture.shape[0] / (height + reach), picture.shape[1] / (width + reach))
        size = (round((width + reach) * scale), round((height + reach) * scale))
        top, left = (
            (side - part) // 2 for side, part in zip(picture.shape, size[::-1], strict=False)
        )
        frames = []
        for t in range(count):
            y, x = (round(start + 0.6 * t * step * scale) for start in (top, left))
            part = picture[y : y + round(height * scale), x : x + round(width * scale)]
            frames.append(cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA))
        return np.stack(frames)

    return content


def shrunk(clip: Frames) -> Content:
    """The middle of a clip, averaged down."""

    def content(height: int, width: int, count: int) -> Frames:
        scale = min(clip.shape[1] / height, clip.shape[2] / width)
        rows, columns = round(height * scale), round(width * scale)
        top, left = (clip.shape[1] - rows) // 2, (clip.shape[2] - columns) // 2
        part = clip[:count, top : top + rows, left : left + columns]
        return np.stack(
            [cv2.resize(f, (width, height), interpolation=cv2.INTER_AREA) for f in part]
        )

    return content


def each(draw: Callable[[Frames, int], object], ground: int | Sequence[int] = 0) -> Content:
    """What `draw` makes of every empty frame and its number."""

    def content(height: int, width: int, count: int) -> Frames:
        frames = np.empty((count, height, width, 3), np.uint8)
        frames[:] = ground
        for t, frame in enumerate(frames):
            draw(frame, t)
        return frames

    return content


def written(scroll: int, ink: Sequence[int], *, size: float, pitch: int) -> Callable[..., None]:
    """Lines of text, moved up by `scroll` pixels a frame."""

    def draw(frame: Frames, t: int) -> None:
        for line in range(-1, frame.shape[0] // pitch + 4):
            text = f"{line * 7919 % 1000:03d} the quick brown fox jumps over the lazy dog {line}"
            where = (2, line * pitch - scroll * t)
            cv2.putText(frame, text, where, cv2.FONT_HERSHEY_SIMPLEX, size, ink, 1, cv2.LINE_AA)

    return draw


def cartoon(frame: Frames, t: int) -> None:
    """Flat fills with dark outlines that move."""
    rng = np.random.default_rng(4)
    height, width = frame.shape[:2]
    for _ in range(12):
        centre = rng.uniform(0, 1, 2) * (width, height) + t * rng.uniform(-3, 3, 2)
        colour = [int(c) for c in rng.integers(20, 236, 3)]
        radius = int(rng.uniform(0.06, 0.22) * height)
        where = (int(centre[0]), int(centre[1]))
        cv2.circle(frame, where, radius, colour, -1, cv2.LINE_AA)
        cv2.circle(frame, where, radius, (12, 10, 16), 1, cv2.LINE_AA)


def gradient(frame: Frames, t: int) -> None:
    """Smooth colour that moves."""
    v, u = np.mgrid[: frame.shape[0], : frame.shape[1]] / max(frame.shape[:2])
    for channel in range(3):
        frame[..., channel] = np.rint(128 + 80 * np.sin(2 * u + channel * v + 0.1 * t))


def title(frame: Frames, t: int) -> None:
    """White letters in the middle of black."""
    where = (frame.shape[1] // 8, frame.shape[0] // 2)
    size = frame.shape[1] / 200
    cv2.putText(frame, "THE END", where, cv2.FONT_HERSHEY_TRIPLEX, size, (250,) * 3, 1, cv2.LINE_AA)


def sprites(cell: int, step: int) -> Callable[..., None]:
    """A map of tiles of few colours, of square pixels of `cell`, that scrolls."""

    def draw(frame: Frames, t: int) -> None:
        rng = np.random.default_rng(8)
        palette = rng.integers(0, 256, (8, 3)).astype(np.uint8)
        tiles = palette[rng.integers(0, 8, (4, 8, 8)) * (rng.random((4, 8, 8)) < 0.6)]
        board = tiles[rng.integers(0, 4, (24, 32))].transpose(0, 2, 1, 3, 4).reshape(192, 256, 3)
        large = board.repeat(cell, 0).repeat(cell, 1)
        frame[:] = large[: frame.shape[0], step * t : step * t + frame.shape[1]]

    return draw


def stars(frame: Frames, t: int) -> None:
    """Points that fly over black."""
    rng = np.random.default_rng(2)
    height, width = frame.shape[:2]
    for _ in range(height * width // 60):
        y, x, speed = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(0.5, 4)
        frame[int(y), int(x + speed * t) % width] = rng.integers(60, 256)


def screen(frame: Frames, t: int) -> None:
    """A window with a bar, small text, and a pointer that moves."""
    height, width = frame.shape[:2]
    cv2.rectangle(frame, (3, 3), (width - 4, height - 4), (250, 250, 250), -1)
    cv2.rectangle(frame, (3, 3), (width - 4, 9), (60, 90, 160), -1)
    written(0, (30, 30, 30), size=0.25, pitch=9)(frame[12:, 5:-5], 0)
    cv2.circle(frame, (width // 3 + 3 * t, height // 2 + t), 2, (10, 10, 10), -1)


def zones(frame: Frames, t: int) -> None:
    """A zone plate."""
    v, u = (
        np.mgrid[: frame.shape[0], : frame.shape[1]] - np.array(frame.shape[:2])[:, None, None] / 2
    )
    wave = np.cos(np.pi / max(frame.shape[:2]) * (u**2 + v**2) + 0.3 * t)
    frame[:] = np.rint(128 + 100 * wave)[..., None]


def ordered(content: Content) -> Content:
    """One bit a pixel, by a matrix of thresholds."""
    matrix = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) * 16 + 8

    def dithered(height: int, width: int, count: int) -> Frames:
        grey = content(height, width, count).mean(-1)
        limits = np.tile(matrix, (height // 4 + 1, width // 4 + 1))[:height, :width]
        return np.repeat(((grey > limits) * 255).astype(np.uint8)[..., None], 3, -1)

    return dithered


def diffused(content: Content) -> Content:
    """One bit a pixel, by Floyd and Steinberg's diffusion of the error (1976)."""

    def one(grey: np.ndarray) -> np.ndarray:
        rest = np.pad(grey, ((0, 1), (1, 1)))
        for y in range(grey.shape[0]):
            for x in range(1, grey.shape[1] + 1):
                error = rest[y, x] - 255 * (rest[y, x] > 127)
                rest[y, x] -= error
                rest[y, x + 1] += error * 7 / 16
                rest[y + 1, x - 1 : x + 2] += error * np.array([3, 5, 1]) / 16
        return rest[:-1, 1:-1]

    def dithered(height: int, width: int, count: int) -> Frames:
        bits = np.stack([one(frame.mean(-1)) for frame in content(height, width, count)])
        return np.repeat(bits.round().astype(np.uint8)[..., None], 3, -1)

    return dithered


def faded(content: Content) -> Content:
    """To black within seven frames."""

    def fade(height: int, width: int, count: int) -> Frames:
        light = 1 - np.arange(count)[:, None, None, None] / 7
        return np.rint(content(height, width, count) * light).astype(np.uint8)

    return fade


def repeated(content: Content) -> Content:
    """Where nothing moves."""
    return lambda height, width, count: content(height, width, 1).repeat(count, 0)


def drawn() -> dict[str, Content]:
    """What needs no file."""
    ink, paper = (25, 25, 25), (245, 245, 240)
    return {
        "drawn: ordered dither": ordered(each(gradient)),
        "drawn: diffused dither": diffused(each(gradient)),
        "drawn: page": each(written(0, ink, size=0.3, pitch=10), paper),
        "drawn: page, scrolled": each(written(3, ink, size=0.3, pitch=10), paper),
        "drawn: terminal": each(written(1, (80, 220, 80), size=0.28, pitch=8), (16, 18, 20)),
        "drawn: screen": each(screen, (40, 110, 130)),
        "drawn: title": each(title),
        "drawn: cartoon": each(cartoon, (150, 190, 220)),
        "drawn: gradient": each(gradient),
        "drawn: game": each(sprites(1, 1)),
        "drawn: game, still": each(sprites(1, 0)),
        "drawn: game, pixels of 2": each(sprites(2, 2)),
        "drawn: game, pixels of 4": each(sprites(4, 3)),
        "drawn: stars": each(stars),
        "drawn: zone plate": each(zones),
        "drawn: grey": each(lambda frame, t: None, 128),
        "drawn: black": each(lambda frame, t: None),
        "drawn: flash": each(lambda frame, t: frame.fill(40 + 40 * t)),
    }


def seen(path: Path) -> dict[str, Content]:
    """What is made of one file."""
    if path.suffix == ".mp4":
        return {f"clip: {path.stem}": shrunk(read_frames(path))}
    stored_picture = cv2.imread(str(path))
    if stored_picture is None:
        raise SystemExit(f"`{path}` is no picture")
    picture, name = np.ascontiguousarray(stored_picture[..., ::-1]), f"photo: {path.stem}"
    slow = filmed(picture, 1.3)
    return {
        name: slow,
        f"{name}, still": repeated(slow),
        f"{name}, fast": filmed(picture, 11, 0.8),
        f"{name}, fade": faded(slow),
    }


def table(rows: Sequence[Said]) -> str:
    """Clean clips that are called noisy, and noise that is found, by size and number of frames."""
    lines = [
        "| clips | n | called noisy: high | medium | low | changed | "
        "`denoise`: high | medium | low |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    clean = [row for row in rows if not row.noise]
    lines += [_alarms(name, mine) for name, mine in _groups(clean)]
    lines += [
        "",
        "| noise | n | found | high | `denoise`: found | high |",
        "|---|---|---|---|---|---|",
    ]
    noisy = [row for row in rows if row.noise]
    for levels in NOISES[1:]:
        mine = [row for row in noisy if row.noise == levels]
        lines.append(_detections(f"{levels}", mine))
    lines += [_detections(name, mine) for name, mine in _groups(noisy)]
    return "\n".join(lines)


def _groups(rows: Sequence[Said]) -> Iterator[tuple[str, list[Said]]]:
    yield "all", list(rows)
    for kind in ("clip", "photo", "drawn"):
        yield kind, [row for row in rows if row.content.startswith(kind)]
    for height, width in SIZES:
        yield f"{width}x{height}", [row for row in rows if row.height == height]
    for count in COUNTS:
        yield f"frames: {count}", [row for row in rows if row.num_frames == count]


def _alarms(name: str, mine: Sequence[Said]) -> str:
    found = [row.found_confidence for row in mine if (row.found or 0) > NOISY]
    told = [row.told_confidence for row in mine if row.told > NOISY]
    counts = [str(said.count(c)) for said in (found, told) for c in ("high", "medium", "low")]
    counts.insert(3, str(sum(row.is_changed for row in mine)))
    return f"| {' | '.join([name, str(len(mine)), *counts])} |"


def _detections(name: str, mine: Sequence[Said]) -> str:
    found = [r.found_confidence for r in mine if r.found and _is_near(r.found, r.noise)]
    told = [r.told_confidence for r in mine if _is_near(r.told, r.noise)]
    counts = (len(found), found.count("high"), len(told), told.count("high"))
    shares = (f"{100 * count / max(1, len(mine)):.0f} %" for count in counts)
    return f"| {' | '.join([name, str(len(mine)), *shares])} |"


def _is_near(said: float, noise: float) -> bool:
    return noise / NEAR <= said <= noise * NEAR


def main() -> None:
    """Print the tables and keep them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="*", type=Path)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with options.rows.open("a") as file:
        for path in options.sources:
            contents = drawn() if str(path) == "drawn" else seen(path)
            file.writelines(json.dumps(asdict(row)) + "\n" for row in rows_of(contents))
            file.flush()
    said = [Said(**json.loads(line)) for line in options.rows.read_text().splitlines()]
    text = table(said) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
