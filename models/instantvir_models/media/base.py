"""What every reader and every writer of video keeps, whatever the video is stored in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from instantvir_models.errors import VideoWriteError
from instantvir_models.media.damage import Damage
from instantvir_models.media.demux import Demuxer
from instantvir_models.media.fields import Fields
from instantvir_models.media.frame import Frame
from instantvir_models.media.info import VideoInfo
from instantvir_models.media.packets import CompanionPacket
from instantvir_models.media.timeline import Span


class VideoReader(ABC):
    """The frames of one video, each once, in presentation order; what `open_video` returns.

    Damaged data never raises: what decodes is delivered and `damage` tells what was not.

    Args:
        name: how messages call the source.
        info: what is known before the frames are read.
        span: the stretch of the source that the frames show, if it was trimmed.
        frames: those of the reader's whole life; a second iterator would lose what a codec holds.
    """

    demuxer: Demuxer | None = None
    """For writers: the open container and the waiting packets; None where there is no sound."""

    fields: Fields | None = None
    """How the rows of the pictures came about, where it was asked."""

    def __init__(
        self, name: str, *, info: VideoInfo, span: Span | None, frames: Iterator[Frame]
    ) -> None:
        self._name = name
        self.info = info
        self.span = span
        self._frames = frames

    def __iter__(self) -> Iterator[Frame]:
        """Goes on where the last iteration stopped."""
        return self._frames

    @property
    @abstractmethod
    def damage(self) -> Damage:
        """What could not be read so far; complete once the last frame was delivered."""

    def expected_frames(self) -> int | None:
        """How many frames there are in all, as far as is known by now; None where nothing tells."""
        return self.info.num_frames

    def again(self) -> Demuxer | None:
        """The same source opened once more, for what comes along with its pictures; None where nothing
        does."""
        return None

    @abstractmethod
    def end_input(self) -> None:
        """Read no more of an endless source; frames already read still come. From any thread."""

    @abstractmethod
    def close(self) -> None:
        """Release the source; reading further is an error."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        info = self.info
        size = f"{info.width}x{info.height}"
        return f"{type(self).__name__}({self._name}, {size}, {info.codec_name} {info.pix_fmt})"


class VideoWriter(ABC):
    """Takes frames; what they become appears under its name whole, when `close` has succeeded, or
    not at all. What `create_video` returns.

    As a context manager it closes on success and aborts on an exception.

    Args:
        name: how messages call the destination.
        width, height: of the frames to be written.
    """

    def __init__(self, name: str, *, width: int, height: int) -> None:
        if width < 1 or height < 1:
            raise ValueError(f"the size must be positive, got {width}x{height}")
        self._name = name
        self._width, self._height = width, height
        self._is_open = True

    @property
    def losses(self) -> tuple[str, ...]:
        """What of the source the output is not given, in words, as far as it is known now."""
        return ()

    @property
    def is_silent(self) -> bool:
        """Whether the source has sound, the container could hold some, and it gets none."""
        return False

    def write(self, frame: Frame) -> None:
        """Encode one frame, [height, width, 3] in uint8 or uint16, later than the one before."""
        assert self._is_open, "write after close"
        if frame.pixels.shape != (self._height, self._width, 3):
            raise ValueError(
                f"expected a frame of shape {[self._height, self._width, 3]}, "
                f"got {list(frame.pixels.shape)}"
            )
        with self._no_remains():
            self._write(frame)

    @abstractmethod
    def write_companions(self, packets: Iterable[CompanionPacket]) -> None:
        """Copy audio and subtitles, to a live output."""

    def close(self) -> None:
        """Finish the output and give it its name. Safe to call twice."""
        if not self._is_open:
            return
        with self._no_remains():
            self._finish()
        self._is_open = False

    def abort(self) -> None:
        """Give up; what was written to a file is removed. Safe to call at any time."""
        if not self._is_open:
            return
        self._is_open = False
        self._discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    @abstractmethod
    def _write(self, frame: Frame) -> None:
        """Encode one frame of the right size."""

    @abstractmethod
    def _finish(self) -> None:
        """Write what is left and move the output to its name."""

    @abstractmethod
    def _discard(self) -> None:
        """Remove what was written; called once, at any stage of opening or writing."""

    @abstractmethod
    def _sentence(self, error: BaseException) -> VideoWriteError | None:
        """What `error` says of the output; None for a bug or a caller's mistake."""

    @contextmanager
    def _no_remains(self) -> Iterator[None]:
        """Abort on any failure; those of FFmpeg and the system become VideoWriteError."""
        try:
            yield
        except BaseException as error:
            self.abort()
            sentence = self._sentence(error)
            if sentence is None:
                raise
            raise sentence from error
