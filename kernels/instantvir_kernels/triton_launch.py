"""The Triton kernels behind the signatures of `reference`: shapes and strides in, launches out.

Imports triton; `dispatch` imports this module only where it is about to be used.
"""

import math
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from instantvir_kernels import tiles
from instantvir_kernels.reference import Quantised
from instantvir_kernels.tiles import Tile
from instantvir_kernels.triton_attention import attention_forward
from instantvir_kernels.triton_attention_backward import (
    attention_backward_keys,
    attention_backward_queries,
)
from instantvir_kernels.triton_grid import depthwise_causal_conv as conv_kernel
from instantvir_kernels.triton_grid import haar_patchify as patchify_kernel
from instantvir_kernels.triton_grid import haar_unpatchify as unpatchify_kernel
from instantvir_kernels.triton_steps import norm_rope_write as norm_rope_write_kernel
from instantvir_kernels.triton_steps import residual_norm as residual_norm_kernel

PRECISION = "tf32x3"
"""Of a float32 product where a card has no better one; 16-bit types ignore it."""


_P = ParamSpec("_P")
_R = TypeVar("_R")


def _on_its_device(
    launch: Callable[Concatenate[Tensor, _P], _R],
) -> Callable[Concatenate[Tensor, _P], _R]:
    """`launch` while the card of its first tensor is the current one: triton launches go there."""

    @wraps(launch)
    def launched(x: Tensor, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with torch.cuda.device_of(x):
            return launch(x, *args, **kwargs)

    return launched


def attention(q: Tensor, k: Tensor, v: Tensor, *, key_bias: Tensor | None = None) -> Tensor:
    """`reference.attention`; k and v are read in place whatever their strides."""
    return forward(q, k, v, tokens_per_block=k.shape[1], key_bias=key_bias)


def quantised_attention(q: Tensor, k: Quantised, v: Quantised) -> Tensor:
    """`reference.quantised_attention`; the 8-bit values are widened in registers."""
    return forward(q, k.values, v.values, tokens_per_block=k.values.shape[1], scales=(k, v))


def block_causal_attention(q: Tensor, k: Tensor, v: Tensor, *, tokens_per_block: int) -> Tensor:
    """`reference.block_causal_attention`; differentiable, and tiles nobody sees are skipped."""
    if torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v)):
        return _BlockCausalAttention.apply(q, k, v, tokens_per_block)  # type: ignore[no-untyped-call]
    return forward(q, k, v, tokens_per_block=tokens_per_block)


class _BlockCausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, tokens_per_block: int) -> Tensor:
        lse = q.new_empty(q.shape[0], q.shape[2], q.shape[1], dtype=torch.float32)
        out = forward(q, k, v, tokens_per_block=tokens_per_block, lse=lse)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.tokens_per_block = tokens_per_block
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, out, lse = ctx.saved_tensors
        gradients = backward(q, k, v, out, lse, d_out, tokens_per_block=ctx.tokens_per_block)
        return *gradients, None


@_on_its_device
def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    tokens_per_block: int,
    key_bias: Tensor | None = None,
    scales: tuple[Quantised, Quantised] | None = None,
    lse: Tensor | None = None,
    tile: Tile | None = None,
) -> Tensor:
    """Attention to the end of each query's block, [B, Q, N, D].

    Args:
        q: [B, Q, N, D]. k, v: [B, K, N, D], positions right-aligned.
        tokens_per_block: K if every query sees every key.
        key_bias: [K].
        scales: of k and v if those are the values of `Quantised`.
        lse: [B, N, Q] float32 that receives the log2-sum of each row, for `backward`.
        tile: instead of the table's.
    """
    q, k, v = (_heads_dense(t) for t in (q, k, v))
    batch, num_queries, heads, dim = q.shape
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    tile = tile or _tile(tiles.ATTENTION, q)
    k_scale, v_scale = (scales[0].scale, scales[1].scale) if scales else (q, q)
    attention_forward[(triton.cdiv(num_queries, tile.block_q), batch * heads)](
        q, k, v, out,
        q if lse is None else lse,  # pointers that are not read need some address
        q if key_bias is None else key_bias.contiguous(),
        k_scale.contiguous() if scales else q,
        v_scale.contiguous() if scales else q,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *out.stride()[:3],
        k_scale.shape[2] if scales else 0,
        heads, num_queries, k.shape[1], tokens_per_block,
        scales[0].tokens_per_block if scales else 1,
        math.log2(math.e) / math.sqrt(dim),
        HEAD_DIM=dim, BLOCK_D=triton.next_power_of_2(dim),
        BLOCK_Q=tile.block_q, BLOCK_K=tile.block_k,
        HAS_BIAS=key_bias is not None, QUANTISED=scales is not None, SAVE_LSE=lse is not None,
        PRECISION=PRECISION, num_warps=tile.num_warps, num_stages=tile.num_stages,
    )  # fmt: skip
    return out


@_on_its_device
def backward(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, d_out: Tensor, *,
    tokens_per_block: int, query_tile: Tile | None = None, key_tile: Tile | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """(d_q, d_k, d_v) of `forward`, given its `out` and `lse`; tiles are the table's by default."""
    q, k, v = (_heads_dense(t) for t in (q, k, v))
    d_out = d_out.contiguous()
    batch, num_queries, heads, dim = q.shape
    num_keys = k.shape[1]
    delta = torch.empty_like(lse)
    d_q, d_k, d_v = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v))
    numbers = (
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
        heads, num_queries, num_keys, tokens_per_block,
        math.log2(math.e) / math.sqrt(dim), 1 / math.sqrt(dim),
    )  # fmt: skip
    tile = query_tile or _tile(tiles.BACKWARD_QUERIES, q)
    attention_backward_queries[(triton.cdiv(num_queries, tile.block_q), batch * heads)](
        q, k, v, out, d_out, lse, delta, d_q, *numbers, **_constants(tile, dim)
    )
    tile = key_tile or _tile(tiles.BACKWARD_KEYS, q)
    attention_backward_keys[(triton.cdiv(num_keys, tile.block_k), batch * heads)](
        q, k, v, d_out, lse, delta, d_k, d_v, *numbers, **_constants(tile, dim)
    )
    return d_q, d_k, d_v


def _constants(tile: Tile, dim: int) -> dict[str, int | str]:
    return {
        "HEAD_DIM": dim, "BLOCK_D": triton.next_power_of_2(dim),
        "BLOCK_Q": tile.block_q, "BLOCK_K": tile.block_k, "PRECISION": PRECISION,
        "num_warps": tile.num_warps, "num_stages": tile.num_stages,
    }  # fmt: skip


def _heads_dense(x: Tensor) -> Tensor:
    """x with its last dimension dense; every other stride stays as it is."""
    return x if x.stride(-1) == 1 else x.contiguous()


@cache
def _architecture(device_index: int) -> int:
    found = tiles.architecture_of(torch.cuda.get_device_capability(device_index))
    assert found is not None, "dispatch sends older cards elsewhere"
    return found


def _tile(kernel: str, x: Tensor) -> Tile:
    if not x.is_cuda:
        return tiles.INTERPRETER_TILE
    return tiles.table()[_architecture(x.get_device())][kernel][x.shape[-1]]


def layer_norm_modulate(x: Tensor, scale: Tensor, shift: Tensor, *, eps: float = 1e-6) -> Tensor:
    """`reference.layer_norm_modulate` in one pass."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    _residual_norm(x, x, None, scale, shift, out, out, eps, residual=False, norm=True)
    return out


def gated_residual(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """`reference.gated_residual` in one pass."""
    total = torch.empty_like(x, memory_format=torch.contiguous_format)
    _residual_norm(x, y, gate, gate, gate, total, total, 0.0, residual=True, norm=False)
    return total


def gated_residual_norm(
    x: Tensor, y: Tensor, gate: Tensor | None, scale: Tensor, shift: Tensor, *, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """`reference.gated_residual_norm` in one pass: the sum is not read back to be normed."""
    total = torch.empty_like(x, memory_format=torch.contiguous_format)
    out = torch.empty_like(y, memory_format=torch.contiguous_format)
    _residual_norm(x, y, gate, scale, shift, total, out, eps, residual=True, norm=True)
    return total, out


@_on_its_device
def _residual_norm(
    x: Tensor, y: Tensor, gate: Tensor | None, scale: Tensor, shift: Tensor,
    total: Tensor, out: Tensor, eps: float, *, residual: bool, norm: bool,
) -> None:  # fmt: skip
    batch, tokens, width = x.shape
    given = [scale if rows is None else rows for rows in (gate, scale, shift)]
    groups = max(rows.shape[1] for rows in given)
    if tokens % groups or any(groups % rows.shape[1] for rows in given):
        counts = ", ".join(str(r.shape[1]) for r in given)
        raise ValueError(f"{tokens} tokens cannot share {counts} rows of modulation evenly")
    # rows of modulation are small: one layout for the three of them costs nothing
    rows = [
        r.repeat_interleave(groups // r.shape[1], 1).expand(batch, groups, width).contiguous()
        for r in given
    ]
    residual_norm_kernel[(tokens, batch)](
        x.contiguous(), y.contiguous(), *rows, total, out,
        tokens, tokens // groups, *rows[0].stride()[:2], width, eps,
        HAS_RESIDUAL=residual, HAS_GATE=gate is not None, HAS_NORM=norm,
        BLOCK_M=triton.next_power_of_2(width), num_warps=tiles.ROW_WARPS,
    )  # fmt: skip


@_on_its_device
def norm_rope_write(
    q: Tensor, k: Tensor, v: Tensor, k_ring: Tensor, v_ring: Tensor, *,
    q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor, first_slot: int,
    eps: float = 1e-6,
) -> Tensor:  # fmt: skip
    """`reference.norm_rope_write` in one pass, the ring written in place."""
    heads, dim = k_ring.shape[2:]
    batch, tokens, width = q.shape
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.stride(-1) != 1:
            raise ValueError(f"rows of {name} must be dense in memory; strides are {x.stride()}")
    for name, ring in (("k_ring", k_ring), ("v_ring", v_ring)):
        if ring.stride()[2:] != (dim, 1):
            raise ValueError(f"heads of {name} must be dense; strides are {ring.stride()}")
    q_out = torch.empty(batch, tokens, heads, dim, dtype=q.dtype, device=q.device)
    norm_rope_write_kernel[(tokens, batch)](
        q, k, v, q_weight, k_weight, cos.contiguous(), sin.contiguous(), q_out, k_ring, v_ring,
        *q.stride()[:2], *k.stride()[:2], *v.stride()[:2],
        *k_ring.stride()[:2], *v_ring.stride()[:2],
        tokens, first_slot, k_ring.shape[1], width, eps,
        HEAD_DIM=dim, BLOCK_M=triton.next_power_of_2(width), num_warps=tiles.ROW_WARPS,
    )  # fmt: skip
    return q_out


@_on_its_device
def depthwise_causal_conv(
    x: Tensor, memory: Tensor, weight: Tensor, bias: Tensor, *, residual: bool
) -> Tensor:
    """`reference.depthwise_causal_conv` without padded or concatenated copies."""
    x, memory, weight = x.contiguous(), memory.contiguous(), weight.contiguous()
    batch, frames, height, width, channels = x.shape
    bias = bias.contiguous()
    out = torch.empty_like(x)
    block_w, block_c = tiles.CONV_TILE
    grid = (triton.cdiv(width, block_w), frames * height, batch * triton.cdiv(channels, block_c))
    conv_kernel[grid](
        x, memory, weight, bias, out, frames, height, width, channels,
        RESIDUAL=residual, BLOCK_W=block_w, BLOCK_C=block_c, num_warps=tiles.ROW_WARPS,
    )  # fmt: skip
    return out


@_on_its_device
def haar_patchify(pixels: Tensor, *, frames_per_token: int) -> tuple[Tensor, Tensor]:
    """`reference.haar_patchify`: pixels are read once, tokens written once."""
    pixels = pixels.contiguous()
    batch, frames, _, height, width = pixels.shape
    grid = (batch, frames // frames_per_token, height // 8, width // 8)
    places = 96 if frames_per_token == 4 else 48
    low = pixels.new_empty(*grid, places)
    high = pixels.new_empty(*grid, places * (7 if frames_per_token == 4 else 3))
    tokens = grid[1] * grid[2] * grid[3]
    patchify_kernel[(triton.cdiv(tokens, tiles.HAAR_TOKENS), batch)](
        pixels, low, high, tokens, frames, height, width, FRAMES=frames_per_token,
        BLOCK_TOKENS=tiles.HAAR_TOKENS, BLOCK_PLACES=triton.next_power_of_2(places), num_warps=tiles.ROW_WARPS,
    )  # fmt: skip
    return low, high


@_on_its_device
def haar_unpatchify(low: Tensor, high: Tensor, *, frames_per_token: int) -> Tensor:
    """`reference.haar_unpatchify`: tokens are read once, pixels written once."""
    low, high = low.contiguous(), high.contiguous()
    batch, t, h, w, places = low.shape
    pixels = low.new_empty(batch, t * frames_per_token, 3, 8 * h, 8 * w)
    tokens = t * h * w
    unpatchify_kernel[(triton.cdiv(tokens, tiles.HAAR_TOKENS), batch)](
        low, high, pixels, tokens, t * frames_per_token, 8 * h, 8 * w, FRAMES=frames_per_token,
        BLOCK_TOKENS=tiles.HAAR_TOKENS, BLOCK_PLACES=triton.next_power_of_2(places), num_warps=tiles.ROW_WARPS,
    )  # fmt: skip
    return pixels
