"""A file for each stretch of a stream that stops and starts again."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction

from instantvir_models.live.sink import LiveSink
from instantvir_models.media import CompanionPacket, Frame


class FileOfEachStretch:
    """Writes to one file, and after a pause to the next, which begins at time 0 again.

    Args:
        open_file: opens the file of a number; the first one, 1, at once.
        pause_seconds: what lasts longer is a pause.
    """

    def __init__(self, open_file: Callable[[int], LiveSink], *, pause_seconds: float) -> None:
        self._open_file, self._pause_seconds = open_file, Fraction(pause_seconds)
        self._number, self._file = 1, open_file(1)
        self._begin_seconds = Fraction(0)
        self._end_seconds: Fraction | None = None
        self._held: list[CompanionPacket] = []

    def write(self, frame: Frame) -> None:
        """Take one frame, later than the one before."""
        shown = frame.pts * frame.time_base
        if self._is_next(shown):
            self._go_on(shown)
        self._end_seconds = shown + frame.duration * frame.time_base
        begin = round(self._begin_seconds / frame.time_base)
        self._write_held()
        self._file.write(replace(frame, pts=frame.pts - begin))

    def write_companions(self, packets: Iterable[CompanionPacket]) -> None:
        """Take audio and subtitle packets; those behind a pause wait for its first frame."""
        self._held += packets
        if self._end_seconds is not None:
            self._write_held()

    def close(self) -> None:
        """Finish the last file; sound behind a pause that no picture followed has no file."""
        self._file.close()

    def abort(self) -> None:
        """Give up the last file."""
        self._file.abort()

    def _is_next(self, seconds: Fraction) -> bool:
        end = self._end_seconds
        return end is not None and seconds - end > self._pause_seconds

    def _go_on(self, shown: Fraction) -> None:
        self._file.close()
        self._number += 1
        self._begin_seconds = min([shown, *map(_seconds_of, self._held)])
        self._file = self._open_file(self._number)

    def _write_held(self) -> None:
        given = [(packet, self._is_next(_seconds_of(packet))) for packet in self._held]
        self._held = [packet for packet, is_next in given if is_next]
        self._file.write_companions(
            [packet.delayed(-self._begin_seconds) for packet, is_next in given if not is_next]
        )


def _seconds_of(packet: CompanionPacket) -> Fraction:
    time = packet.pts if packet.pts is not None else packet.dts
    return (time or 0) * packet.time_base
