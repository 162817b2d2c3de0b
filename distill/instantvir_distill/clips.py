"""Real clips, decoded once and memory-mapped."""

import hashlib
import logging
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from instantvir_models.errors import UsageError, VideoOpenError, VideoWriteError
from instantvir_models.media import open_video
from instantvir_models.outputs.claim import new_file, told
from instantvir_models.run.jobs import VIDEO_SUFFIXES

logger = logging.getLogger(__name__)

SHARD_SUFFIX, LIST_SUFFIX = ".tar", ".txt"

CLIP_SUFFIXES = VIDEO_SUFFIXES - {".gif"}
"""Of what a folder or a shard is searched for: of 256 colours, dithered, no picture is a clean one."""

MOST_NAMED = 5
"""Files named in a message."""

LONGEST_STEM = 100
"""Bytes of a clip's name that the name of its cache begins with."""


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

    Files that cannot be read are left out, counted and named. Of more than 8 bits the upper 8 stay.

    Args:
        source: a folder of videos and shards, at any depth; a shard (.tar, as WebDataset writes them:
            of its members the videos count); or a list (.txt) of such files, one a line, seen from
            the folder of the list. What is named may be called as it likes.

    Raises:
        VideoOpenError: if no video is left.
        VideoWriteError: if `cache` cannot be written, or has no room for them.
    """
    videos, bad = _found(source)
    if not videos and not bad:
        raise VideoOpenError(f"no video in `{source}`", hint="pass a folder of clips")
    with told(cache):
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
        logger.warning("left out %d of %d clips: %s", len(bad), count, named(bad))
    if not clips:
        raise VideoOpenError(
            f"no video in `{source}` can be read",
            hint="`instantvir info VIDEO` says of one what is wrong with it",
        )
    return clips


def named(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    first = ", ".join(f"`{name}`" for name in names[:MOST_NAMED])
    more = len(names) - MOST_NAMED
    return f"{first} and {more} more" if more > 0 else first


def _found(source: Path) -> tuple[list[_Video], list[str]]:
    """The videos of `source`, and names of shards and of what is no file that cannot be read."""
    videos: list[_Video] = []
    bad: list[str] = []
    for path in _files(source):
        suffix = path.suffix.lower()
        if not _is_file(path):  # a pipe would be waited for
            bad.append(_within(path, source))
        elif suffix != SHARD_SUFFIX:
            videos.append(_Video(path, path.stem, suffix))
        else:
            try:
                videos += _members(path)
            except (OSError, tarfile.TarError) as error:
                bad.append(_within(path, source))
                logger.info("`%s`: %s", path, error)
    return videos, bad


def _files(source: Path) -> list[Path]:
    """What is named, or what a folder holds that is called like a video or a shard."""
    if not source.exists():
        raise VideoOpenError(f"there is no `{source}`", hint="pass a folder of clips")
    if source.suffix.lower() == LIST_SUFFIX and source.is_file():
        try:
            lines = source.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise VideoOpenError(f"the list `{source}` cannot be read: {error}") from error
        named = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        return [source.parent / name for name in named]
    if not source.is_dir():
        return [source]
    return [
        path
        for path in sorted(source.rglob("*"))
        if path.suffix.lower() in {*CLIP_SUFFIXES, SHARD_SUFFIX} and not _is_folder(path)
    ]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # in a folder that may not be looked into
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # of a folder that may not be looked into
        return False


def _members(shard: Path) -> list[_Video]:
    """Its videos, where they lie in it; the names of the folders they are in do not matter."""
    with tarfile.open(shard, "r:") as tar:
        inside = [(PurePosixPath(member.name), member) for member in tar if member.isfile()]
    return [
        _Video(shard, path.stem, path.suffix.lower(), member.offset_data, member.size)
        for path, member in inside
        if path.suffix.lower() in CLIP_SUFFIXES
    ]


def _within(path: Path, source: Path) -> str:
    """How a message names a file."""
    is_inside = path != source and path.is_relative_to(source)
    return str(path.relative_to(source)) if is_inside else path.name


def _member(video: _Video) -> str:
    return "" if video.bytes is None else f"/{video.name}{video.suffix}"


def _say_what_is_new(videos: Sequence[_Video], cache: Path) -> None:
    """That takes a while, once, and room.

    Raises:
        VideoWriteError: if there is not enough of it.
    """
    new = {video: _decoded_bytes(video) for video in videos if not _is_kept(video, cache)}
    if not new:
        return
    needed = sum(new.values())
    what = f"{len(new)} video{'s' * (len(new) != 1)}"
    logger.info("decoding %s into `%s`, about %d MB", what, cache, max(1, round(needed / 1e6)))
    free = shutil.disk_usage(cache).free
    if needed > free:
        raise VideoWriteError(
            f"{what} take about {needed / 1e9:.0f} GB decoded, by what they say of themselves `"
            f"{max(new, key=new.__getitem__).path.name}` the most, and there are {free / 1e9:.0f} GB free "
            f"for `{cache}`",
            hint="give fewer, shorter or smaller ones; a list of some is a .txt, one a line",
        )


def _decoded_bytes(video: _Video) -> int:
    """About; of members of a shard, and of what does not tell its length, nothing is known."""
    if video.bytes is not None:
        return 0
    try:
        with open_video(video.path, other_streams=False) as reader:
            info = reader.info
    except VideoOpenError:  # told when it is its turn
        return 0
    return 3 * info.height * info.width * (info.num_frames or 0)


def _is_kept(video: _Video, cache: Path) -> bool:
    try:
        return _kept(_place(video, cache)) is not None
    except VideoOpenError:  # told when it is its turn
        return True


def _decoded(video: _Video, cache: Path) -> NDArray[np.uint8]:
    stored = _place(video, cache)
    kept = _kept(stored)
    if kept is not None:
        return kept
    try:
        with new_file(stored, may_replace=True) as unfinished:
            _write_frames(_pictures(video, cache), unfinished)
    except UsageError:  # another run stores it just now
        return np.stack(list(_pictures(video, cache)))
    return np.load(stored, mmap_mode="r")


def _kept(stored: Path) -> NDArray[np.uint8] | None:
    """What is kept there; None if that is nothing, or damaged, or of more bits, as it was kept once."""
    try:
        frames = np.load(stored, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return frames if frames.dtype == np.uint8 else None


def _pictures(video: _Video, scratch: Path) -> Iterator[NDArray[np.uint8]]:
    """Its frames [H, W, 3], one after the other."""
    with _as_file(video, scratch) as path, open_video(path, other_streams=False) as reader:
        for frame in reader:
            yield _in_8_bits(frame.pixels)


def _in_8_bits(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels  # type: ignore[return-value]
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _write_frames(frames: Iterable[NDArray[np.uint8]], path: Path) -> None:
    """A file as `np.save` writes it, of a clip that need not fit into memory.

    Raises:
        VideoOpenError: if there is no frame.
    """
    count = 0
    with path.open("xb") as file:
        for frame in frames:
            if not count:
                _write_header(file, 1, frame)  # as long as the last one, which takes its place
            file.write(np.ascontiguousarray(frame).data)
            count += 1
        if not count:
            raise VideoOpenError("there is no picture in it")
        file.seek(0)
        _write_header(file, count, frame)


def _write_header(file: BinaryIO, count: int, frame: NDArray[np.uint8]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *frame.shape)}
    np.lib.format.write_array_header_1_0(file, header)


def _place(video: _Video, cache: Path) -> Path:
    """Where it is kept, decoded, as it is now."""
    stem = os.fsencode(video.name)[:LONGEST_STEM].decode("utf-8", "ignore")
    return cache / f"{stem}-{_stamp(video)}.npy"


def _stamp(video: _Video) -> str:
    """Of a file as it is now."""
    try:
        said = f"{video.path.resolve()}:{video.path.stat().st_mtime_ns}"
    except OSError as error:
        raise VideoOpenError(f"`{video.path}` cannot be read: {error.strerror}") from error
    place = "" if video.bytes is None else f":{video.first_byte}:{video.bytes}"
    return hashlib.sha256(os.fsencode(f"{said}{place}")).hexdigest()[:12]


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
