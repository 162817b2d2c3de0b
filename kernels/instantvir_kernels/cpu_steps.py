"""The steps of `reference` as PyTorch runs them fastest on a CPU: the same contracts, no gradients.

What is not here has no faster form than the reference.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from instantvir_kernels import reference
from instantvir_kernels.reference import gated_residual, haar_patchify, haar_unpatchify

__all__ = [
    "depthwise_causal_conv",
    "gated_feed_forward",
    "gated_residual",
    "gated_residual_norm",
    "haar_patchify",
    "haar_unpatchify",
    "layer_norm_modulate",
    "linear_gelu",
    "norm_rope_write",
]

_TOKENS_PER_THREAD = 2048
"""Tokens that go through a feed-forward net together: few enough for their hidden layer to stay in
cache, enough for the products to run at full rate (the least of 256 to 4096, within 5 %)."""


def layer_norm_modulate(x: Tensor, scale: Tensor, shift: Tensor, *, eps: float = 1e-6) -> Tensor:
    """`reference.layer_norm_modulate`; one row of modulation is the affine part of the norm."""
    return _norm(x, scale, shift, eps).to(x.dtype)


def gated_residual_norm(
    x: Tensor, y: Tensor, gate: Tensor | None, scale: Tensor, shift: Tensor, *, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """`reference.gated_residual_norm`; the product and the sum in one pass."""
    if gate is None:
        total = x.float() + y.float()
    elif gate.shape[1] == 1:
        total = torch.addcmul(x.float(), y.float(), gate.float())
    else:
        total = gated_residual(x, y, gate)
    total = total.to(x.dtype)
    return total, _norm(total, scale, shift, eps).to(y.dtype)


def _norm(x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
    """The modulated LayerNorm, float32 unless the rows are many."""
    if scale.shape[:2] != (1, 1) or shift.shape[:2] != (1, 1):
        return reference.layer_norm_modulate(x.float(), scale, shift, eps=eps)
    weight, bias = 1 + scale.float().flatten(), shift.float().flatten()
    return F.layer_norm(x.float(), x.shape[-1:], weight, bias, eps)


def norm_rope_write(
    q: Tensor, k: Tensor, v: Tensor, k_ring: Tensor, v_ring: Tensor, *,
    q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor, first_slot: int,
    eps: float = 1e-6,
) -> Tensor:  # fmt: skip
    """`reference.norm_rope_write` with complex products and at most two copies into the ring."""
    heads, dim = k_ring.shape[2:]
    rotation = torch.complex(cos, sin)[:, None]
    rotated = _norm_rotate(k, k_weight, rotation, heads, eps)
    _write(rotated, k_ring, first_slot)
    _write(v.unflatten(-1, (heads, dim)), v_ring, first_slot)
    return _norm_rotate(q, q_weight, rotation, heads, eps).to(q.dtype)


def _norm_rotate(x: Tensor, weight: Tensor, rotation: Tensor, heads: int, eps: float) -> Tensor:
    """[B, S, M] -> [B, S, N, D] float32."""
    normed = F.rms_norm(x.float(), x.shape[-1:], weight.float(), eps)
    pairs = torch.view_as_complex(normed.unflatten(-1, (heads, -1, 2)))
    return torch.view_as_real(pairs * rotation).flatten(-2)


def _write(block: Tensor, ring: Tensor, first_slot: int) -> None:
    """Tokens of block [B, S, N, D] into the ring from `first_slot` on, and around its end."""
    done = 0
    while done < block.shape[1]:
        start = (first_slot + done) % ring.shape[1]
        count = min(block.shape[1] - done, ring.shape[1] - start)
        ring[:, start : start + count] = block[:, done : done + count]
        done += count


def depthwise_causal_conv(
    x: Tensor, memory: Tensor, weight: Tensor, bias: Tensor, *, residual: bool
) -> Tensor:
    """`reference.depthwise_causal_conv` in the dtype of x, channels last as they lie."""
    if weight.dtype != x.dtype:
        return reference.depthwise_causal_conv(x, memory, weight, bias, residual=residual)
    planes = torch.cat([memory, x], 1).movedim(-1, 1)
    out = F.conv3d(planes, weight, bias, padding=(0, 1, 1), groups=x.shape[-1]).movedim(1, -1)
    return out.add_(x) if residual else out


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`reference.linear_gelu`, the GELU applied before the result is written."""
    if not _has_epilogues(x, weight):
        return reference.linear_gelu(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu", [], "tanh")


def gated_feed_forward(
    x: Tensor, *, norm_weight: Tensor, norm_bias: Tensor, up: Tensor, down: Tensor, residual: bool
) -> Tensor:
    """`reference.gated_feed_forward`, some tokens after the other: none sees another."""
    # in bfloat16 F.linear is oneDNN's as well, and 4 % faster with steps of their own, in cache
    in_epilogues = x.dtype == torch.float32 and _has_epilogues(x, up)
    gated = _gated_feed_forward_in_epilogues if in_epilogues else _gated_feed_forward
    results = []
    for tokens in x.reshape(-1, x.shape[-1]).split(_TOKENS_PER_THREAD * torch.get_num_threads()):
        normed = F.layer_norm(tokens, tokens.shape[-1:], norm_weight, norm_bias)
        results.append(gated(normed, up, down, tokens if residual else None))
    return torch.cat(results).view(x.shape)


def _gated_feed_forward(
    normed: Tensor, up: Tensor, down: Tensor, residual: Tensor | None
) -> Tensor:
    value, gate = up.chunk(2)
    hidden = F.gelu(F.linear(normed, gate)) * F.linear(normed, value)
    out = F.linear(hidden, down)
    return out if residual is None else out + residual


def _gated_feed_forward_in_epilogues(
    normed: Tensor, up: Tensor, down: Tensor, residual: Tensor | None
) -> Tensor:
    linear = torch.ops.mkldnn._linear_pointwise
    value, gate = up.chunk(2)
    activated = linear(normed, gate, None, "gelu", [], "none")
    hidden = linear.binary(normed, activated, value, None, "mul")
    if residual is None:
        return linear(hidden, down, None, "none", [], "")
    return linear.binary(hidden, residual, down, None, "add")


def _has_epilogues(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN multiplies these here, with the steps that follow done before it writes.

    Its operators are those that torch.compile writes calls of; autocast does not know them.
    """
    is_mixed = x.dtype != weight.dtype or torch.is_autocast_enabled("cpu")
    return not is_mixed and _runs_onednn(x.dtype)


@cache
def _runs_onednn(dtype: torch.dtype) -> bool:
    is_x86 = torch.backends.cpu.get_cpu_capability().startswith("AVX")  # nothing else was measured
    operators = torch.ops.mkldnn
    if not is_x86 or not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        return operators._is_mkldnn_bf16_supported()
    return dtype == torch.float32
