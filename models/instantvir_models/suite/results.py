"""What a suite has found, as data, and as a folder: `suite.json`, `rows/`, and a film of each video.

A folder is written row by row, so what was interrupted goes on, and can be looked at meanwhile. Films
are PNG: all frames of a video one below the other, lossless, readable by everything.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from instantvir_models.errors import UsageError
from instantvir_models.outputs.claim import write_whole

SCHEMA = 1
"""Version of the folder. It rises when a field changes its meaning or goes away."""

SUITE_FILE = "suite.json"
ROWS_FOLDER = "rows"
FILMS_FOLDER = "films"

Frames = NDArray[np.uint8]
"""[T, H, W, 3] RGB."""


Features = tuple[tuple[float, ...], ...]
"""What the network of FVD sees, a row for each window of frames; empty where it saw nothing."""


@dataclass(frozen=True, kw_only=True)
class Film:
    """A short video on disk."""

    path: str
    """Of a PNG below the suite's folder: frames one below the other, height * frames rows."""
    frames: int
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One number for each frame."""

    measure: str
    """The `Measure` it belongs to."""
    values: tuple[float, ...]
    """Of each frame; one fewer where it is about the change from a frame to the next."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What is measured of a restoration."""

    name: str
    """Key in `Row.metrics`."""
    label: str
    """For people, with the unit."""
    is_higher_better: bool
    about: str = ""


@dataclass(frozen=True, kw_only=True)
class SuiteTask:
    """A way in which every clip is damaged."""

    name: str
    about: str
    spec: str
    """The degradation as `parse_degradation` reads it; of real files, how they were stored."""


@dataclass(frozen=True, kw_only=True)
class SuiteClip:
    """A clean clip."""

    name: str
    frames: int
    height: int
    width: int
    frames_per_second: float
    source: str = ""
    """Where it is from, and under which licence, where that is known."""
    truth: Film | None = None
    """None where nobody knows the clean video."""


@dataclass(frozen=True, kw_only=True)
class MeasuredClip:
    """A clip as a task shows it to every solver."""

    task: str
    clip: str
    film: Film
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of the measurement itself, enlarged by pixel repetition where it is smaller; empty without truth."""
    curves: tuple[Curve, ...] = ()
    told: str = ""
    """The degradation that solvers are told of, where the task does not tell it."""


@dataclass(frozen=True, kw_only=True)
class SuiteSolver:
    """Somebody who restores."""

    name: str
    about: str
    family: str
    """`one pass`, `iterative`, `classical` or `peer`."""
    prior: str = ""
    """What it knows of natural video: name and the first digits of the sha256 of its weights."""
    source: str = ""
    """Paper."""
    settings: str = ""
    deviations: tuple[str, ...] = ()
    """Where the released code, which is followed, differs from its paper, or this from both."""
    command: str = ""
    """Of a peer: the program that is called."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where the time goes."""

    name: str
    seconds_per_frame: float


@dataclass(frozen=True, kw_only=True)
class Row:
    """One solver on one clip and task. Where it failed, `failure` says so and the rest is empty."""

    solver: str
    task: str
    clip: str
    failure: str | None = None
    """A sentence; None where it did not fail."""
    is_refused: bool = False
    """Whether the failure is that the solver says that it cannot undo this."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """By the name of a `Measure`. What could not be measured is not there."""
    curves: tuple[Curve, ...] = ()
    evaluations_per_frame: float | None = None
    """Passes of the network that count for one frame; one that sees T frames at once counts 1 for each."""
    gradients_per_frame: float | None = None
    """Of these, how many were followed back through the network."""
    seconds_per_frame: float | None = None
    """Wall time of the restoration, reading and writing left out; of a peer, the whole command."""
    cpu_seconds_per_frame: float | None = None
    stages: tuple[Stage, ...] = ()
    film: Film | None = None
    features: Features = ()


@dataclass(frozen=True, kw_only=True)
class ClipFeatures:
    """What the network of FVD sees in a clean clip."""

    clip: str
    features: Features


@dataclass(frozen=True, kw_only=True)
class Published:
    """A figure of a paper, as its authors give it. Other clips, sizes, weights and machines."""

    system: str
    task: str
    """Empty where it is about none in particular."""
    measure: str
    """`psnr`, `lpips`, `fvd` or `frames_per_second`."""
    value: float
    is_below: bool = False
    """Whether the paper says less than that."""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class SuiteReceipt:
    """Without which a number is worth nothing."""

    command: str
    instantvir: str
    python: str
    torch: str
    cpu: str
    cores: int
    threads: int
    seed: int
    started: str
    """ISO 8601, UTC."""
    load_at_start: float | None = None
    """How many other processes wanted a core; None where the system does not say."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Everything of one run."""

    name: str
    receipt: SuiteReceipt
    measures: tuple[Measure, ...]
    clips: tuple[SuiteClip, ...]
    tasks: tuple[SuiteTask, ...]
    solvers: tuple[SuiteSolver, ...]
    measured: tuple[MeasuredClip, ...] = ()
    truth: tuple[ClipFeatures, ...] = ()
    rows: tuple[Row, ...] = ()
    published: tuple[Published, ...] = ()
    missing: tuple[str, ...] = ()
    """Sentences: what could not be measured here, and what it would take."""
    schema: int = SCHEMA

    @property
    def rows_wanted(self) -> int:
        """How many rows there are when it is complete."""
        return len(self.clips) * len(self.tasks) * len(self.solvers)

    @property
    def is_complete(self) -> bool:
        return len(self.rows) == self.rows_wanted

    def row(self, solver: str, task: str, clip: str) -> Row | None:
        """That of these three, if it is there."""
        key = solver, task, clip
        return next((r for r in self.rows if (r.solver, r.task, r.clip) == key), None)


def save_suite(suite: Suite, folder: Path) -> None:
    """Write `suite.json`, everything but rows, which stay in files of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    head = dataclasses.replace(suite, rows=())
    write_json(folder / SUITE_FILE, head)


def save_row(row: Row, folder: Path) -> None:
    """Add a row to the folder; one of the same solver, task and clip is replaced."""
    write_json(folder / ROWS_FOLDER / f"{file_stem(row.solver, row.task, row.clip)}.json", row)


def load_suite(folder: Path) -> Suite:
    """What a folder holds, the rows in the order of solvers, tasks and clips.

    Raises:
        UsageError: if it holds no suite, or one of another schema.
    """
    path = folder / SUITE_FILE
    try:
        head = json.loads(path.read_text(encoding="utf-8"))
        if head.get("schema") != SCHEMA:
            raise UsageError(
                f"`{path}` has schema {head.get('schema')}, this version reads {SCHEMA}",
                hint="run the suite again into another folder",
            )
        suite = _read(Suite, head)
        stored = [
            _read(Row, json.loads(each.read_text(encoding="utf-8")))
            for each in sorted((folder / ROWS_FOLDER).glob("*.json"))
        ]
    except OSError as error:
        raise UsageError(
            f"there is no suite in `{folder}`: {error.strerror}",
            hint="`instantvir benchmark --suite paper -o FOLDER` makes one",
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"a file in `{folder}` is no part of a suite: {error}") from error
    return dataclasses.replace(suite, rows=_in_order(stored, suite))


def _in_order(rows: list[Row], suite: Suite) -> tuple[Row, ...]:
    by = {(row.solver, row.task, row.clip): row for row in rows}
    keys = (
        (solver.name, task.name, clip.name)
        for solver in suite.solvers
        for task in suite.tasks
        for clip in suite.clips
    )
    return tuple(by[key] for key in keys if key in by)


def file_stem(*names: str) -> str:
    """The names as the stem of a file, nothing in it that a file system minds."""
    plain = ("".join(c if c.isalnum() else "-" for c in name.lower()) for name in names)
    return "__".join("-".join(filter(None, name.split("-"))) for name in plain)


def save_film(frames: Frames, folder: Path, *names: str) -> Film:
    """Write frames [T, H, W, 3] into the folder, under a name made of `names`."""
    path = f"{FILMS_FOLDER}/{file_stem(*names)}.png"
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = frames.shape[:3]
    strip = frames.reshape(count * height, width, 3)[..., ::-1]
    done, data = cv2.imencode(".png", np.ascontiguousarray(strip))
    assert done
    write_whole(target, data.tobytes(), may_replace=True)
    return Film(path=path, frames=count, height=height, width=width)


def load_film(film: Film, folder: Path) -> Frames:
    """Frames [T, H, W, 3] of a film.

    Raises:
        UsageError: if the file is missing, is no such picture, or lies elsewhere.
    """
    path = folder / film.path
    if not path.resolve().is_relative_to(folder.resolve()):  # who wrote the rows may be a stranger
        raise UsageError(f"`{film.path}` is not in `{folder}`: a suite names films of its own")
    strip = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if strip is None or strip.shape != (film.frames * film.height, film.width, 3):
        raise UsageError(f"`{folder / film.path}` is not the film that the suite names")
    frames = strip[..., ::-1].reshape(film.frames, film.height, film.width, 3)
    return np.ascontiguousarray(frames, np.uint8)


def write_json(path: Path, value: Any) -> None:
    """Write a dataclass as JSON, complete or not at all."""
    save_text(path, json.dumps(dataclasses.asdict(value), indent=1, ensure_ascii=False) + "\n")


def save_text(path: Path, text: str) -> None:
    """Write a text, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text, may_replace=True)


T = TypeVar("T")


def _read(kind: type[T], value: Any) -> T:
    """A dataclass of the JSON that `dataclasses.asdict` made of it; unknown keys are refused."""
    hints = typing.get_type_hints(kind)
    return kind(**{name: _value(hints[name], part) for name, part in value.items()})


def _value(hint: Any, value: Any) -> Any:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _value(inner[0], value)
    if origin is tuple:
        return tuple(_value(inner[0], part) for part in value)
    if dataclasses.is_dataclass(hint):
        return _read(typing.cast(type[Any], hint), value)
    return value
