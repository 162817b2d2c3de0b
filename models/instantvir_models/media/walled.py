"""A video that another process decodes, behind walls: what goes wrong there costs this video alone.

The child (`walled_child`) is told what is wanted and hands on pictures as plain numbers in NUT or
Matroska, and this process opens nothing else. It may read the one input, and neither write, nor reach
a network, nor start a program, as far as the system has such walls (`walls`).
"""

from __future__ import annotations

import base64
import binascii
import importlib.util
import json
import logging
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from instantvir_models.errors import UsageError, VideoOpenError
from instantvir_models.media.coding import FrameCoding
from instantvir_models.media.container_reader import ContainerReader
from instantvir_models.media.damage import Damage
from instantvir_models.media.demux import Demuxer
from instantvir_models.media.fields import FieldChoice, Fields
from instantvir_models.media.frame import Frame
from instantvir_models.media.info import VideoInfo
from instantvir_models.media.names import source_name
from instantvir_models.media.plain import fraction_in, from_plain, integer_in, to_plain
from instantvir_models.media.reach import InputRules
from instantvir_models.media.source import ContainerSource
from instantvir_models.media.timeline import Trim
from instantvir_models.media.walled_child import CPU_SECONDS, ENCODERS, Wanted
from instantvir_models.outputs.names import scheme_of

logger = logging.getLogger(__name__)

MEMORY_BYTES = 3 * 2**30
"""Of addresses, for decoding: libraries and stacks of threads take 1 GiB of them; 8K takes 1 more."""

LONGEST_SECONDS = 60.0
"""Without a byte from a child that decodes."""

LONGEST_PICTURE_SECONDS = 180.0
"""Of waiting for one picture, whatever comes meanwhile: a byte now and then is no picture."""

_PROGRAM = (
    "import sys; sys.path[:0] = sys.argv.pop(1).split('\\n');"
    "from instantvir_models.media.walled_child import run; run(*sys.argv[1:])"
)
_IMPORTED = ("instantvir_models", "av", "numpy", "cv2", "pyseccomp")
_TOLD = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "PYTHONHOME")
"""Of the environment, for tokens are in it, too."""
_MOST_WAITING_BYTES = 2**28
"""Of lines that nobody has asked for yet: a muxer may wait 10 s for sound before it hands pictures on."""
_ENDINGS = frozenset({b"damage", b"error", b"memory", b"bug"})
"""What the last line begins with."""
_LONGEST_LINE = 2**24
"""Also a bit for each of the pixels that are allowed, which is what says most of a picture."""
_LONGEST_TEXT = 2000
_PIPE_BYTES = 2**20
_F_SETPIPE_SZ = 1031


class WalledReader(ContainerReader):
    """The frames of a video that a child decodes; `open_video` with `InputRules(sandbox=True)`.

    Raises:
        VideoOpenError: as other readers, and if the child crashes, takes too much memory or too long.
    """

    def __init__(
        self,
        source: str | Path | Sequence[Path],
        *,
        trim: Trim,
        frame_rate: Fraction | None,
        threads: int | None,
        other_streams: bool,
        fields: FieldChoice | None,
        rules: InputRules,
        program: str = _PROGRAM,
    ) -> None:
        is_sequence = not isinstance(source, (str, Path))
        paths = [source] if isinstance(source, (str, Path)) else source
        wanted = Wanted(
            source=tuple(_readable(path) for path in paths),
            is_sequence=is_sequence,
            start_seconds=trim.start_seconds,
            duration_seconds=trim.duration_seconds,
            frame_rate=frame_rate,
            threads=threads,
            other_streams=other_streams,
            fields=None if fields is None else (fields.fields, fields.each_field),
            max_pixels=rules.max_pixels,
            memory_bytes=MEMORY_BYTES,
        )
        self._new_child = partial(_Child, source_name(source), wanted, program)
        self._others: list[_Child] = []
        self._child = self._new_child()
        try:
            told = self._child.next_words("info")
            info = self._child.believed(VideoInfo, told.get("info"))
            super().__init__(
                _handed_on(self._child, told, rules),
                trim=Trim.of(None, None),
                threads=1,
                other_streams=other_streams,
            )
            if (info.width, info.height) != (self.info.width, self.info.height):
                raise self._child.nonsense()
            self.info = info
            if told.get("fields") is not None:
                self.fields = self._child.believed(Fields, told["fields"])
            self._frames = self._told(self._frames)
        except BaseException:
            self._child.end()
            raise

    @property
    def damage(self) -> Damage:
        """What the child said when it ended; until then nothing is known."""
        said = self._child.ending
        if said is None or "damage" not in said:
            return Damage()
        return self._child.believed(Damage, said["damage"])

    def again(self) -> Demuxer:
        """What another child hands on of the same source, from its beginning; of its pictures nothing is
        decoded here."""
        child = self._new_child()
        self._others.append(child)
        source = _handed_on(child, child.next_words("info"), self._opening.source.rules)
        threading.Thread(target=child.let_words_pass, daemon=True).start()
        return replace(self._opening, source=source).demuxer(source.open())

    def end_input(self) -> None:
        """Read no more."""
        self._child.end()

    def close(self) -> None:
        """Let the child go."""
        if hasattr(self, "demuxer"):
            super().close()
        for child in (self._child, *self._others):
            child.end()

    def _told(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """The frames, each with what the child said of it."""
        for frame in frames:
            said = self._child.next_words("frame")["frame"]
            yield self._child.made(lambda frame=frame, said=said: _with_words(frame, said))
        self._child.check_end()
        losses = (self._child.ending or {}).get("losses", [])
        for loss in self._child.believed(tuple[str, ...], losses):
            logger.warning("not carried through the sandbox: %s", loss[:200])


def _handed_on(child: _Child, told: dict[str, Any], rules: InputRules) -> ContainerSource:
    """What a child hands on, which said so of it."""
    encoder = child.made(lambda: ENCODERS[told["container"]])
    return ContainerSource(
        child,  # type: ignore[arg-type]
        input_format=told["container"],
        input_options={"probesize": str(_PIPE_BYTES)},
        rules=rules,
        codec=encoder.codec,
    )


def _with_words(frame: Frame, said: dict[str, Any]) -> Frame:
    coding = None
    if said["coding"] is not None:
        name, kind, num_bytes, steps = said["coding"]
        numbers = None if steps is None else np.frombuffer(_unpacked(steps), "<f4")
        coding = FrameCoding(
            str(name), str(kind), None if num_bytes is None else integer_in(num_bytes), numbers
        )
    guessed = None
    if said["guessed"] is not None:
        height, width = frame.pixels.shape[:2]
        bits = np.unpackbits(
            np.frombuffer(_unpacked(said["guessed"]), np.uint8), count=height * width
        )
        guessed = bits.reshape(height, width) > 0
    return replace(
        frame,
        pts=integer_in(said["pts"]),
        time_base=fraction_in(said["time_base"]),
        duration=integer_in(said["duration"]),
        coding=coding,
        guessed=guessed,
    )


def _unpacked(text: object) -> bytes:
    return base64.b64decode(str(text), validate=True)


def _readable(path: str | Path) -> str:
    """The input as the child is told of it; UsageError for what needs a network."""
    text = str(path)
    scheme = scheme_of(text)
    if scheme == "file":
        text = text.removeprefix("file:")
    elif scheme is not None:
        raise UsageError(
            f"`--sandbox` decodes files, and `{text}` is none", hint="download it first"
        )
    return text if text == "-" else os.path.abspath(text)


class _Child:
    """The process, its two pipes, and how it ended. Reads as a file does."""

    def __init__(self, name: str, wanted: Wanted, program: str) -> None:
        if os.name != "posix":
            raise UsageError("`--sandbox` needs Linux or macOS")
        self._source = name
        self.name = name.strip("`")
        """As file objects have one."""
        self.ending: dict[str, Any] | None = None
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._longest_line = max(_LONGEST_LINE, wanted.max_pixels // 4)
        self._waiting_bytes = 0
        self._is_taken = threading.Condition()
        self._waited_seconds = 0.0
        self._has_ended = threading.Event()
        self._pictures, pictures = os.pipe()
        words_from, words = os.pipe()
        _widen(self._pictures)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program, "\n".join(_import_folders()),
                 json.dumps(to_plain(wanted)), str(pictures), str(words)],
                pass_fds=(pictures, words),
                stdin=None if "-" in wanted.source else subprocess.DEVNULL,
                env={name: value for name, value in os.environ.items() if name in _TOLD},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except BaseException:
            os.close(self._pictures)
            os.close(words_from)
            raise
        finally:
            os.close(pictures)
            os.close(words)
        self._listener = threading.Thread(target=self._listen, args=(words_from,), daemon=True)
        self._listener.start()

    def read(self, size: int) -> bytes:
        """Up to `size` bytes of the pictures; none at the end."""
        if self._has_ended.is_set() or self._pictures < 0:
            return b""
        began = time.monotonic()
        waiting = select.poll()
        waiting.register(self._pictures, select.POLLIN)
        left_seconds = min(LONGEST_SECONDS, LONGEST_PICTURE_SECONDS - self._waited_seconds)
        if left_seconds <= 0 or not waiting.poll(1000 * left_seconds):
            self.end()
            raise self._late()
        self._waited_seconds += time.monotonic() - began
        data = os.read(self._pictures, size)
        if not data:
            self.check_end()
        return data

    def next_words(self, about: str) -> dict[str, Any]:
        """What the child says next of this; VideoOpenError if it ended, or says something else."""
        until = time.monotonic() + LONGEST_SECONDS
        while time.monotonic() < until:
            is_over = not self._listener.is_alive()
            with suppress(queue.Empty):
                line = self._next_line()
                said = self.made(lambda line=line: _read(line))
                if about not in said:
                    raise self.nonsense()
                return said
            if is_over:
                self.check_end()
                raise self.nonsense()
        self.end()
        raise self._late()

    def let_words_pass(self) -> None:
        """Take what the child says of its pictures until it ends, for it waits for that. That it is late or
        ended badly, who reads them finds out."""
        while not self._has_ended.is_set():
            is_over = not self._listener.is_alive()
            try:
                self._next_line()
            except queue.Empty:
                if is_over:
                    return

    def _next_line(self) -> bytes:
        """What the child says next; queue.Empty if that is nothing yet."""
        line = self._lines.get(timeout=0.1)
        with self._is_taken:
            self._waiting_bytes -= len(line)
            self._is_taken.notify()
        self._waited_seconds = 0
        return line

    def check_end(self) -> None:
        """VideoOpenError unless the child has said how it ended, and that it was well."""
        self._listener.join(LONGEST_SECONDS)
        if self.ending is not None:
            self._raise(self.ending)
            return
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code = self._process.returncode
        self.end()
        if code is not None and code < 0:
            raise self._died(-code)
        raise self.nonsense()

    def end(self) -> None:
        """Let the process end, and wait for it. Safe to call twice."""
        self._has_ended.set()
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        if self._pictures >= 0:
            os.close(self._pictures)
            self._pictures = -1

    def believed(self, kind: type[Any], value: Any) -> Any:
        """What was said, as this type; VideoOpenError if it is something else."""
        return self.made(lambda: from_plain(kind, value))

    def made(self, make: Any) -> Any:
        """What `make` makes of what was said; VideoOpenError if that is nonsense."""
        try:
            return make()
        except _NONSENSE as error:
            raise self.nonsense() from error

    def nonsense(self) -> VideoOpenError:
        """That a decoder behind walls says what no decoder says."""
        return VideoOpenError(
            f"{self._source} made the decoder in the sandbox say nonsense",
            hint="the file is damaged or hostile; do not decode it without `--sandbox`",
        )

    def _late(self, how_long: str = "") -> VideoOpenError:
        how_long = how_long or f"{max(LONGEST_SECONDS, self._waited_seconds):.0f} s"
        return VideoOpenError(
            f"{self._source} kept the decoder in the sandbox busy for {how_long} without a picture, and "
            "it was ended",
            hint="the file is damaged or hostile; do not decode it without `--sandbox`",
        )

    def _died(self, number: int) -> VideoOpenError:
        if number == getattr(signal, "SIGXCPU", None):
            return self._late(f"{CPU_SECONDS} s of processor time")
        with suppress(ValueError):
            return VideoOpenError(
                f"{self._source} made the decoder in the sandbox crash "
                f"({signal.Signals(number).name})",
                hint="the file is damaged or hostile; do not decode it without `--sandbox`",
            )
        return self.nonsense()

    def _raise(self, said: dict[str, Any]) -> None:
        """What the child says of an error, raised."""
        if "error" in said:
            hint = said.get("hint")
            raise VideoOpenError(
                str(said["error"])[:_LONGEST_TEXT],
                hint=None if hint is None else str(hint)[:_LONGEST_TEXT],
            )
        if "memory" in said:
            raise VideoOpenError(
                f"{self._source} needs more memory than the {MEMORY_BYTES >> 20} MiB that the sandbox has",
                hint="the file is damaged or hostile, or larger than 8K",
            )
        if "bug" in said:
            told = "".join(a if a.isprintable() or a == "\n" else "?" for a in str(said["bug"]))
            raise RuntimeError(f"the decoder in the sandbox failed:\n{told[-2 * _LONGEST_TEXT :]}")

    def _listen(self, words: int) -> None:
        """Take the lines in, in a thread of its own."""
        with os.fdopen(words, "rb") as lines:
            while line := lines.readline(self._longest_line):
                about = line[2 : line.find(b'"', 2)]
                if self._has_ended.is_set():
                    return
                if about not in _ENDINGS and about != b"walls":
                    self._put(line)
                    continue
                try:
                    said = _read(line)
                    walls = from_plain(tuple[str, ...], said.get("walls", []))
                except _NONSENSE:
                    return
                if walls:
                    _say_walls(", ".join(walls)[:_LONGEST_TEXT])
                else:
                    self.ending = said

    def _put(self, line: bytes) -> None:
        with self._is_taken:
            while self._waiting_bytes > _MOST_WAITING_BYTES and not self._has_ended.is_set():
                self._is_taken.wait(0.5)
            self._waiting_bytes += len(line)
        self._lines.put(line)


_NONSENSE = (ValueError, TypeError, KeyError, OverflowError, RecursionError, binascii.Error)


def _read(line: bytes) -> dict[str, Any]:
    """What a line says; ValueError or RecursionError if it is no line of ours."""
    said = json.loads(line)
    if not isinstance(said, dict):
        raise ValueError("not an object")
    return said


@cache
def _say_walls(walls: str) -> None:
    """Once, though each video and each look at one has a child of its own."""
    logger.info("walls of the sandbox: %s", walls)


def _import_folders() -> list[str]:
    """Where a child finds what it imports; not all of this program's path, for it may read these."""
    found = (importlib.util.find_spec(name) for name in _IMPORTED)
    origins = [Path(spec.origin) for spec in found if spec is not None and spec.origin is not None]
    folders = (o.parents[1] if o.name.startswith("__init__.") else o.parent for o in origins)
    return list(dict.fromkeys(str(folder.absolute()) for folder in folders))


def _widen(pipe: int) -> None:
    """Let a pipe hold a picture or a part of one."""
    with suppress(ImportError, OSError):
        import fcntl

        fcntl.fcntl(pipe, _F_SETPIPE_SZ, _PIPE_BYTES)
