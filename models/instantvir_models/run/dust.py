"""Frames told which of their pixels are dust or a scratch."""

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from instantvir_models.diagnosis.dust import Between, Seen, spots_in
from instantvir_models.diagnosis.scratches import scratches_in
from instantvir_models.media import Frame


def without_dust(frames: Iterable[Frame]) -> Iterator[Frame]:
    """The frames, told which pixels are dust or a scratch; each waits for the next. The first and the last one,
    which have one neighbour, stay as they are."""
    window: deque[tuple[Frame, Seen]] = deque(maxlen=3)
    for frame in frames:
        window.append((frame, Seen.of(frame.pixels)))
        if len(window) == 1:
            yield frame.with_known(np.ones(frame.pixels.shape[:2], np.bool_))
        elif len(window) == 3:
            yield _told(*window)
    if len(window) > 1:
        last = window[-1][0]
        yield last.with_known(np.ones(last.pixels.shape[:2], np.bool_))


def _told(before: tuple[Frame, Seen], here: tuple[Frame, Seen], after: tuple[Frame, Seen]) -> Frame:
    is_one_size = before[1].luma.shape == here[1].luma.shape == after[1].luma.shape
    if not is_one_size:
        return here[0].with_known(np.ones(here[1].luma.shape, np.bool_))
    frames = Between(before[1], here[1], after[1])
    return here[0].with_known(~(spots_in(frames) | scratches_in(frames)))
