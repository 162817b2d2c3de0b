"""Pixels <-> latents, as a stream: the protocol, and the memory of causal convolutions.

1 + 4k frames are 1 + k latents: the first frame stands alone, then four frames make a latent.
A stream is encoded in chunks of 1 + 4k frames first and 4k later, and decoded in chunks of any
number of latents; the result does not depend on the chunks.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

TEMPORAL_FACTOR = 4
"""Frames per latent, after the first frame."""

SPATIAL_FACTOR = 8
"""Pixels along each side of a latent pixel."""


@dataclass(frozen=True)
class Region:
    """The part of a frame that a tile reads, in latent pixels."""

    rows: slice
    columns: slice
    height: int
    """Of the whole frame."""

    def of(self, tail: Tensor, *, dim: int) -> Tensor:
        """This part of whole frames at any level; `dim` is time, rows and columns follow it."""
        scale = tail.shape[dim + 1] // self.height
        for axis, part in ((dim + 1, self.rows), (dim + 2, self.columns)):
            tail = tail.narrow(axis, scale * part.start, scale * (part.stop - part.start))
        return tail.contiguous()


class CausalMemory:
    """The last input frames of every causal convolution of one stream; owned by its session.

    Args:
        home: device on which these frames rest between their uses; None leaves them where they
            were made.
    """

    def __init__(self, home: torch.device | None = None) -> None:
        self._home = home
        self._tails: dict[nn.Module, Tensor] = {}
        self._parts: dict[int, CausalMemory] = {}
        self._before: tuple[dict[nn.Module, Tensor], Region] | None = None
        """Of a part: what whole frames left behind, and where the part lies in them."""

    def part(self, index: int, region: Region) -> "CausalMemory":
        """The memory of one of several tiles that frames are cut into.

        What the stream remembers from before it was cut is the tile's past, too.
        """
        part = self._parts.setdefault(index, CausalMemory(self._home))
        part._before = self._tails, region
        return part

    def hand_over(self) -> None:
        """Forget of whole frames what the tiles remember for themselves by now."""
        for layer in next(iter(self._parts.values()))._tails:
            self._tails.pop(layer, None)

    def has_met(self, layer: nn.Module) -> bool:
        """Whether `layer` has already seen frames of this stream."""
        return layer in self._tails or (self._before is not None and layer in self._before[0])

    def exchanged(self, layer: nn.Module, x: Tensor, *, frames: int, dim: int) -> Tensor:
        """The `frames` frames before x along `dim`, zeros before the first; x is remembered instead.

        What is kept for the next call are the last `frames` frames, x included. Rows and columns
        are the two dimensions after `dim`.
        """
        tail = self._tail(layer, dim)
        if tail is None:
            shape = list(x.shape)
            shape[dim] = frames
            tail = x.new_zeros(shape)
        tail = tail.to(x.device)
        newest = min(frames, x.shape[dim])
        older = tail.narrow(dim, newest, frames - newest)
        kept = torch.cat([older, x.narrow(dim, x.shape[dim] - newest, newest)], dim)
        self._tails[layer] = kept if self._home is None else kept.to(self._home)
        return tail

    def extended(self, layer: nn.Module, x: Tensor, *, frames: int, dim: int) -> Tensor:
        """x with the `frames` frames before it put in front along `dim`; zeros before the first.

        Keeps the last `frames` frames for the next call.
        """
        return torch.cat([self.exchanged(layer, x, frames=frames, dim=dim), x], dim)

    def copy(self) -> "CausalMemory":
        """The memory as it is now, for a second try; frames are not copied, they never change."""
        other = CausalMemory(self._home)
        other._tails = dict(self._tails)
        other._parts = {index: part.copy() for index, part in self._parts.items()}
        return other

    def remember(self, other: "CausalMemory") -> None:
        """Know of the stream what `other`, a copy that has gone on with it, knows."""
        self._tails = dict(other._tails)

    def move(self, home: torch.device) -> None:
        """Let all that is remembered rest on `home` from now on."""
        self._home = home
        self._tails = {layer: tail.to(home) for layer, tail in self._tails.items()}
        for part in self._parts.values():
            part.move(home)

    def num_bytes(self) -> int:
        """Memory held."""
        own = sum(tail.numel() * tail.element_size() for tail in self._tails.values())
        return own + sum(part.num_bytes() for part in self._parts.values())

    def _tail(self, layer: nn.Module, dim: int) -> Tensor | None:
        tail = self._tails.get(layer)
        if tail is None and self._before is not None:
            whole, region = self._before
            if layer in whole:
                return region.of(whole[layer], dim=dim)
        return tail


class StreamLayer(Protocol):
    """A layer of a stream."""

    def __call__(self, x: Tensor, memory: CausalMemory, /) -> Tensor:
        """Of the next frames."""


def recomputed(layer: StreamLayer, x: Tensor, memory: CausalMemory) -> Tensor:
    """`layer` of x, computed again in the backward pass, from what was remembered at the first time."""
    before = memory.copy()

    def once(x: Tensor) -> tuple[Tensor, CausalMemory]:
        now = before.copy()
        return layer(x, now), now

    y, now = checkpoint(once, x, use_reentrant=False)
    memory.remember(now)
    return y


def is_learned_through(x: Tensor) -> bool:
    """Whether a backward pass will come back to x."""
    return x.requires_grad and torch.is_grad_enabled()


class Autoencoder(Protocol):
    """Encodes and decodes streams; keeps no state of its own."""

    def encode(self, x: Tensor, memory: CausalMemory) -> Tensor:
        """Latents [B, L, c, H/8, W/8] of the next frames x [B, T, 3, H, W] in [-1, 1].

        H and W are multiples of 8, T is 1 + 4k at the start of a stream and 4k later.
        """

    def decode(self, z: Tensor, memory: CausalMemory) -> Tensor:
        """Frames [B, T, 3, H, W], about [-1, 1] and not clamped, of the next latents z."""


def check_frames(x: Tensor, *, is_first: bool) -> None:
    """Refuse frames [B, T, 3, H, W] that do not make whole latents.

    Raises:
        ValueError: if T, H or W does not fit.
    """
    _, frames, _, height, width = x.shape
    wanted = 1 if is_first else 0
    if frames % TEMPORAL_FACTOR != wanted or frames == 0:
        raise ValueError(
            f"{frames} frames are no whole number of latents; "
            f"{'a stream starts with 1 + 4k' if is_first else 'go on with 4k'}"
        )
    if height % SPATIAL_FACTOR or width % SPATIAL_FACTOR:
        raise ValueError(f"frames have sides that divide by {SPATIAL_FACTOR}, got {width}x{height}")
