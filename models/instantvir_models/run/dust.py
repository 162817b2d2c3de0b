"""Frames told which of their pixels are dust or a scratch."""

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from instantvir_models.diagnosis.dust import Between, Seen, spots_in
from instantvir_models.diagnosis.scratches import scratches_in
from instantvir_models.media import Frame


def without_dust(frames: Iterable[Frame]) -> Iterator[Frame]:
    """The frames, told which pixels are dust or a scratch, as `DustFinder` tells them."""
    finder = DustFinder()
    for frame in frames:
        yield from finder.push(frame)
    yield from finder.flush()


class DustFinder:
    """Tells frames, one after the other, which pixels are dust or a scratch. Each waits for the next; the
    first and the last one, which have one neighbour, stay as they are."""

    def __init__(self) -> None:
        self._window: deque[tuple[Frame, Seen]] = deque(maxlen=3)

    def push(self, frame: Frame) -> list[Frame]:
        """What is told once `frame` is there: the first frame itself, then the one before."""
        self._window.append((frame, Seen.of(frame.pixels)))
        if len(self._window) == 1:
            return [_all_known(frame)]
        return [_told(*self._window)] if len(self._window) == 3 else []

    def flush(self) -> list[Frame]:
        """The last frame, if it waits; what is pushed after it begins anew."""
        waiting = [_all_known(self._window[-1][0])] if len(self._window) > 1 else []
        self._window.clear()
        return waiting


def _all_known(frame: Frame) -> Frame:
    return frame.with_known(np.ones(frame.pixels.shape[:2], np.bool_))


def _told(before: tuple[Frame, Seen], here: tuple[Frame, Seen], after: tuple[Frame, Seen]) -> Frame:
    is_one_size = before[1].luma.shape == here[1].luma.shape == after[1].luma.shape
    if not is_one_size:
        return here[0].with_known(np.ones(here[1].luma.shape, np.bool_))
    frames = Between(before[1], here[1], after[1])
    return here[0].with_known(~(spots_in(frames) | scratches_in(frames)))
