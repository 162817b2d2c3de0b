"""Keys and values of the blocks already restored."""

from torch import Tensor


class KVCache:
    """The first `sink` and the last `window` tokens of one attention layer, in a ring.

    The buffers are made at the first block and written in place, so memory and time per block are
    constant however long the video. Attention does not ask for the order of the keys: positions
    are applied before they come here, and they belong to the caller.

    Args:
        window: latest tokens kept, the current block included.
        sink: first tokens kept for ever, besides the window.
    """

    def __init__(self, window: int, *, sink: int = 0) -> None:
        if window < 1 or sink < 0:
            raise ValueError(f"a cache keeps at least one token, got window {window}, sink {sink}")
        self._window = window
        self._sink = sink
        self._k: Tensor | None = None
        self._v: Tensor | None = None
        self._seen = 0

    def __len__(self) -> int:
        return min(self._seen, self.capacity)

    @property
    def capacity(self) -> int:
        """Tokens kept at most."""
        return self._sink + self._window

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store one block [B, S, N, D]; views [B, len(self), N, D] of all kept keys and values.

        The views are in no particular order and hold until the next `append`.

        Raises:
            ValueError: if the block alone is larger than the window.
        """
        tokens = k.shape[1]
        if tokens > self._window:
            raise ValueError(
                f"block of {tokens} tokens does not fit a cache window of {self._window}"
            )
        if self._k is None or self._v is None:
            shape = (k.shape[0], self.capacity, *k.shape[2:])
            self._k, self._v = k.new_empty(shape), v.new_empty(shape)
        done = 0
        while done < tokens:
            start, room = self._next_slot()
            count = min(tokens - done, room)
            self._k[:, start : start + count] = k[:, done : done + count]
            self._v[:, start : start + count] = v[:, done : done + count]
            self._seen += count
            done += count
        return self._k[:, : len(self)], self._v[:, : len(self)]

    def clear(self) -> None:
        """Forget everything."""
        self._k = self._v = None
        self._seen = 0

    def _next_slot(self) -> tuple[int, int]:
        """(index of the next token in the buffer, tokens that fit from there in one piece)."""
        if self._seen < self._sink:
            return self._seen, self.capacity - self._seen
        offset = (self._seen - self._sink) % self._window
        return self._sink + offset, self._window - offset
