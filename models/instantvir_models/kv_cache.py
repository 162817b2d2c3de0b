"""Keys and values of the blocks already restored."""

import torch
from torch import Tensor


class KVCache:
    """The keys and values of the last blocks of one attention layer.

    Memory is constant: `window` tokens, oldest dropped first. Positions belong to the caller.

    Args:
        window: tokens kept, the current block included.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._k: Tensor | None = None
        self._v: Tensor | None = None

    def __len__(self) -> int:
        return 0 if self._k is None else self._k.shape[1]

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store one block [B, S, N, D] and return all kept keys and values, oldest first.

        Raises:
            ValueError: if the block alone is larger than the window.
        """
        if k.shape[1] > self._window:
            raise ValueError(
                f"block of {k.shape[1]} tokens does not fit a cache window of {self._window}"
            )
        if self._k is not None and self._v is not None:
            room = min(len(self), self._window - k.shape[1])
            start = len(self) - room
            k = torch.cat([self._k[:, start:], k], 1)
            v = torch.cat([self._v[:, start:], v], 1)
        self._k, self._v = k, v
        return k, v

    def clear(self) -> None:
        """Forget everything."""
        self._k = self._v = None
