"""What classical methods share: frames one by one as pixels, and which degradation they undo."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from instantvir_models.errors import UsageError
from instantvir_models.media.convert import to_uint8, to_unit
from instantvir_models.operators.measurement import Degradation
from instantvir_models.solvers.base import Restored

UNKNOWN_STD = 0.06
"""What a classical method, which knows nothing of its own error, is taken to be off."""

Picture = NDArray[np.uint8]
"""[h, w, 3]."""


def restored(x: Tensor) -> Restored:
    """Frames by a method that knows nothing of its own error."""
    return Restored(x, x.new_full((len(x),), UNKNOWN_STD))


def pictures(y: Tensor) -> NDArray[np.uint8]:
    """Frames [1, T, 3, h, w] in 8 bits, [T, h, w, 3]."""
    return to_uint8(y.cpu())


def each_picture(y: Tensor, change: Callable[[Picture, int], Picture]) -> Tensor:
    """Frames [1, T, 3, h, w], each changed in 8 bits, given its index."""
    changed = np.stack([change(picture, t) for t, picture in enumerate(pictures(y))])
    return to_unit(changed).to(y)


def holes(known: Tensor, y: Tensor) -> Iterator[NDArray[np.bool_]]:
    """Of each frame of y [1, T, 3, h, w]: [h, w], True where a pixel was not measured."""
    every = known.expand(1, y.shape[1], 1, *y.shape[-2:])[0, :, 0]
    for frame in every.cpu():
        yield torch.eq(frame, 0).numpy()


def refuse_unless(is_able: bool, method: str, task: str, degradation: Degradation) -> None:
    """Refuse a degradation that a method cannot undo.

    Args:
        method, task: what it is called, and what it does, for people.

    Raises:
        UsageError: unless it is able to.
    """
    if not is_able:
        raise UsageError(
            f"`{method}` {task}; it cannot undo `{degradation.spec}`",
            hint="`--solver map` and the students undo every operator",
        )
