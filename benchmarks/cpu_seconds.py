"""CPU seconds a frame of the embedded student by task and stage, beside another student or other code.

    python benchmarks/cpu_seconds.py CLIP --before WEIGHTS -o results/cpu_seconds.md
    python benchmarks/cpu_seconds.py CLIP --before CHECKOUT -o results/cpu_seconds.md

CHECKOUT is a folder with another state of this repository. One thread, process time, 832x480 frames
of CLIP, the second and third block; the two take turns. Stages are shares of the wall time that the
session counts.
"""

import argparse
import importlib.util
import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from receipts import machine

from instantvir_models.checkpoints.load import EMBEDDED, LoadedStudent, load_student
from instantvir_models.cpu import keep_freed_memory
from instantvir_models.media import open_video, to_uint8, to_unit
from instantvir_models.operators.measurement import degrade
from instantvir_models.operators.spec import ClipShape, parse_degradation
from instantvir_models.run.session import Session
from instantvir_models.solvers.amortised import Amortised

TASKS = {
    "denoise": "identity+noise:std=10",
    "deblur": "blur:sigma=3+noise:std=2.5",
    "x2": "down:factor=2",
    "x4": "down:factor=4",
    "holes 50 %": "mask:keep=0.5,seed=0",
}
PACKAGES = ("instantvir_models", "instantvir_kernels")
WIDTH, HEIGHT = 832, 480
BLOCK, BLOCKS = 3, 3


def frames_of(path: Path) -> NDArray[np.uint8]:
    """The first frames of a clip, cut to the size."""
    with open_video(path, other_streams=False) as reader:
        taken = [frame.pixels[:HEIGHT, :WIDTH] for frame, _ in zip(reader, range(9), strict=False)]
    return np.stack(taken).astype(np.uint8)


def seconds(student: Any, spec: str, clean: NDArray[np.uint8]) -> dict[str, float]:
    """CPU seconds a frame, and those of each stage."""
    shape = ClipShape(num_frames=len(clean), height=HEIGHT, width=WIDTH)
    degradation = parse_degradation(spec, shape=shape)
    x = to_unit(clean)
    y = to_uint8(degrade(x, degradation, generator=torch.Generator().manual_seed(0)).y)
    session = Session(Amortised(student), degradation, height=y.shape[1], width=y.shape[2])
    session.push(y[:BLOCK])
    before, started = session.report, time.process_time()
    for first in range(BLOCK, BLOCK * BLOCKS, BLOCK):
        session.push(y[first : first + BLOCK])
    all_seconds = (time.process_time() - started) / (BLOCK * (BLOCKS - 1))
    after = session.report
    names = ("estimate_seconds", "student_seconds", "consistency_seconds")
    stages = {name: getattr(after, name) - getattr(before, name) for name in names}
    whole = sum(stages.values())
    return {name: all_seconds * part / whole for name, part in stages.items()} | {
        "all": all_seconds
    }


def student_of(weights: Any) -> LoadedStudent:
    """A student, loaded by the code of this module."""
    return load_student(weights)


def with_code_of(checkout: Path) -> ModuleType:
    """This script once more, at work on the code of another checkout."""
    here = _taken_out()
    sys.path[:0] = [str(checkout / room) for room in ("models", "kernels")]
    try:
        spec = importlib.util.spec_from_file_location("cpu_seconds_before", __file__)
        assert spec is not None
        assert spec.loader is not None
        there = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(there)
    finally:
        del sys.path[:2]
        _taken_out()
        sys.modules.update(here)
    return there


def _taken_out() -> dict[str, ModuleType]:
    """The modules of the project, so that they are imported anew."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith(PACKAGES)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--before", required=True, help="another student, or another checkout")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    keep_freed_memory()
    clean = frames_of(asked.clip)
    is_code = Path(asked.before).is_dir()
    code = {"this": sys.modules[__name__]}
    code["before"] = with_code_of(Path(asked.before)) if is_code else code["this"]
    weights = {"this": EMBEDDED, "before": EMBEDDED if is_code else asked.before}
    students = {name: code[name].student_of(weights[name]) for name in code}
    what = (
        "this code, in brackets that before"
        if is_code
        else "this student, in brackets the one before"
    )
    lines = [
        f"# CPU seconds a frame at 832x480, one thread: {what}",
        "",
        "| | initial estimate | student | consistency and guard | all |",
        "|---|---|---|---|---|",
    ]
    for task, spec in TASKS.items():
        best: dict[str, dict[str, float]] = {}
        for _ in range(asked.repeats):
            for name, loaded in students.items():
                found = code[name].seconds(loaded.student, spec, clean)
                if name not in best or found["all"] < best[name]["all"]:
                    best[name] = found
        cells = [f"{best['this'][k]:.2f} ({best['before'][k]:.2f})" for k in best["this"]]
        lines.append(f"| {task} | {' | '.join(cells)} |")
    sha256 = {name: loaded.sha256[:12] for name, loaded in students.items()}
    lines += ["", f"Least of {asked.repeats}. {json.dumps(machine() | {'weights': sha256})}", ""]
    asked.output.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
