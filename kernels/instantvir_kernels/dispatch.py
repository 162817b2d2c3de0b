"""The entry points: each picks the implementation that runs best here and says once which.

`INSTANTVIR_KERNELS` overrides the choice: auto, triton, flex, sdpa or reference. What cannot be had
falls back, with a warning that says why. Contracts are those of `reference`.
"""

import logging
import os
from dataclasses import replace
from functools import cache, lru_cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from instantvir_kernels import cpu_steps, reference
from instantvir_kernels.choice import BACKENDS, Call, Choice, Kind, choose
from instantvir_kernels.machine import launch_problem, machine_of
from instantvir_kernels.reference import Quantised

logger = logging.getLogger(__name__)

FLEX_SHAPES = 64
"""Shapes and strides that FlexAttention is compiled for in one process."""


def backend() -> str:
    """The backend that `INSTANTVIR_KERNELS` asks for, `auto` if it asks for none.

    Raises:
        ValueError: if the variable names no backend.
    """
    name = os.environ.get("INSTANTVIR_KERNELS", "auto")
    if name not in BACKENDS:
        raise ValueError(f"INSTANTVIR_KERNELS is {name!r}; use one of {', '.join(BACKENDS)}")
    return name


def attention(q: Tensor, k: Tensor, v: Tensor, *, key_bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(D) + key_bias) v, [B, Q, N, D]: one block against all it may see.

    Same contract as `reference.attention`. This is the streaming case: keys and values are read in
    place, whatever their strides, such as a prefix of a `KVCache` buffer.
    """
    others = (k, v) if key_bias is None else (k, v, key_bias)
    match _chosen(Kind.ATTENTION, q, *others, has_bias=key_bias is not None):
        case "triton":
            from instantvir_kernels import triton_launch

            return triton_launch.attention(q, k, v, key_bias=key_bias)
        case "flex":
            return _flex(q, k, v, None)
        case "sdpa":
            return _sdpa_biased(q, k, v, key_bias)
    return reference.attention(q, k, v, key_bias=key_bias)


def block_causal_attention(q: Tensor, k: Tensor, v: Tensor, *, tokens_per_block: int) -> Tensor:
    """softmax(q k^T / sqrt(D), masked to earlier-or-same blocks) v, [B, Q, N, D].

    Same contract as `reference.block_causal_attention`: a whole sequence at once, as in training;
    differentiable. Queries that are one block see every key, so no mask is built.
    """
    if _is_one_block(q, k, tokens_per_block) and not _needs_gradient(q, k, v):
        return attention(q, k, v)
    match _chosen(Kind.BLOCK_CAUSAL, q, k, v):
        case "triton":
            from instantvir_kernels import triton_launch

            return triton_launch.block_causal_attention(q, k, v, tokens_per_block=tokens_per_block)
        case "flex":
            return _flex(q, k, v, _flex_mask(q.shape[1], k.shape[1], tokens_per_block, q.device))
        case "sdpa":
            return _sdpa(q, k, v, _mask(q, k, tokens_per_block))
    return reference.block_causal_attention(q, k, v, tokens_per_block=tokens_per_block)


def quantised_attention(q: Tensor, k: Quantised, v: Quantised) -> Tensor:
    """`attention` over keys and values kept in 8 bits; same contract as the reference's."""
    if _chosen(Kind.QUANTISED, q, kept_dtype=k.values.dtype) == "triton":
        from instantvir_kernels import triton_launch

        return triton_launch.quantised_attention(q, k, v)
    return reference.quantised_attention(q, k, v)


def layer_norm_modulate(x: Tensor, scale: Tensor, shift: Tensor, *, eps: float = 1e-6) -> Tensor:
    """LayerNorm(x) (1 + scale) + shift, [B, S, M]; same contract as the reference's."""
    return _steps(x, scale, shift).layer_norm_modulate(x, scale, shift, eps=eps)


def gated_residual(x: Tensor, y: Tensor, gate: Tensor) -> Tensor:
    """x + gate y, [B, S, M]; same contract as the reference's."""
    return _steps(x, y, gate).gated_residual(x, y, gate)


def gated_residual_norm(
    x: Tensor, y: Tensor, gate: Tensor | None, scale: Tensor, shift: Tensor, *, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """(x + gate y, its modulated LayerNorm); same contract as the reference's."""
    return _steps(x, y, gate, scale, shift).gated_residual_norm(x, y, gate, scale, shift, eps=eps)


def norm_rope_write(
    q: Tensor, k: Tensor, v: Tensor, k_ring: Tensor, v_ring: Tensor, *,
    q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor, first_slot: int,
    eps: float = 1e-6,
) -> Tensor:  # fmt: skip
    """Normed and rotated queries; keys and values go into the ring. The reference's contract."""
    return _steps(q, k, v, q_weight, k_weight).norm_rope_write(
        q, k, v, k_ring, v_ring, q_weight=q_weight, k_weight=k_weight, cos=cos, sin=sin,
        first_slot=first_slot, eps=eps,
    )  # fmt: skip


def depthwise_causal_conv(
    x: Tensor, memory: Tensor, weight: Tensor, bias: Tensor, *, residual: bool
) -> Tensor:
    """Depthwise 3x3x3 convolution that looks back in time, [B, T, H, W, C]; the reference's contract."""
    steps = _steps(x, memory, weight, bias)
    return steps.depthwise_causal_conv(x, memory, weight, bias, residual=residual)


def haar_patchify(pixels: Tensor, *, frames_per_token: int) -> tuple[Tensor, Tensor]:
    """Haar bands of pixels as patches, (low, high); same contract as the reference's."""
    return _steps(pixels).haar_patchify(pixels, frames_per_token=frames_per_token)


def haar_unpatchify(low: Tensor, high: Tensor, *, frames_per_token: int) -> Tensor:
    """Pixels of `haar_patchify`'s tokens; same contract as the reference's."""
    return _steps(low, high).haar_unpatchify(low, high, frames_per_token=frames_per_token)


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """gelu(x weight^T + bias), tanh approximation, in the epilogue of the product.

    On a card cuBLASLt applies it before the result leaves the chip, and PyTorch reaches that by a function of
    its own; a product of ours would lose more to cuBLAS than the saved pass is worth.
    """
    if x.dtype != weight.dtype:  # autocast gives one dtype to the plain product, not to these
        return reference.linear_gelu(x, weight, bias)
    match _chosen(Kind.STEP, x, weight, bias):
        case "triton" if x.dtype != torch.float32:
            out = torch._addmm_activation(bias, x.flatten(0, -2), weight.t(), use_gelu=True)
            return out.view(*x.shape[:-1], -1)
        case "cpu":
            return cpu_steps.linear_gelu(x, weight, bias)
    return reference.linear_gelu(x, weight, bias)


def gated_feed_forward(
    x: Tensor, *, norm_weight: Tensor, norm_bias: Tensor, up: Tensor, down: Tensor, residual: bool
) -> Tensor:
    """LayerNorm, a product, a gelu(b), a product, [..., C]; same contract as the reference's.

    On a card the reference runs: cuBLAS has no epilogue that gates.
    """
    is_on_cpu = _chosen(Kind.STEP, x, norm_weight, norm_bias, up, down) == "cpu"
    steps: ModuleType = cpu_steps if is_on_cpu else reference
    return steps.gated_feed_forward(
        x, norm_weight=norm_weight, norm_bias=norm_bias, up=up, down=down, residual=residual
    )


def _needs_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def _chosen(
    kind: Kind,
    q: Tensor,
    *others: Tensor,
    has_bias: bool = False,
    kept_dtype: torch.dtype | None = None,
) -> str:
    call = Call(
        kind=kind,
        device=q.device.type,
        dtype=q.dtype,
        head_dim=None if kind is Kind.STEP else q.shape[-1],
        kept_dtype=kept_dtype,
        has_bias=has_bias,
        needs_gradient=_needs_gradient(q, *others),
    )
    requested = backend()
    if requested == "reference":  # asks nothing of the machine
        return requested
    machine = machine_of(q.device)
    choice = choose(requested, call, machine)
    if choice.backend == "triton" and q.is_cuda:
        problem = launch_problem(q.device)
        if problem is not None:
            choice = choose(requested, call, replace(machine, triton_problem=problem))
    _say_once(kind, choice, q.is_cuda)
    return choice.backend


def _steps(x: Tensor, *others: Tensor | None) -> Any:
    """The module whose functions run the steps on these tensors."""
    match _chosen(Kind.STEP, x, *(other for other in others if other is not None)):
        case "triton":
            from instantvir_kernels import triton_launch

            return triton_launch
        case "cpu":
            return cpu_steps
    return reference


@cache
def _say_once(kind: Kind, choice: Choice, is_on_card: bool) -> None:
    """Tell which backend it is: news on a card, but what everybody expects on a CPU."""
    expected = logging.INFO if is_on_card else logging.DEBUG
    level = logging.WARNING if choice.is_fallback else expected
    logger.log(level, "%s runs on %s: %s", kind.value, choice.backend, choice.reason)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))  # heads first
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def _sdpa_biased(q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor | None) -> Tensor:
    """SDPA with the bias in float32: log(452) in bfloat16 makes a weight 1 % too large."""
    if key_bias is None:
        return _sdpa(q, k, v, None)
    exact = torch.promote_types(q.dtype, torch.float32)
    mask = key_bias.to(exact).expand(q.shape[1], -1)
    if q.device.type == "cpu" or q.dtype == exact:
        return _sdpa(q, k, v, mask)
    # elsewhere a mask must have the queries' dtype
    return _sdpa(q.to(exact), k.to(exact), v.to(exact), mask).to(q.dtype)


def _mask(q: Tensor, k: Tensor, tokens_per_block: int) -> Tensor | None:
    if _is_one_block(q, k, tokens_per_block):
        return None  # the last block sees everything
    return reference.block_causal_mask(q.shape[1], k.shape[1], tokens_per_block, q.device)


def _is_one_block(q: Tensor, k: Tensor, tokens_per_block: int) -> bool:
    """Whether all queries lie in the block of the last key, so that they see every key."""
    first, last = k.shape[1] - q.shape[1], k.shape[1] - 1
    return first // tokens_per_block == last // tokens_per_block


@lru_cache(maxsize=8)
def _flex_mask(queries: int, keys: int, tokens_per_block: int, device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return key // tokens_per_block <= (query + (keys - queries)) // tokens_per_block

    with torch.inference_mode(False):  # it is kept, and training may need it later
        return create_block_mask(sees, None, None, queries, keys, device=device)


@cache
def _compiled_flex() -> Any:
    from torch._dynamo import config
    from torch.nn.attention.flex_attention import flex_attention

    # past the limit every score is built, without a word: 48 GB at the size of a training sequence
    config.cache_size_limit = max(config.cache_size_limit, FLEX_SHAPES)
    return torch.compile(flex_attention, dynamic=False)


def _flex(q: Tensor, k: Tensor, v: Tensor, mask: Any) -> Tensor:
    from torch.nn.attention.flex_attention import flex_attention

    run = _compiled_flex() if q.is_cuda else flex_attention  # compiling takes a minute on a CPU
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return run(q, k, v, block_mask=mask).transpose(1, 2)
