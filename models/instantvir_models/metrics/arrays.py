"""Weights of other packages, which they keep as pickles: arrays are read, anything else is refused."""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from instantvir_models.errors import CheckpointError

T = TypeVar("T")


def read_arrays(path: Path, made: Callable[[Mapping[str, Any]], T], what: str, hint: str) -> T:
    """What `made` makes of the arrays in a file.

    Args:
        what: for people, the network that they are of.
        hint: which file to take.

    Raises:
        CheckpointError: if the file is not there, holds something else, or arrays of something else.
    """
    try:
        with path.open("rb") as file:
            return made(_ArraysOnly(file).load())
    except _DAMAGE as error:
        raise CheckpointError(
            f"`{path}` holds no {what} weights: {error}", hint=f"take {hint}"
        ) from error


_DAMAGE = (
    OSError, EOFError, LookupError, TypeError, ValueError, AttributeError, StopIteration, RuntimeError,
    pickle.UnpicklingError,
)  # fmt: skip
"""What reading a file that holds something else ends in."""

ARRAY_PARTS = {
    ("numpy.core.multiarray", "_reconstruct"),  # its name before NumPy 2
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}
"""What a pickle of arrays names."""


class _ArraysOnly(pickle.Unpickler):
    """A pickle of NumPy arrays; anything else that it names is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ARRAY_PARTS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no array")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)
