"""From a typed name to the file that it stands for, whatever prefix, link or path leads there."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from instantvir_models.errors import UsageError

LOCAL_SCHEMES = frozenset({"file", "pipe", "fd", "concat", "subfile", "data", "cache", "async"})
"""FFmpeg's names in front of things on this machine; they need no `//`."""

IMAGE_NUMBER = re.compile(r"%0?\d*d")
"""The place of the number in a pattern such as `out_%05d.png`."""

_PIPES = frozenset({"pipe", "fd"})
_WRAPPERS = frozenset({"file", "cache", "async", "crypto", "subfile"})
_NETWORKS = frozenset(
    {"rtmp", "rtmpe", "rtmps", "rtmpt", "rtmpte", "rtmpts", "rtsp", "rtsps", "rtp", "srtp", "srt",
     "rist", "udp", "udplite", "tcp", "tls", "http", "https", "ftp", "sftp", "icecast", "unix",
     "zmq"}
)  # fmt: skip


def scheme_of(text: str) -> str | None:
    """The lower-case scheme of something like `rtsp://camera/1` or `file:x.mp4`; None for a path.

    One letter is a drive of Windows, not a scheme, and `Show: part 1.mp4` is a name: what follows a
    scheme is `//`, unless it is one of those of local things. A file of that name is a path.
    """
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):(//)?", text)
    if match is None or not (match[2] or match[1].lower() in LOCAL_SCHEMES):
        return None
    return None if _is_there(text) else match[1].lower()


def _is_there(text: str) -> bool:
    try:
        return os.path.lexists(text)
    except ValueError:
        return False


def written_path(destination: object) -> Path | None:
    """The file that is to be made; None for a pipe, a network address, or a file object.

    A `Path` is what it says. Of a text `file:` is taken off, unless something of the whole name is
    there.

    Raises:
        UsageError: for a name that leads to a file by other ways.
    """
    text = str(destination)
    if not isinstance(destination, str | Path) or text == "-":
        return None
    scheme = scheme_of(text) if isinstance(destination, str) else None
    if scheme is None or scheme == "file":
        path = Path(text if scheme is None else _behind_scheme(text))
        return None if _is_descriptor(path) else path
    if scheme in _PIPES or scheme in _NETWORKS:
        return None
    raise UsageError(
        f"nothing is written through `{scheme}:`, as `{destination}` asks for",
        hint="name the file itself, `-`, or an address such as `rtmp://server/live/key`",
    )


def _is_descriptor(path: Path) -> bool:
    """Whether it is something like `/dev/stdout`: what is behind it is not ours to replace."""
    folder = str(path.parent)
    return folder in ("/dev/fd", "/proc/self/fd") or str(path) in ("/dev/stdout", "/dev/stderr")


def _behind_scheme(text: str) -> str:
    return text.partition(":")[2]


def read_paths(source: object) -> tuple[Path, ...]:
    """The files that a typed source reads, as far as its name says, under every prefix it has.

    Args:
        source: a path, a text, a list of them; anything else reads no file of which the name tells.
    """
    if isinstance(source, Path):
        return (source,)
    if isinstance(source, str):
        return tuple(_unwrapped(source))
    if isinstance(source, Iterable) and not hasattr(source, "read"):
        return tuple(path for each in source for path in read_paths(each))
    return ()


def _unwrapped(text: str) -> Iterator[Path]:
    scheme = scheme_of(text)
    if text == "-":
        return
    if scheme is None:
        yield from _files_of(text)
    elif scheme in _WRAPPERS:
        yield from _unwrapped(_behind_scheme(text))
    elif scheme == "concat":
        for part in _behind_scheme(text).split("|"):
            yield from _unwrapped(part)


def _files_of(text: str) -> list[Path]:
    """One path, or those that a pattern stands for."""
    path = Path(text)
    if _is_there(text):
        return [path]
    if IMAGE_NUMBER.search(path.name):
        return pictures_of(path)
    return [Path(name) for name in glob.glob(text)] if glob.has_magic(text) else [path]


def identity_of(path: Path) -> tuple[int, int] | None:
    """Equal for all names of one file, by any path and any link; None if nothing is there."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def identities_read(sources: Sequence[object]) -> frozenset[tuple[int, int]]:
    """Those of all files that typed sources read; what was redirected counts for `-`."""
    found = {identity_of(path) for source in sources for path in read_paths(source)}
    if "-" in map(str, sources):
        with suppress(OSError, ValueError):
            status = os.fstat(0)
            found.add((status.st_dev, status.st_ino))
    return frozenset(identity for identity in found if identity is not None)


def pictures_of(pattern: Path) -> list[Path]:
    """The files that are there under names of a pattern such as `out_%05d.png`, in their order."""
    before, after = IMAGE_NUMBER.split(pattern.name, maxsplit=1)
    number = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))
    try:
        names = os.listdir(pattern.parent)
    except OSError:
        return []
    found = sorted((int(match[1]), match[0]) for name in names if (match := number.fullmatch(name)))
    return [pattern.parent / name for _, name in found]


def numbered(path: Path, number: int) -> Path:
    """`live.mkv`, `live.2.mkv`, `live.3.mkv` and so on: a file that goes on in the next."""
    return path if number == 1 else path.with_name(f"{path.stem}.{number}{path.suffix}")
