"""What is restored to where: inputs as a user names them become pairs of input and output."""

import glob
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from instantvir_models.errors import UsageError, VideoOpenError, VideoWriteError
from instantvir_models.media.names import IMAGE_SUFFIXES, image_files, is_animated, is_picture
from instantvir_models.outputs.names import numbered, written_path
from instantvir_models.outputs.rule import refuse

logger = logging.getLogger(__name__)

WRITABLE_SUFFIXES = {".mp4", ".mkv", ".mov", ".webm"}
"""Containers that the output may share with the input; others become .mp4.

A picture stays one, of its kind or PNG."""

VIDEO_SUFFIXES = frozenset(
    {
        ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".m1v", ".m2t",
        ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mod", ".mov", ".mp4", ".mpeg", ".mpg",
        ".mpv", ".mts", ".mxf", ".nut", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".tod", ".ts", ".vob",
        ".webm", ".wmv", ".wtv", ".y4m",
    }
)  # fmt: skip
"""What is a video in a folder; a file that is named may be called as it likes."""

MOST_NAMED = 5
"""Of what is left out, in one line."""

_MADE_HERE = re.compile(r"(.+?)(?:\.restored|\.compare)+(?:\.\d+)?")
"""The stem of what a restoration writes, and in it what its input is called: that name, or its stem."""


@dataclass(frozen=True)
class Part:
    """A stretch of an input whose pictures have one size."""

    start_seconds: float | None
    """What to skip of the input."""
    duration_seconds: float | None
    """How much of it to take; None for all."""


@dataclass(frozen=True)
class Job:
    """One input and where its restoration goes; `-` is standard input or output."""

    source: str
    destination: str
    folder: Path | None = None
    """What the output goes into, to be made if it is not there; None for what has to exist."""
    may_replace: bool = False
    """Whether files that exist may be replaced."""
    part: Part | None = None
    """What of the input; None for what the plan says."""

    @property
    def is_done(self) -> bool:
        """Whether the output is there, which appears under its name only when it is whole."""
        target = written_path(self.destination)
        return target is not None and target.is_file()

    @property
    def is_outdated(self) -> bool:
        """Whether the output is there and the input has changed since."""
        source, target = Path(self.source), written_path(self.destination)
        if target is None or not self.is_done or not source.is_file():
            return False
        return source.stat().st_mtime > target.stat().st_mtime

    def makes_folder_of(self, path: Path) -> bool:
        """Whether `path` lies in the folder that is made for the output."""
        return self.folder is not None and self.folder.absolute() == path.parent.absolute()

    @property
    def comparison_paths(self) -> tuple[Path, Path]:
        """Video and sheet of a comparison: beside the output, or in the working folder for a pipe."""
        path = written_path(self.destination) or Path("restored")
        stem = path.stem.replace("%", "")
        return path.with_name(f"{stem}.compare.mp4"), path.with_name(f"{stem}.compare.png")


@dataclass(frozen=True)
class _Input:
    """An input as a user named it, and the folder it was found in where it was a folder that was."""

    path: str
    root: Path | None = None


def jobs_of(
    inputs: Sequence[str],
    output: str | None,
    *,
    recursive: bool = False,
    may_replace: bool = False,
) -> list[Job]:
    """One job per input; patterns of videos stand for all that match, a folder for its videos.

    Two inputs that would go to one place, such as `a.avi` and `a.mp4`, keep their whole names. What a
    restoration made of another input, as `*.mp4` finds it when it is given again, is left out, which the
    log says.

    Args:
        output: a file, an image pattern or `-`; a folder (with `/`, or existing); None puts each
            result beside its input.
        recursive: whether folders inside folders count, too; the output then has the same ones.
        may_replace: whether files that exist may be replaced.

    Raises:
        UsageError: if several inputs would go to one place, or a name is missing.
        VideoOpenError: if a folder holds no video.
    """
    folder = _folder(output, is_wanted=any(Path(text).is_dir() for text in inputs))
    found = _without_results(
        [one for text in inputs for one in _expanded(text, recursive=recursive, leave_out=folder)]
    )
    if len(found) > 1 and folder is None and output is not None:
        raise UsageError(
            f"{len(found)} inputs need a folder to go to",
            hint="give `-o FOLDER/`, with the slash",
        )
    short = [_job(one, output, folder, keeps_suffix=False) for one in found]
    times = Counter(job.destination for job in short)
    jobs = [
        replace(
            _job(one, output, folder, keeps_suffix=True) if times[job.destination] > 1 else job,
            may_replace=may_replace,
        )
        for one, job in zip(found, short, strict=True)
    ]
    taken: set[str] = set()
    for job in jobs:
        if job.destination in taken:
            raise UsageError(f"two inputs would be written to `{job.destination}`")
        taken.add(job.destination)
    return jobs


def in_parts(
    job: Job,
    cuts: Sequence[float],
    *,
    start_seconds: float | None,
    duration_seconds: float | None,
) -> list[Job]:
    """The job as one for each stretch between `cuts`, which go to `out.mp4`, `out.2.mp4` and so on.

    Args:
        cuts: seconds from the beginning of the input, rising.
        start_seconds, duration_seconds: what of the input is wanted.
    """
    target = written_path(job.destination)
    if not cuts or target is None:
        return [job]
    end = None if duration_seconds is None else (start_seconds or 0.0) + duration_seconds
    begins, ends = [start_seconds, *cuts], [*cuts, end]
    return [
        replace(
            job,
            destination=str(numbered(target, number)),
            part=Part(begin, None if end is None else end - (begin or 0.0)),
        )
        for number, (begin, end) in enumerate(zip(begins, ends, strict=True), 1)
    ]


def is_batch(inputs: Sequence[str], jobs: Sequence[Job]) -> bool:
    """Whether these are many, each of which is tried: a folder is, whatever it holds."""
    return len(jobs) > 1 or any(Path(text).is_dir() for text in inputs)


def input_files(source: str) -> list[Path]:
    """The files of an input that can be read again; none of a pipe, a device or an address."""
    files = image_files(source)
    files = [Path(source.removeprefix("file:"))] if files is None else files
    return files if source != "-" and all(path.is_file() for path in files) else []


def make_folder_of(job: Job) -> None:
    """Make the folder that the output goes into.

    Raises:
        VideoWriteError: if it cannot be made.
    """
    if job.folder is None:
        return
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VideoWriteError(
            f"cannot make the folder `{job.folder}`: {error.strerror}",
            hint="choose another with `-o`",
        ) from error


def refuse_to_overwrite(job: Job, *, with_comparison: bool, reads: Iterable[object] = ()) -> None:
    """UsageError if the output is read itself, or exists already and may not be replaced.

    Args:
        reads: what is read besides the input: masks, a reference.
    """
    target = written_path(job.destination)
    written = [] if target is None else [target]
    for path in [*written, *(job.comparison_paths if with_comparison else ())]:
        refuse(path, reads=(job.source, *reads), may_replace=job.may_replace)


def _expanded(text: str, *, recursive: bool, leave_out: Path | None) -> list[_Input]:
    """Files that `text` stands for; image patterns and addresses stay as they are."""
    if Path(text).is_dir():
        return _videos_in(Path(text), recursive=recursive, leave_out=leave_out)
    is_glob = any(c in text for c in "*?[") and not Path(text).exists()
    if not is_glob or is_picture(text):
        return [_Input(text)]
    found = sorted(glob.glob(text))
    if not found:
        raise UsageError(f"no file matches `{text}`")
    return [_Input(path) for path in found if not Path(path).is_dir()]


def _videos_in(folder: Path, *, recursive: bool, leave_out: Path | None) -> list[_Input]:
    """The videos of a folder in the order of their names, without what a restoration made of them."""
    found = [
        path
        for path in sorted(_files_in(folder, recursive=recursive, leave_out=leave_out))
        if path.suffix.lower() in VIDEO_SUFFIXES and not _MADE_HERE.fullmatch(path.stem)
    ]
    if not found:
        raise VideoOpenError(
            f"the directory `{folder}` holds no video",
            hint=f"for folders inside it give `--recursive`, for images '{folder}/*.png'",
        )
    return [_Input(str(path), folder) for path in found]


def _without_results(found: Sequence[_Input]) -> list[_Input]:
    """Those that were not made of another one of them, as far as names tell."""
    paths = [Path(one.path) for one in found]
    names = {(path.parent, name) for path in paths for name in (path.name, path.stem)}
    results = [path for path in paths if _origin_of(path) in names]
    if results:
        logger.info(
            "left out, made of other inputs: %s; give one alone to restore it again",
            _listed(results),
        )
    return [one for one, path in zip(found, paths, strict=True) if path not in results]


def _listed(paths: Sequence[Path]) -> str:
    named = ", ".join(f"`{path}`" for path in paths[:MOST_NAMED])
    return named if len(paths) <= MOST_NAMED else f"{named} and {len(paths) - MOST_NAMED} more"


def _origin_of(path: Path) -> tuple[Path, str] | None:
    """Folder and name of what a restoration of this name was made of, perhaps without its suffix; None of
    other names."""
    made = _MADE_HERE.fullmatch(path.stem)
    return None if made is None else (path.parent, made[1])


def _files_in(folder: Path, *, recursive: bool, leave_out: Path | None) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if recursive and not name.startswith(".") and not _is_same_place(place, name, leave_out)
        ]
        yield from (Path(place) / name for name in names if not name.startswith("."))


def _is_same_place(place: str, name: str, other: Path | None) -> bool:
    folder = Path(place) / name
    return other is not None and other.is_dir() and folder.samefile(other)


def _folder(output: str | None, *, is_wanted: bool) -> Path | None:
    """`output` where results go into it, not to it."""
    if output is None or output == "-":
        return None
    if output.endswith("/") or os.path.isdir(output) or (is_wanted and not Path(output).suffix):
        return Path(output)
    return None


def _job(one: _Input, output: str | None, folder: Path | None, *, keeps_suffix: bool) -> Job:
    below = folder
    if folder is not None and one.root is not None:
        below = folder / Path(one.path).parent.relative_to(one.root)
    return Job(one.path, _destination(one.path, output, below, keeps_suffix=keeps_suffix), below)


def _destination(
    source: str, output: str | None, folder: Path | None, *, keeps_suffix: bool
) -> str:
    if output is not None and folder is None:
        return output
    if source == "-":
        raise UsageError("standard input has no name to derive one from", hint="give `-o FILE`")
    path = Path(source)
    suffix = _kept_suffix(path)
    whole = path.name if keeps_suffix else path.stem
    stem = whole.replace("*", "").replace("%", "").strip("_-.") or "frames"
    name = f"{stem}.restored{suffix}"
    return str(folder / name if folder else path.with_name(name))


def _kept_suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if is_picture(path) and path.is_file() and not is_animated(path):
        return suffix if suffix in IMAGE_SUFFIXES else ".png"
    return suffix if suffix in WRITABLE_SUFFIXES else ".mp4"
