"""What is restored to where: inputs as a user names them become pairs of input and output."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from instantvir_models.errors import UsageError, VideoWriteError
from instantvir_models.media.names import IMAGE_SUFFIXES

WRITABLE_SUFFIXES = {".mp4", ".mkv", ".mov", ".webm"}
"""Containers that the output may share with the input; others become .mp4."""


@dataclass(frozen=True)
class Job:
    """One input and where its restoration goes; `-` is standard input or output."""

    source: str
    destination: str
    folder: Path | None = None
    """What the output goes into, to be made if it is not there; None for what has to exist."""

    @property
    def comparison_paths(self) -> tuple[Path, Path]:
        """Video and sheet of a comparison: beside the output, or in the working folder for a pipe."""
        path = Path("restored" if self.destination == "-" else self.destination)
        stem = path.stem.replace("%", "")
        return path.with_name(f"{stem}.compare.mp4"), path.with_name(f"{stem}.compare.png")


def jobs_of(inputs: Sequence[str], output: str | None) -> list[Job]:
    """One job per input; patterns of videos stand for all that match.

    Args:
        output: a file, an image pattern or `-`; a folder (with `/`, or existing); None puts each
            result beside its input.

    Raises:
        UsageError: if several inputs would go to one place, or a name is missing.
    """
    sources = [path for text in inputs for path in _expanded(text)]
    folder = _folder(output)
    if len(sources) > 1 and folder is None:
        raise UsageError(
            f"{len(sources)} inputs need a folder to go to",
            hint="give `-o FOLDER/`, with the slash",
        )
    jobs = [Job(source, _destination(source, output, folder), folder) for source in sources]
    taken: set[str] = set()
    for job in jobs:
        if job.destination in taken:
            raise UsageError(f"two inputs would be written to `{job.destination}`")
        taken.add(job.destination)
    return jobs


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


def refuse_to_overwrite(job: Job, *, with_comparison: bool, may_overwrite: bool) -> None:
    """UsageError if the output is the input itself, or exists already and may not be replaced."""
    if job.destination == "-":
        return
    target = Path(job.destination)
    if job.source != "-" and _is_same_file(target, Path(job.source)):
        raise UsageError(f"`{target}` is the input itself", hint="choose another name with `-o`")
    written = [target, *(job.comparison_paths if with_comparison else ())]
    for path in written:
        if path.exists() and not path.is_dir() and not may_overwrite:
            raise UsageError(f"`{path}` exists already", hint="give `--overwrite`, or another `-o`")


def _is_same_file(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _expanded(text: str) -> list[str]:
    """Files that `text` stands for; image patterns and addresses stay as they are."""
    is_glob = any(c in text for c in "*?[") and not Path(text).exists()
    if not is_glob or Path(text).suffix.lower() in IMAGE_SUFFIXES:
        return [text]
    found = sorted(glob.glob(text))
    if not found:
        raise UsageError(f"no file matches `{text}`")
    return found


def _folder(output: str | None) -> Path | None:
    """`output` where results go into it, not to it."""
    if output is not None and (output.endswith("/") or Path(output).is_dir()):
        return Path(output)
    return None


def _destination(source: str, output: str | None, folder: Path | None) -> str:
    if output is not None and folder is None:
        return output
    if source == "-":
        raise UsageError("standard input has no name to derive one from", hint="give `-o FILE`")
    path = Path(source)
    suffix = path.suffix.lower() if path.suffix.lower() in WRITABLE_SUFFIXES else ".mp4"
    stem = path.stem.replace("*", "").replace("%", "").strip("_-.") or "frames"
    name = f"{stem}.restored{suffix}"
    return str(folder / name if folder else path.with_name(name))
