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
    def window(self) -> int:
        """Latest tokens kept."""
        return self._window

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

    @property
    def tokens_seen(self) -> int:
        """Tokens appended so far, those since dropped included."""
        return self._seen

    def rewind(self, tokens_seen: int) -> None:
        """Go back to when `tokens_seen` tokens had been appended, to append the same block again.

        What that block pushed out of the window is lost; appending it again pushes it out anyway.
        """
        assert tokens_seen <= self._seen
        self._seen = tokens_seen

    def shrink(self, window: int) -> None:
        """Keep only the sink and the last `window` tokens, in a buffer of that size."""
        assert window <= self._window
        sink = min(self._sink, self._seen)
        tokens = [*range(sink), *range(max(sink, self._seen - window), self._seen)]
        old, new = (
            [self._slot(token, size) for token in tokens] for size in (self._window, window)
        )
        self._window = window
        if self._k is None or self._v is None:
            return
        shape = (self._k.shape[0], self.capacity, *self._k.shape[2:])
        for name in ("_k", "_v"):
            before = getattr(self, name)
            after = before.new_empty(shape)
            after[:, new] = before[:, old]
            setattr(self, name, after)

    def _slot(self, token: int, window: int) -> int:
        """Where in the buffer a token lies, counted from the start of the video."""
        if token < self._sink:
            return token
        return self._sink + (token - self._sink) % window

    def clear(self) -> None:
        """Forget everything."""
        self._k = self._v = None
        self._seen = 0

    def _next_slot(self) -> tuple[int, int]:
        """(index of the next token in the buffer, tokens that fit from there in one piece)."""
        start = self._slot(self._seen, self._window)
        end = self._sink if start < self._sink else self.capacity
        return start, end - start
