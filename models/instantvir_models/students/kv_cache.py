"""Keys and values of the blocks already restored."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Slots:
    """Where the next block goes: token s into slot (first_slot + s) modulo the slots of the rings."""

    k_ring: Tensor
    """[B, slots, N, D], a view of the cache; heads dense."""
    v_ring: Tensor
    first_slot: int
    k: Tensor
    """[B, kept, N, D], all that is kept once the block has been written, in no particular order."""
    v: Tensor


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
        self._reserved = 0
        """Tokens of the block that is being written."""

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

    def reserve(self, block: tuple[int, int, int, int], *, like: Tensor) -> Slots:
        """Where the next block [B, S, N, D] is to be written; it counts from `commit` on.

        Reserving and writing again before that lands in the same slots. They are those of the
        tokens that this block pushes out of the window.

        Args:
            block: (B, S, N, D) of the keys, and of the values.
            like: has the dtype and device of the buffers, which the first block makes.

        Raises:
            ValueError: if the block alone is larger than the window.
        """
        batch, tokens, heads, dim = block
        if tokens > self._window:
            raise ValueError(
                f"block of {tokens} tokens does not fit a cache window of {self._window}"
            )
        if self._k is None or self._v is None:
            shape = (batch, self.capacity, heads, dim)
            self._k, self._v = like.new_empty(shape), like.new_empty(shape)
        self._reserved = tokens
        start = self._slot(self._seen, self._window)
        # a block that begins in the sink ends before the buffer does: only the window goes around
        first = 0 if start < self._sink else self._sink
        kept = min(self._seen + tokens, self.capacity)
        return Slots(
            self._k[:, first:],
            self._v[:, first:],
            start - first,
            self._k[:, :kept],
            self._v[:, :kept],
        )

    def is_full_with(self, tokens: int) -> bool:
        """Whether the next block of `tokens` pushes out as many, and lands where another one lay: from
        then on nothing but numbers changes from block to block."""
        return self._seen >= self.capacity and self._window % tokens == 0

    def commit(self) -> tuple[Tensor, Tensor]:
        """The reserved block, now written, is part of the cache; views of all kept keys and values.

        The views are [B, len(self), N, D], in no particular order, and hold until the next block.
        """
        assert self._reserved, "a block is reserved before it is committed"
        assert self._k is not None
        assert self._v is not None
        self._seen += self._reserved
        self._reserved = 0
        return self._k[:, : len(self)], self._v[:, : len(self)]

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store one block [B, S, N, D] of keys and of values; the views of `commit`.

        Raises:
            ValueError: if the block alone is larger than the window.
        """
        batch, tokens, heads, dim = k.shape
        slots = self.reserve((batch, tokens, heads, dim), like=k)
        room = min(tokens, slots.k_ring.shape[1] - slots.first_slot)
        for ring, block in ((slots.k_ring, k), (slots.v_ring, v)):
            ring[:, slots.first_slot : slots.first_slot + room] = block[:, :room]
            ring[:, : tokens - room] = block[:, room:]
        return self.commit()

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
        self._reserved = 0

    def shrink(self, window: int) -> None:
        """Keep only the sink and the last `window` tokens, in a buffer of that size.

        Where memory runs out for that buffer, the cache is as it was.
        """
        assert window <= self._window
        self._reserved = 0
        if window == self._window:
            return
        sink = min(self._sink, self._seen)
        tokens = [*range(sink), *range(max(sink, self._seen - window), self._seen)]
        old, new = (
            [self._slot(token, size) for token in tokens] for size in (self._window, window)
        )
        if self._k is not None and self._v is not None:
            shape = (self._k.shape[0], self._sink + window, *self._k.shape[2:])
            k, v = self._k.new_empty(shape), self._v.new_empty(shape)
            k[:, new], v[:, new] = self._k[:, old], self._v[:, old]
            self._k, self._v = k, v
        self._window = window

    def _slot(self, token: int, window: int) -> int:
        """Where in the buffer a token lies, counted from the start of the video."""
        if token < self._sink:
            return token
        return self._sink + (token - self._sink) % window

    def clear(self) -> None:
        """Forget everything."""
        self._k = self._v = None
        self._seen = self._reserved = 0
