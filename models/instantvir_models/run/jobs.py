"""What is restored to where: inputs as a user names them become pairs of input and output."""

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from instantvir_models.errors import UsageError, VideoWriteError
from instantvir_models.media.names import IMAGE_SUFFIXES
from instantvir_models.outputs.names import written_path
from instantvir_models.outputs.rule import refuse

WRITABLE_SUFFIXES = {".mp4", ".mkv", ".mov", ".webm"}
"""Containers that the output may share with the input; others become .mp4."""


@dataclass(frozen=True)
class Job:
    """One input and where its restoration goes; `-` is standard input or output."""

    source: str
    destination: str
    folder: Path | None = None
    """What the output goes into, to be made if it is not there; None for what has to exist."""
    may_replace: bool = False
    """Whether files that exist may be replaced."""

    @property
    def comparison_paths(self) -> tuple[Path, Path]:
        """Video and sheet of a comparison: beside the output, or in the working folder for a pipe."""
        path = written_path(self.destination) or Path("restored")
        stem = path.stem.replace("%", "")
        return path.with_name(f"{stem}.compare.mp4"), path.with_name(f"{stem}.compare.png")


def jobs_of(inputs: Sequence[str], output: str | None, *, may_replace: bool = False) -> list[Job]:
    """One job per input; patterns of videos stand for all that match.

    Args:
        output: a file, an image pattern or `-`; a folder (with `/`, or existing); None puts each
            result beside its input.
        may_replace: whether files that exist may be replaced.

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
    jobs = [
        Job(source, _destination(source, output, folder), folder, may_replace) for source in sources
    ]
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


def refuse_to_overwrite(job: Job, *, with_comparison: bool, reads: Iterable[object] = ()) -> None:
    """UsageError if the output is read itself, or exists already and may not be replaced.

    Args:
        reads: what is read besides the input: masks, a reference.
    """
    target = written_path(job.destination)
    written = [] if target is None else [target]
    for path in [*written, *(job.comparison_paths if with_comparison else ())]:
        refuse(path, reads=(job.source, *reads), may_replace=job.may_replace)


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
