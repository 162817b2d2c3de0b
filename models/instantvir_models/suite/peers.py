"""Outside programs as solvers: a command that reads one video and writes another."""

import shlex
import subprocess
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from instantvir_models.errors import UsageError, VideoOpenError
from instantvir_models.media import EncoderSettings, Frame, create_video, open_video
from instantvir_models.suite.clips import eight_bits
from instantvir_models.suite.results import Frames, SuiteSolver

PLACES = ("{in}", "{out}", "{task}")

SAID_LETTERS = 300
"""Of what a failed program said, the end."""


class PeerError(Exception):
    """A program failed; the text says how."""


@dataclass(frozen=True)
class Peer:
    """`NAME=command with {in} {out} {task}`."""

    name: str
    command: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> "Peer":
        """The peer that `text` describes.

        Raises:
            UsageError: if it has no name, or a command without `{in}` and `{out}`.
        """
        name, equals, command = text.partition("=")
        try:
            words = tuple(shlex.split(command))
        except ValueError as error:
            raise UsageError(f"the command of `--peer {name}` cannot be read: {error}") from error
        missing = [place for place in PLACES[:2] if not any(place in word for word in words)]
        if not name.strip() or not equals or missing:
            raise UsageError(
                f"`--peer {text}` is not NAME=COMMAND with {' and '.join(missing or PLACES[:2])}",
                hint="such as `--peer 'mine=restore.sh {in} {out} {task}'`",
            )
        return cls(name.strip(), words)

    @property
    def about(self) -> SuiteSolver:
        """How results show it."""
        return SuiteSolver(
            name=self.name,
            about="an outside program",
            family="peer",
            command=shlex.join(self.command),
        )

    def restored(
        self,
        y: Frames,
        task: str,
        size: tuple[int, int],
        frames_per_second: float,
        *,
        file: bytes | None = None,
    ) -> Frames:
        """What it makes of frames y, as frames of `size` (height, width).

        Args:
            file: the video that they are of, which it is given; without losses if there is none.

        Raises:
            PeerError: if it fails, or does not write a video of that size and length.
        """
        with tempfile.TemporaryDirectory(prefix="instantvir-peer-") as folder:
            given, made = Path(folder) / "in.mkv", Path(folder) / "out.mkv"
            if file is None:
                _write(y, given, frames_per_second)
            else:
                given.write_bytes(file)
            self._call({"{in}": str(given), "{out}": str(made), "{task}": task})
            return _read(made, (len(y), *size, 3))

    def _call(self, values: dict[str, str]) -> None:
        words = []
        for word in self.command:
            for place, value in values.items():
                word = word.replace(place, value)
            words.append(word)
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, errors="replace", check=False
            )
        except OSError as error:
            raise PeerError(f"`{words[0]}` cannot be started: {error.strerror}") from error
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()[-SAID_LETTERS:]
            raise PeerError(f"it ended with status {done.returncode}: {said or 'it said nothing'}")


def _write(frames: Frames, path: Path, frames_per_second: float) -> None:
    """Lossless."""
    height, width = frames.shape[1:3]
    with create_video(
        path, width=width, height=height, settings=EncoderSettings(codec="ffv1"),
        frame_rate=frames_per_second,
    ) as writer:  # fmt: skip
        for index, pixels in enumerate(frames):
            writer.write(
                Frame(pixels, index, 1 / Fraction(frames_per_second).limit_denominator(1001), 1)
            )


def _read(path: Path, shape: tuple[int, ...]) -> Frames:
    if not path.is_file():
        raise PeerError("it wrote no {out}")
    try:
        with open_video(path, other_streams=False) as reader:
            frames = [frame.pixels for frame in reader]
    except VideoOpenError as error:
        raise PeerError(f"what it wrote cannot be read: {error}") from error
    found = (len(frames), *(frames[0].shape if frames else (0, 0, 3)))
    if found != shape:
        sizes = [f"{s[0]} frames of {s[2]}x{s[1]}" for s in (found, shape)]
        raise PeerError(f"it wrote {sizes[0]}, not {sizes[1]}")
    return eight_bits(frames)
