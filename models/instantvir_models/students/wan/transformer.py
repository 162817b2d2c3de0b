"""The Wan2.1 text-to-video transformer made causal: blocks of latents in, their velocity out.

Parameter names are those of the published checkpoints. Shape letters: B batch, L latents (latent
frames), c latent channels, h w latent size, S tokens, M model width, N heads, D channels per head.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instantvir_kernels.dispatch import attention, block_causal_attention
from instantvir_models.kv_cache import KVCache
from instantvir_models.students.wan.rope import rotate, rotations

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


@dataclass(frozen=True)
class TextRows:
    """One prompt: its embedded rows, and how many rows it is padded to with zeros."""

    rows: Tensor
    """[1, n, text_dim], n from 0 to `length`."""
    length: int

    def __post_init__(self) -> None:
        if self.rows.ndim != 3 or self.rows.shape[1] > self.length:
            raise ValueError(
                f"a prompt is [1, n <= {self.length}, text_dim], got {tuple(self.rows.shape)}"
            )


@dataclass(frozen=True)
class _TextKeys:
    """What the layers attend to of a prompt: keys and values of each layer, and the key bias."""

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

    def shrink(self, window_latents: int, *, of: int) -> None:
        """Keep `window_latents` of the `of` latents of history."""
        for cache in self.caches:
            cache.shrink(cache.window * window_latents // of)


class _SelfAttention(nn.Module):
    """Attention over space and time with rotary positions; keys are remembered rotated."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q = nn.Linear(config.dim, config.dim)
        self.k = nn.Linear(config.dim, config.dim)
        self.v = nn.Linear(config.dim, config.dim)
        self.o = nn.Linear(config.dim, config.dim)
        self.norm_q = nn.RMSNorm(config.dim, config.eps)
        self.norm_k = nn.RMSNorm(config.dim, config.eps)

    def projected(self, x: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k (both rotated) and v, [B, S, N, D]."""
        q, k, v = self.norm_q(self.q(x)), self.norm_k(self.k(x)), self.v(x)
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)) for t in (q, k, v))
        return rotate(q, rotation), rotate(k, rotation), v

    def forward(
        self, x: Tensor, rotation: Tensor, *, cache: KVCache | None, tokens_per_block: int
    ) -> Tensor:
        """x is one block where there is a cache, else a whole sequence of blocks."""
        q, k, v = self.projected(x, rotation)
        if cache is not None:
            attended = attention(q, *cache.append(k, v))
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


class _Layer(nn.Module):
    """Self-attention, cross-attention and a feed-forward net, two of them modulated by time."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.modulation = nn.Parameter(torch.randn(1, 6, config.dim) / config.dim**0.5)
        self.self_attn = _SelfAttention(config)
        self.norm3 = nn.LayerNorm(config.dim, config.eps)
        self.cross_attn = _CrossAttention(config)
        self.ffn = nn.Sequential(
            nn.Linear(config.dim, config.ffn_dim),
            nn.GELU(approximate="tanh"),
            nn.Linear(config.ffn_dim, config.dim),
        )

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        rotation: Tensor,
        text: tuple[Tensor, Tensor, Tensor | None],
        *,
        cache: KVCache | None,
        tokens_per_block: int,
    ) -> Tensor:
        """x [B, S, M]; `time` [1, 6, M] float32."""
        codes = (self.modulation.float() + time).chunk(6, 1)
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = codes
        attended = self.self_attn(
            _modulated(x, shift_1, scale_1, self.eps), rotation,
            cache=cache, tokens_per_block=tokens_per_block,
        )  # fmt: skip
        x = _gated(x, attended, gate_1)
        x = x + self.cross_attn(self.norm3(x), *text)
        return _gated(x, self.ffn(_modulated(x, shift_2, scale_2, self.eps)), gate_2)


class _Head(nn.Module):
    """From tokens to the velocity of their latent pixels."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.modulation = nn.Parameter(torch.randn(1, 2, config.dim) / config.dim**0.5)
        self.head = nn.Linear(config.dim, PATCH**2 * config.latent_channels)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        shift, scale = (self.modulation.float() + time[:, None]).chunk(2, 1)
        return self.head(_modulated(x, shift, scale, self.eps))


class WanTransformer(nn.Module):
    """The causal Wan transformer; keeps no state of its own."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.config = config
        patch = (1, PATCH, PATCH)
        self.patch_embedding = nn.Conv3d(config.latent_channels, config.dim, patch, stride=patch)
        self.text_embedding = nn.Sequential(
            nn.Linear(config.text_dim, config.dim),
            nn.GELU(approximate="tanh"),
            nn.Linear(config.dim, config.dim),
        )
        self.time_embedding = nn.Sequential(
            nn.Linear(config.freq_dim, config.dim), nn.SiLU(), nn.Linear(config.dim, config.dim)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(config.dim, 6 * config.dim))
        self.blocks = nn.ModuleList(_Layer(config) for _ in range(config.num_layers))
        self.head = _Head(config)

    def velocity_of_block(
        self,
        latents: Tensor,
        *,
        timestep: int,
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
            text: the prompt; read at the first block of a video only.
            window_latents, sink_latents: history kept, this block included.
        """
        tokens_per_latent = (latents.shape[-2] // PATCH) * (latents.shape[-1] // PATCH)
        if not memory.caches:
            memory.caches = [
                KVCache(window_latents * tokens_per_latent, sink=sink_latents * tokens_per_latent)
                for _ in self.blocks
            ]
        if memory.text is None:
            memory.text = self._text_keys(text)
        velocity = self._velocity(
            latents, timestep, memory.text, first_latent=memory.next_latent,
            caches=memory.caches, latents_per_block=latents.shape[1],
        )  # fmt: skip
        memory.next_latent += latents.shape[1]
        return velocity

    def velocity_of_sequence(
        self, latents: Tensor, *, timestep: int, text: TextRows, latents_per_block: int
    ) -> Tensor:
        """The same for a whole video at once under the block-causal mask: how it is trained."""
        return self._velocity(
            latents, timestep, self._text_keys(text), first_latent=0,
            caches=[None] * len(self.blocks), latents_per_block=latents_per_block,
        )  # fmt: skip

    def _velocity(
        self,
        latents: Tensor,
        timestep: int,
        text: _TextKeys,
        *,
        first_latent: int,
        caches: list[KVCache] | list[None],
        latents_per_block: int,
    ) -> Tensor:
        _, num_latents, _, height, width = latents.shape
        size = (num_latents, height // PATCH, width // PATCH)
        x = self.patch_embedding(latents.transpose(1, 2)).flatten(2).mT.contiguous()
        rotation = rotations(
            size,
            first_frame=first_latent,
            head_dim=self.config.dim // self.config.num_heads,
            device=latents.device,
        )
        time, time_codes = self._time(timestep)
        tokens_per_block = latents_per_block * size[1] * size[2]
        for layer, cache, k, v in zip(self.blocks, caches, text.keys, text.values, strict=True):
            x = layer(
                x, time_codes, rotation, (k, v, text.bias),
                cache=cache, tokens_per_block=tokens_per_block,
            )  # fmt: skip
        return self._unpatched(self.head(x, time), size)

    def _time(self, timestep: int) -> tuple[Tensor, Tensor]:
        """The embedded timestep [1, M], and [1, 6, M] for the layers, float32 whatever the weights."""
        half = self.config.freq_dim // 2
        frequency = 10000.0 ** -(torch.arange(half, dtype=torch.float64) / half)
        wave = torch.cat([(timestep * frequency).cos(), (timestep * frequency).sin()])
        time = wave[None].to(self.patch_embedding.weight.device, torch.float32)
        time = _in_float(self.time_embedding, time)
        codes = _in_float(self.time_projection, time)
        return time, codes.unflatten(-1, (6, -1))

    def _text_keys(self, text: TextRows) -> _TextKeys:
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
        layers = (layer for layer in self.blocks if isinstance(layer, _Layer))
        pairs = [layer.cross_attn.keys_and_values(embedded) for layer in layers]
        return _TextKeys([k for k, _ in pairs], [v for _, v in pairs], bias)

    def _unpatched(self, tokens: Tensor, size: tuple[int, int, int]) -> Tensor:
        """[B, S, 4c] (row, column, channel) -> [B, L, c, h, w]."""
        grid = tokens.unflatten(1, size).unflatten(-1, (PATCH, PATCH, -1))
        return grid.permute(0, 1, 6, 2, 4, 3, 5).flatten(-2).flatten(-3, -2)


def _modulated(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """LayerNorm(x) (1 + scale) + shift in float32, back in the dtype of x."""
    normed = F.layer_norm(x.float(), x.shape[-1:], eps=eps)
    return torch.addcmul(shift, normed, 1 + scale).to(x.dtype)


def _gated(x: Tensor, update: Tensor, gate: Tensor) -> Tensor:
    """x + gate * update, summed in float32, in the dtype of x."""
    return torch.addcmul(x.float(), update.float(), gate).to(x.dtype)


def _in_float(layers: nn.Sequential, x: Tensor) -> Tensor:
    """`layers` (linear or without weights) computed in float32 whatever their weights are in."""
    for layer in layers:
        if isinstance(layer, nn.Linear):
            assert layer.bias is not None
            x = F.linear(x, layer.weight.float(), layer.bias.float())
        else:
            x = layer(x)
    return x
