"""Real clips, decoded once and memory-mapped."""

import hashlib
import logging
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from instantvir_models.errors import UsageError, VideoOpenError
from instantvir_models.media import open_video
from instantvir_models.outputs.claim import new_file

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".wmv",
     ".flv", ".nut", ".y4m", ".mxf", ".ogv", ".3gp"}
)  # fmt: skip
"""Of the files that are taken for videos."""

SHARD_SUFFIX, LIST_SUFFIX = ".tar", ".txt"

MOST_NAMED = 5
"""Files named in a message."""


@dataclass(frozen=True, eq=False)
class Clip:
    """A decoded clip, memory-mapped."""

    name: str
    frames: NDArray[np.uint8]
    """[T, H, W, 3] RGB."""


@dataclass(frozen=True)
class _Video:
    """A file, or a stretch of a shard."""

    path: Path
    name: str
    suffix: str
    first_byte: int = 0
    bytes: int | None = None
    """None for the whole file."""


def load_clips(source: Path, *, cache: Path) -> list[Clip]:
    """Every video of `source`, decoded once into `cache` and memory-mapped from there.

    Files that cannot be read are left out, counted and named.

    Args:
        source: a folder of videos and shards, at any depth; a shard (.tar, as WebDataset writes them:
            of its members the videos count); or a list (.txt) of such files, one a line, seen from
            the folder of the list.

    Raises:
        VideoOpenError: if no video is left.
    """
    videos, bad = _found(source)
    if not videos and not bad:
        raise VideoOpenError(f"no video in `{source}`", hint="pass a folder of clips")
    cache.mkdir(parents=True, exist_ok=True)
    _say_what_is_new(videos, cache)
    clips = []
    for video in videos:
        try:
            clips.append(Clip(video.name, _decoded(video, cache)))
        except VideoOpenError as error:
            bad.append(f"{_within(video.path, source)}{_member(video)}")
            logger.info("%s", error)
    count = len(clips) + len(bad)
    if bad:
        names = ", ".join(f"`{name}`" for name in bad[:MOST_NAMED])
        more = f" and {len(bad) - MOST_NAMED} more" if len(bad) > MOST_NAMED else ""
        logger.warning("left out %d of %d clips: %s%s", len(bad), count, names, more)
    if not clips:
        raise VideoOpenError(f"no video in `{source}` can be read")
    return clips


def _found(source: Path) -> tuple[list[_Video], list[str]]:
    """The videos of `source`, and names of shards that cannot be read."""
    videos: list[_Video] = []
    bad: list[str] = []
    for path in _files(source):
        suffix = path.suffix.lower()
        if suffix in VIDEO_SUFFIXES:
            videos.append(_Video(path, path.stem, suffix))
        elif suffix == SHARD_SUFFIX:
            try:
                videos += _members(path)
            except (OSError, tarfile.TarError) as error:
                bad.append(_within(path, source))
                logger.info("`%s`: %s", path, error)
    return videos, bad


def _files(source: Path) -> list[Path]:
    if not source.exists():
        raise VideoOpenError(f"there is no `{source}`", hint="pass a folder of clips")
    if source.suffix.lower() == LIST_SUFFIX and source.is_file():
        try:
            lines = source.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise VideoOpenError(f"the list `{source}` cannot be read: {error}") from error
        named = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        return [source.parent / name for name in named]
    return [source] if source.is_file() else sorted(source.rglob("*"))


def _members(shard: Path) -> list[_Video]:
    """Its videos, where they lie in it; the names of the folders they are in do not matter."""
    with tarfile.open(shard, "r:") as tar:
        inside = [(PurePosixPath(member.name), member) for member in tar if member.isfile()]
    return [
        _Video(shard, path.stem, path.suffix.lower(), member.offset_data, member.size)
        for path, member in inside
        if path.suffix.lower() in VIDEO_SUFFIXES
    ]


def _within(path: Path, source: Path) -> str:
    """How a message names a file."""
    is_inside = path != source and path.is_relative_to(source)
    return str(path.relative_to(source)) if is_inside else path.name


def _member(video: _Video) -> str:
    return "" if video.bytes is None else f"/{video.name}{video.suffix}"


def _say_what_is_new(videos: Sequence[_Video], cache: Path) -> None:
    """That takes a while, once."""
    count = sum(not _is_kept(video, cache) for video in videos)
    if count:
        logger.info("decoding %d video%s into `%s`", count, "s" * (count != 1), cache)


def _is_kept(video: _Video, cache: Path) -> bool:
    try:
        return _place(video, cache).exists()
    except VideoOpenError:  # told when it is its turn
        return True


def _decoded(video: _Video, cache: Path) -> NDArray[np.uint8]:
    stored = _place(video, cache)
    if not stored.exists():
        with _as_file(video, cache) as path, open_video(path, other_streams=False) as reader:
            frames = np.stack([frame.pixels for frame in reader])
        try:
            with new_file(stored, may_replace=True) as unfinished:
                np.save(unfinished, frames)
        except UsageError:  # another run stores it just now
            return frames  # type: ignore[return-value]
    return np.load(stored, mmap_mode="r")


def _place(video: _Video, cache: Path) -> Path:
    """Where it is kept, decoded, as it is now."""
    return cache / f"{video.name}-{_stamp(video)}.npy"


def _stamp(video: _Video) -> str:
    """Of a file as it is now."""
    try:
        told = f"{video.path.resolve()}:{video.path.stat().st_mtime_ns}"
    except OSError as error:
        raise VideoOpenError(f"`{video.path}` cannot be read: {error.strerror}") from error
    place = "" if video.bytes is None else f":{video.first_byte}:{video.bytes}"
    return hashlib.sha256(f"{told}{place}".encode()).hexdigest()[:12]


@contextmanager
def _as_file(video: _Video, scratch: Path) -> Iterator[Path]:
    """A file that holds the video alone."""
    if video.bytes is None:
        yield video.path
        return
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        path = Path(folder) / f"clip{video.suffix}"
        with video.path.open("rb") as shard:
            shard.seek(video.first_byte)
            path.write_bytes(shard.read(video.bytes))
        yield path


def split(
    clips: Sequence[Clip], validation_sources: Sequence[str]
) -> tuple[list[Clip], list[Clip]]:
    """(training, validation) clips, split by source so that no scene is on both sides."""
    held_out = [clip for clip in clips if clip.name.startswith(tuple(validation_sources))]
    return [clip for clip in clips if clip not in held_out], held_out
