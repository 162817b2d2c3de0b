"""The Wan2.1 text-to-video transformer made causal: blocks of latents in, their velocity out.

Parameter names are those of the published checkpoints. Shape letters: B batch, L latents (latent
frames), c latent channels, h w latent size, S tokens, M model width, N heads, D channels per head.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from instantvir_kernels.dispatch import (
    attention,
    block_causal_attention,
    gated_residual_norm,
    layer_norm_modulate,
    linear_gelu,
    norm_rope_write,
)
from instantvir_kernels.graphs import BlockGraphs, Recorder, Step
from instantvir_models.students.kv_cache import KVCache, Slots
from instantvir_models.students.text import TextRows
from instantvir_models.students.wan.offload import LayerTurns
from instantvir_models.students.wan.rope import rotations

PATCH = 2
"""Latent pixels along each side of a token; a token holds one latent frame."""


@dataclass(frozen=True, kw_only=True)
class WanConfig:
    """Size of a Wan transformer; the defaults are Wan2.1-T2V-1.3B."""

    dim: int = 1536
    ffn_dim: int = 8960
    num_heads: int = 12
    num_layers: int = 30
    latent_channels: int = 16
    text_dim: int = 4096
    text_len: int = 512
    """Rows a prompt is padded to; the padding is attended to, as in training."""
    freq_dim: int = 256
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.dim % self.num_heads or (self.dim // self.num_heads) % 2:
            raise ValueError(f"{self.num_heads} heads do not divide a width of {self.dim} evenly")
        if self.freq_dim % 2:
            raise ValueError(f"freq_dim is half sines, half cosines, got {self.freq_dim}")


@dataclass(frozen=True)
class _TextKeys:
    """What the layers attend to of a prompt: keys and values of each layer, and the key bias."""

    text: TextRows
    keys: list[Tensor]
    values: list[Tensor]
    bias: Tensor | None


@dataclass
class WanMemory:
    """What a transformer remembers of one video. Constant size; owned by a session."""

    caches: list[KVCache] = field(default_factory=list)
    """One per layer, made at the first block, when the size of a frame is known."""
    next_latent: int = 0
    text: _TextKeys | None = None
    layers: LayerTurns | None = None
    """Brings each layer's weights for its turn, where they rest elsewhere."""
    recorder: Recorder | None = None
    """Records the steady block; None runs every block launch by launch."""
    recordings: BlockGraphs = field(default_factory=BlockGraphs)

    def run(self, step: Step, *inputs: Tensor, slot: int | None) -> tuple[Tensor, ...]:
        """What `step(*inputs)` gives; from a recording where the stream is steady.

        Args:
            slot: where in the ring this block is written, once the window is full; None before.
        """
        if self.recorder is None or slot is None:
            return step(*inputs)
        return self.recordings(self.recorder, step, *inputs, slot=slot)

    def mark(self) -> tuple[int, int]:
        """A place to come back to: latents and tokens seen so far."""
        return self.next_latent, self.caches[0].tokens_seen if self.caches else 0

    def rewind(self, mark: tuple[int, int]) -> None:
        """Go back to a `mark`, to give the same block again."""
        self.next_latent, tokens_seen = mark
        if not self.next_latent:
            self.caches = []
        for cache in self.caches:
            cache.rewind(tokens_seen)

    def shrink(self, window_latents: int) -> None:
        """Keep the last `window_latents` of history; if memory runs out, some layers keep more."""
        self.recordings.forget()
        for cache in self.caches:
            cache.shrink(window_latents * (cache.tokens_seen // self.next_latent))


class _SelfAttention(nn.Module):
    """Attention over space and time with rotary positions; keys are remembered rotated."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.eps = config.eps
        self.q = nn.Linear(config.dim, config.dim)
        self.k = nn.Linear(config.dim, config.dim)
        self.v = nn.Linear(config.dim, config.dim)
        self.o = nn.Linear(config.dim, config.dim)
        self.norm_q = nn.RMSNorm(config.dim, config.eps)
        self.norm_k = nn.RMSNorm(config.dim, config.eps)

    def forward(
        self,
        x: Tensor,
        rotation: tuple[Tensor, Tensor],
        *,
        slots: Slots | None,
        tokens_per_block: int,
    ) -> Tensor:
        """x is one block where there are slots for its keys, else a whole sequence of blocks."""
        q, k, v = self.q(x), self.k(x), self.v(x)
        batch, tokens, width = q.shape
        if slots is None:
            block = (batch, tokens, self.num_heads, width // self.num_heads)
            written = KVCache(tokens).reserve(block, like=v)
        else:
            written = slots
        cos, sin = rotation
        q = norm_rope_write(
            q, k, v, written.k_ring, written.v_ring, q_weight=self.norm_q.weight,
            k_weight=self.norm_k.weight, cos=cos, sin=sin, first_slot=written.first_slot,
            eps=self.eps,
        )  # fmt: skip
        k, v = written.k, written.v
        if slots is not None:
            attended = attention(q, k, v)
        else:
            attended = block_causal_attention(q, k, v, tokens_per_block=tokens_per_block)
        return self.o(attended.flatten(-2))


class _CrossAttention(nn.Module):
    """Attention to the rows of the prompt, without positions."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q = nn.Linear(config.dim, config.dim)
        self.k = nn.Linear(config.dim, config.dim)
        self.v = nn.Linear(config.dim, config.dim)
        self.o = nn.Linear(config.dim, config.dim)
        self.norm_q = nn.RMSNorm(config.dim, config.eps)
        self.norm_k = nn.RMSNorm(config.dim, config.eps)

    def keys_and_values(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """[1, n, N, D] each, from embedded text [1, n, M]."""
        k, v = self.norm_k(self.k(text)), self.v(text)
        return k.unflatten(-1, (self.num_heads, -1)), v.unflatten(-1, (self.num_heads, -1))

    def forward(self, x: Tensor, k: Tensor, v: Tensor, key_bias: Tensor | None) -> Tensor:
        q = self.norm_q(self.q(x)).unflatten(-1, (self.num_heads, -1))
        k, v = k.expand(len(q), -1, -1, -1), v.expand(len(q), -1, -1, -1)
        return self.o(attention(q, k, v, key_bias=key_bias).flatten(-2))


class _GeluNet(nn.Sequential):
    """Linear, GELU, Linear; positions in the sequence name the parameters."""

    def __init__(self, width_in: int, hidden: int, width_out: int) -> None:
        super().__init__(
            nn.Linear(width_in, hidden),
            nn.Identity(),  # the GELU, which `linear_gelu` applies
            nn.Linear(hidden, width_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        first = self[0]
        assert isinstance(first, nn.Linear)
        return self[2](linear_gelu(x, first.weight, first.bias))


class _Layer(nn.Module):
    """Self-attention, cross-attention and a feed-forward net, two of them modulated by time."""

    entries: ClassVar[tuple[str, ...]] = ("codes", "text_keys")
    """What is asked of it before its turn, where weights are sharded."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.modulation = nn.Parameter(torch.randn(1, 6, config.dim) / config.dim**0.5)
        self.self_attn = _SelfAttention(config)
        self.norm3 = nn.LayerNorm(config.dim, config.eps)
        self.cross_attn = _CrossAttention(config)
        self.ffn = _GeluNet(config.dim, config.ffn_dim, config.dim)

    def codes(self, time: Tensor) -> tuple[Tensor, ...]:
        """Shift, scale and gate of self-attention, then of the feed-forward net, [1, 1, M] float32."""
        return (self.modulation.float() + time).chunk(6, 1)

    def text_keys(self, embedded: Tensor) -> tuple[Tensor, Tensor]:
        """What it attends to of embedded text [1, n, M]: keys and values, [1, n, N, D] each."""
        return self.cross_attn.keys_and_values(embedded.to(self.norm3.weight))

    def forward(
        self,
        x: Tensor,
        normed: Tensor,
        codes: tuple[Tensor, ...],
        rotation: tuple[Tensor, Tensor],
        text: tuple[Tensor, Tensor, Tensor | None],
        next_norm: tuple[Tensor, Tensor],
        *,
        slots: Slots | None,
        tokens_per_block: int,
    ) -> tuple[Tensor, Tensor]:
        """x [B, S, M] and its modulated norm; both for what follows, whose `next_norm` it is.

        Args:
            normed: x under this layer's first norm.
            codes: of this layer.
            next_norm: (scale, shift) of the norm that follows this layer.
        """
        _, _, gate_1, shift_2, scale_2, gate_2 = codes
        eps = self.eps
        # in training, layers multiply in half the precision of what is around them
        x, normed = x.to(self.norm3.weight), normed.to(self.norm3.weight)
        attended = self.self_attn(normed, rotation, slots=slots, tokens_per_block=tokens_per_block)
        # an affine norm is a modulation, too
        scale, shift = self.norm3.weight.float()[None, None] - 1, self.norm3.bias[None, None]
        x, normed = gated_residual_norm(x, attended, gate_1, scale, shift, eps=eps)
        attended = self.cross_attn(normed, *text)
        x, normed = gated_residual_norm(x, attended, None, scale_2, shift_2, eps=eps)
        return gated_residual_norm(x, self.ffn(normed), gate_2, *next_norm, eps=eps)


class _Head(nn.Module):
    """From tokens to the velocity of their latent pixels."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.randn(1, 2, config.dim) / config.dim**0.5)
        self.head = nn.Linear(config.dim, PATCH**2 * config.latent_channels)

    def norm(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """(scale, shift) of the norm before it, [1, 1, M] float32."""
        shift, scale = (self.modulation.float() + time[:, None]).chunk(2, 1)
        return scale, shift

    def forward(self, normed: Tensor) -> Tensor:
        return self.head(normed.to(self.head.weight))


class WanTransformer(nn.Module):
    """The causal Wan transformer; keeps no state of its own."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.config = config
        patch = (1, PATCH, PATCH)
        self.patch_embedding = nn.Conv3d(config.latent_channels, config.dim, patch, stride=patch)
        self.text_embedding = _GeluNet(config.text_dim, config.dim, config.dim)
        self.time_embedding = nn.Sequential(
            nn.Linear(config.freq_dim, config.dim), nn.SiLU(), nn.Linear(config.dim, config.dim)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(config.dim, 6 * config.dim))
        self.blocks = nn.ModuleList(_Layer(config) for _ in range(config.num_layers))
        self.recomputes_layers = False
        """Whether training keeps only what goes into each layer, and computes the rest again."""
        self.head = _Head(config)

    def velocity_of_block(
        self,
        latents: Tensor,
        *,
        timestep: float,
        text: TextRows,
        memory: WanMemory,
        window_latents: int,
        sink_latents: int = 0,
    ) -> Tensor:
        """The velocity v = noise - x_0 of the next latents of a video, [B, L, c, h, w].

        `memory` then also holds these latents. Queries see every key of the kept history and of
        the block itself.

        Args:
            latents: [B, L, c, h, w], h and w even, L up to `window_latents`.
            text: the prompt; its keys are kept until another one is given, the history stays.
            window_latents, sink_latents: history kept, this block included.
        """
        tokens_per_latent = (latents.shape[-2] // PATCH) * (latents.shape[-1] // PATCH)
        if not memory.caches:
            memory.caches = [
                KVCache(window_latents * tokens_per_latent, sink=sink_latents * tokens_per_latent)
                for _ in self.blocks
            ]
        layers = self.blocks if memory.layers is None else memory.layers
        if memory.text is None or memory.text.text is not text:
            memory.recordings.forget()
            memory.text = self._text_keys(text, layers)
        tokens, heads = tokens_per_latent * latents.shape[1], self.config.num_heads
        block = (len(latents), tokens, heads, self.config.dim // heads)
        like = self.patch_embedding.weight
        is_steady = memory.layers is None and memory.caches[0].is_full_with(tokens)
        slots = [cache.reserve(block, like=like) for cache in memory.caches]
        text_keys = memory.text

        def pass_block(latents: Tensor, *of_place: Tensor) -> tuple[Tensor]:
            return (self._pass(latents, of_place, text_keys, layers, slots, latents.shape[1]),)

        (velocity,) = memory.run(
            pass_block, latents, *self._of_place(latents, timestep, memory.next_latent),
            slot=slots[0].first_slot if is_steady else None,
        )  # fmt: skip
        for cache in memory.caches:
            cache.commit()
        memory.next_latent += latents.shape[1]
        return velocity

    def velocity_of_sequence(
        self, latents: Tensor, *, timestep: float, text: TextRows, latents_per_block: int
    ) -> Tensor:
        """The same for a whole video at once under the block-causal mask: how it is trained."""
        return self._pass(
            latents, self._of_place(latents, timestep, 0), self._text_keys(text, self.blocks),
            self.blocks, [None] * len(self.blocks), latents_per_block,
        )  # fmt: skip

    def _of_place(self, latents: Tensor, timestep: float, first_latent: int) -> tuple[Tensor, ...]:
        """What a pass is told of where and when its latents are: cosines, sines, embedded time, its codes."""
        rotation = rotations(
            _grid_of(latents),
            first_frame=first_latent,
            head_dim=self.config.dim // self.config.num_heads,
            device=latents.device,
        )
        return *rotation, *self._time(timestep)

    def _pass(
        self,
        latents: Tensor,
        of_place: tuple[Tensor, ...],
        text: _TextKeys,
        layers: Iterable[nn.Module],
        slots: list[Slots] | list[None],
        latents_per_block: int,
    ) -> Tensor:
        """The velocity; reads and writes nothing but tensors, so that it can be recorded."""
        cos, sin, time, time_codes = of_place
        rotation, size = (cos, sin), _grid_of(latents)
        x = self.patch_embedding(latents.transpose(1, 2)).flatten(2).mT.contiguous()
        tokens_per_block = latents_per_block * size[1] * size[2]
        codes = [layer.codes(time_codes) for layer in _layers(self.blocks)]
        # every layer ends with the norm of the next one: the sum is not read again for it
        norms = [(scale, shift) for shift, scale, *_ in codes] + [self.head.norm(time)]
        normed = layer_norm_modulate(x, *norms[0], eps=self.config.eps)
        for layer, slot, code, k, v, next_norm in zip(
            layers, slots, codes, text.keys, text.values, norms[1:], strict=True
        ):
            called = partial(layer, slots=slot, tokens_per_block=tokens_per_block)
            given = x, normed, code, rotation, (k, v, text.bias), next_norm
            if self.recomputes_layers and torch.is_grad_enabled():
                x, normed = checkpoint(called, *given, use_reentrant=False)
            else:
                x, normed = called(*given)
        return self._unpatched(self.head(normed), size)

    def _time(self, timestep: float) -> tuple[Tensor, Tensor]:
        """The embedded timestep [1, M], and [1, 6, M] for the layers, float32 whatever the weights."""
        half = self.config.freq_dim // 2
        frequency = 10000.0 ** -(torch.arange(half, dtype=torch.float64) / half)
        wave = torch.cat([(timestep * frequency).cos(), (timestep * frequency).sin()])
        time = wave[None].to(self.patch_embedding.weight.device, torch.float32)
        time = _in_float(self.time_embedding, time)
        codes = _in_float(self.time_projection, time)
        return time, codes.unflatten(-1, (6, -1))

    def _text_keys(self, text: TextRows, layers: Iterable[nn.Module]) -> _TextKeys:
        """Keys and values of the prompt in every layer.

        All padded rows embed to the same vector, so one row stands for the n of them with log(n)
        added to its scores: the softmax over all rows, exactly.
        """
        padding = text.length - text.rows.shape[1]
        rows, bias = text.rows.to(self.patch_embedding.weight), None
        if padding:
            rows = torch.cat([rows, rows.new_zeros(len(rows), 1, rows.shape[2])], 1)
            bias = torch.zeros(rows.shape[1], device=rows.device)
            bias[-1] = math.log(padding)
        embedded = self.text_embedding(rows)
        pairs = [layer.text_keys(embedded) for layer in _layers(layers)]
        return _TextKeys(text, [k for k, _ in pairs], [v for _, v in pairs], bias)

    def _unpatched(self, tokens: Tensor, size: tuple[int, int, int]) -> Tensor:
        """[B, S, 4c] (row, column, channel) -> [B, L, c, h, w]."""
        grid = tokens.unflatten(1, size).unflatten(-1, (PATCH, PATCH, -1))
        return grid.permute(0, 1, 6, 2, 4, 3, 5).flatten(-2).flatten(-3, -2)


def _grid_of(latents: Tensor) -> tuple[int, int, int]:
    """Tokens of latents [B, L, c, h, w] in time, height and width."""
    _, num_latents, _, height, width = latents.shape
    return num_latents, height // PATCH, width // PATCH


def _layers(layers: Iterable[nn.Module]) -> Iterator[_Layer]:
    return (layer for layer in layers if isinstance(layer, _Layer))


def _in_float(layers: nn.Sequential, x: Tensor) -> Tensor:
    """`layers` (linear or without weights) computed in float32 whatever their weights are in."""
    for layer in layers:
        if isinstance(layer, nn.Linear):
            assert layer.bias is not None
            x = F.linear(x, layer.weight.float(), layer.bias.float())
        else:
            x = layer(x)
    return x
