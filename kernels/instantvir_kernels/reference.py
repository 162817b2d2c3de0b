"""The truth for every kernel: plain PyTorch, no tricks, runs anywhere."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


def block_causal_mask(
    num_queries: int, num_keys: int, tokens_per_block: int, device: torch.device | str = "cpu"
) -> Tensor:
    """[Q, K] bool, True where a query may look: its own block and every earlier one.

    Queries are the last `num_queries` of the `num_keys` positions (cache + current block).
    """
    key_block = torch.arange(num_keys, device=device) // tokens_per_block
    query_block = key_block[num_keys - num_queries :]
    return key_block[None, :] <= query_block[:, None]


def attention(q: Tensor, k: Tensor, v: Tensor, *, key_bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(D) + key_bias) v, every query sees every key, accumulated in float32.

    Args:
        q: [B, Q, N, D]. k, v: [B, K, N, D], any strides; the order of the keys does not matter.
        key_bias: [K] added to the scores of each key; log(n) makes one key stand for n equal ones,
            -inf hides a key (not all of them: the result would be NaN).

    Returns:
        [B, Q, N, D] in the dtype of `q`.
    """
    scores = _scores(q, k)
    if key_bias is not None:
        scores = scores + key_bias.float()
    return _weighted(scores, v).to(q.dtype)


def block_causal_attention(q: Tensor, k: Tensor, v: Tensor, *, tokens_per_block: int) -> Tensor:
    """softmax(q k^T / sqrt(D), masked to earlier-or-same blocks) v, accumulated in float32.

    Args:
        q: [B, Q, N, D]. k, v: [B, K, N, D] with K >= Q; positions are right-aligned.
        tokens_per_block: tokens that see each other; positions count from the first key.

    Returns:
        [B, Q, N, D] in the dtype of `q`.
    """
    allowed = block_causal_mask(q.shape[1], k.shape[1], tokens_per_block, q.device)
    return _weighted(_scores(q, k).masked_fill(~allowed, float("-inf")), v).to(q.dtype)


def _scores(q: Tensor, k: Tensor) -> Tensor:
    return torch.einsum("bqnd,bknd->bnqk", q.float(), k.float()) * q.shape[-1] ** -0.5


def _weighted(scores: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("bnqk,bknd->bqnd", scores.softmax(-1), v.float())


@dataclass(frozen=True)
class Quantised:
    """Keys or values in 8 bits, one scale per head and block: values * scale is about the original."""

    values: Tensor
    """[B, K, N, D] int8 or float8_e4m3fn."""
    scale: Tensor
    """[B, N, ceil(K / tokens_per_block)] float32."""
    tokens_per_block: int

    def dequantised(self) -> Tensor:
        """[B, K, N, D] float32."""
        per_token = self.scale.repeat_interleave(self.tokens_per_block, 2)
        return self.values.float() * per_token[:, :, : self.values.shape[1]].mT[..., None]


LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
"""Largest magnitude of each 8-bit type that keys and values may be kept in."""


def quantise(x: Tensor, *, tokens_per_block: int, dtype: torch.dtype = torch.int8) -> Quantised:
    """x [B, K, N, D] in 8 bits; each head of each block is scaled to fill the range of `dtype`.

    Raises:
        ValueError: if `dtype` is neither int8 nor float8_e4m3fn.
    """
    if dtype not in LARGEST:
        raise ValueError(f"keys and values are quantised to int8 or float8_e4m3fn, not {dtype}")
    blocks = x.float().split(tokens_per_block, 1)
    peak = torch.stack([block.abs().amax((1, 3)) for block in blocks], -1)  # [B, N, blocks]
    scale = (peak / LARGEST[dtype]).clamp_min(torch.finfo(torch.float32).tiny)
    scaled = [
        block / scale[:, None, :, index, None] for index, block in enumerate(blocks)
    ]  # [B, S, N, D]
    values = torch.cat(scaled, 1)
    if dtype == torch.int8:
        values = values.round()
    return Quantised(values.to(dtype), scale, tokens_per_block)


def quantised_attention(q: Tensor, k: Quantised, v: Quantised) -> Tensor:
    """`attention` with keys and values kept in 8 bits, [B, Q, N, D] in the dtype of `q`."""
    return attention(q, k.dequantised(), v.dequantised()).to(q.dtype)


def layer_norm_modulate(x: Tensor, scale: Tensor, shift: Tensor, *, eps: float = 1e-6) -> Tensor:
    """LayerNorm(x) (1 + scale) + shift, [B, S, M] in the dtype of `x`, computed in float32.

    Args:
        x: [B, S, M].
        scale, shift: [B or 1, G, M]; row g belongs to tokens g S/G .. (g + 1) S/G. An affine
            LayerNorm is the case scale = weight - 1, shift = bias.
    """
    normed = F.layer_norm(x.float(), x.shape[-1:], eps=eps)
    modulated = normed * (1 + _per_token(scale, x)) + _per_token(shift, x)
    return modulated.to(x.dtype)


def gated_residual(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """x + gate y, [B, S, M] in the dtype of `x`, computed in float32; gate [B or 1, G, M]."""
    return (x.float() + _per_token(gate, x) * y.float()).to(x.dtype)


def gated_residual_norm(
    x: Tensor, y: Tensor, gate: Tensor | None, scale: Tensor, shift: Tensor, *, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """(`gated_residual`, `layer_norm_modulate` of it): the end of one layer and the start of the next.

    Without a gate the residual is x + y. The second result has the dtype of `y`, so that a float32
    residual stream feeds bfloat16 layers.
    """
    total = (x.float() + y.float()).to(x.dtype) if gate is None else gated_residual(x, y, gate)
    normed = F.layer_norm(total.float(), x.shape[-1:], eps=eps)
    modulated = normed * (1 + _per_token(scale, x)) + _per_token(shift, x)
    return total, modulated.to(y.dtype)


def _per_token(rows: Tensor, x: Tensor) -> Tensor:
    """[B or 1, G, M] repeated to the tokens of x [B, S, M], float32; one row is left to broadcast."""
    if rows.shape[1] == 1:
        return rows.float()
    return rows.float().repeat_interleave(x.shape[1] // rows.shape[1], 1)


def norm_rope_write(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_ring: Tensor,
    v_ring: Tensor,
    *,
    q_weight: Tensor,
    k_weight: Tensor,
    cos: Tensor,
    sin: Tensor,
    first_slot: int,
    eps: float = 1e-6,
) -> Tensor:
    """Queries [B, S, N, D], normed and rotated; keys, the same, and values go into a ring.

    RMS-norm runs over the whole width M = N D before heads are split, as in Wan2.1.

    Args:
        q, k, v: [B, S, M], rows dense.
        k_ring, v_ring: [B, slots, N, D], heads dense; token s is written to slot (first_slot + s)
            modulo the number of slots, over what was there.
        q_weight, k_weight: [M] of the RMS-norms.
        cos, sin: [S, D/2] float32; channels 2i and 2i + 1 of each head are turned by angle i.
        first_slot: slot of the first token.
    """
    heads, dim = k_ring.shape[2:]
    slots = (first_slot + torch.arange(q.shape[1], device=q.device)) % k_ring.shape[1]
    k_ring[:, slots] = _norm_rotate(k, k_weight, cos, sin, heads, eps).to(k_ring.dtype)
    v_ring[:, slots] = v.unflatten(-1, (heads, dim)).to(v_ring.dtype)
    return _norm_rotate(q, q_weight, cos, sin, heads, eps).to(q.dtype)


def _norm_rotate(
    x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, heads: int, eps: float
) -> Tensor:
    """[B, S, M] -> [B, S, N, D] float32."""
    normed = F.rms_norm(x.float(), x.shape[-1:], weight.float(), eps)
    even, odd = normed.unflatten(-1, (heads, -1, 2)).unbind(-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """gelu(x weight^T + bias), tanh approximation, [..., out]."""
    return F.gelu(F.linear(x, weight, bias), approximate="tanh")


def gated_feed_forward(
    x: Tensor, *, norm_weight: Tensor, norm_bias: Tensor, up: Tensor, down: Tensor, residual: bool
) -> Tensor:
    """(a gelu(b)) down^T with (a, b) = LayerNorm(x) up^T, [..., C] (+ x if residual); GELU by erf.

    Args:
        x: [..., C].
        norm_weight, norm_bias: [C] of the LayerNorm.
        up: [2 I, C], the rows of a before those of b. down: [C, I].
        residual: add x to the result.
    """
    normed = F.layer_norm(x, x.shape[-1:], norm_weight, norm_bias)
    value, gate = F.linear(normed, up).chunk(2, -1)
    out = F.linear(value * F.gelu(gate), down)
    return x + out if residual else out


def depthwise_causal_conv(
    x: Tensor, memory: Tensor, weight: Tensor, bias: Tensor, *, residual: bool
) -> Tensor:
    """3x3x3 depthwise convolution that looks back in time only, [B, T, H, W, C] (+ x if residual).

    Args:
        x: [B, T, H, W, C] grid of tokens.
        memory: [B, 2, H, W, C], the two planes before x (zeros at the start of a video).
        weight: [C, 1, 3, 3, 3]. bias: [C].
        residual: add x to the result.
    """
    planes = torch.cat([memory, x], 1).permute(0, 4, 1, 2, 3).float()
    out = F.conv3d(planes, weight.float(), bias.float(), padding=(0, 1, 1), groups=x.shape[-1])
    out = out.permute(0, 2, 3, 4, 1)
    return (out + x.float() if residual else out).to(x.dtype)


def haar_patchify(pixels: Tensor, *, frames_per_token: int) -> tuple[Tensor, Tensor]:
    """Un-normalised Haar bands of pixels, as patches: low [B, t, h, w, P], high [B, t, h, w, 3P or 7P].

    LeanVAE's patcher. With 4 frames per token one Haar step runs in time, height and width and
    P = 3 colors x 2 x 4 x 4; with 1 frame (the first of a video) in height and width, P = 3 x 4 x 4.

    Args:
        pixels: [B, T, 3, H, W], T a multiple of `frames_per_token`, H and W of 8.
        frames_per_token: 4 or 1.
    """
    bands = pixels.float().transpose(1, 2)  # [B, c, T, H, W], one axis after the other split
    if frames_per_token == 4:
        for dim in (4, 3, 2):  # the outermost split comes first in the order of bands: T, H, W
            bands = _split_bands(bands, dim)
        patch_t = 2
    else:
        bands = _split_bands(_split_bands(bands, 3), 4)  # W outermost
        patch_t = 1
    batch, channels, t, h, w = bands.shape
    grid = bands.reshape(batch, channels, t // patch_t, patch_t, h // 4, 4, w // 4, 4)
    tokens = grid.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).to(pixels.dtype)
    low = 3 * patch_t * 16
    return tokens[..., :low].contiguous(), tokens[..., low:].contiguous()


def haar_unpatchify(low: Tensor, high: Tensor, *, frames_per_token: int) -> Tensor:
    """Pixels [B, T, 3, H, W] of `haar_patchify`'s tokens: its exact inverse."""
    patch_t = 2 if frames_per_token == 4 else 1
    tokens = torch.cat([low, high], -1).float()
    batch, t, h, w, _ = tokens.shape
    grid = tokens.reshape(batch, t, h, w, -1, patch_t, 4, 4)
    bands = grid.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(batch, -1, t * patch_t, 4 * h, 4 * w)
    for dim in (2, 3, 4) if frames_per_token == 4 else (4, 3):
        bands = _merge_bands(bands, dim)
    return bands.transpose(1, 2).to(low.dtype)


def _split_bands(x: Tensor, dim: int) -> Tensor:
    """Sums, then differences, of neighbours along `dim`; twice the channels (dim 1), half the size."""
    first, second = x.unflatten(dim, (-1, 2)).unbind(dim + 1)
    return torch.cat([first + second, first - second], 1)


def _merge_bands(x: Tensor, dim: int) -> Tensor:
    """Inverse of `_split_bands`."""
    low, high = x.chunk(2, 1)
    return torch.stack([(low + high) / 2, (low - high) / 2], dim + 1).flatten(dim, dim + 1)


def largest_error(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """How far results are from the reference's: the row that is furthest off, of any tensor.

    A row is the last dimension, such as one head of one token; its error is the norm of the
    difference, as a part of the root mean square norm of the rows expected. An average of many
    values is small, so an absolute limit would pass an attention that returns zeros.

    Returns:
        0 if all are equal, NaN if any value is not a number (Python's `max` would forget it).
    """
    errors = [_row_error(one, other) for one, other in zip(actual, expected, strict=True)]
    return max(errors) if all(map(math.isfinite, errors)) else math.nan


def _row_error(actual: Tensor, expected: Tensor) -> float:
    differences = torch.linalg.vector_norm(actual.float() - expected.float(), dim=-1)
    rows = torch.linalg.vector_norm(expected.float(), dim=-1)
    tiny = torch.finfo(torch.float32).tiny  # where nothing but zeros is expected
    return (differences.max() / rows.square().mean().sqrt().clamp(min=tiny)).item()
