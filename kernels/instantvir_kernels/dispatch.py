"""The one entry point for attention: picks the implementation that runs best here."""

import os

from torch import Tensor
from torch.nn import functional as F

from instantvir_kernels import reference

BACKENDS = ("auto", "sdpa", "reference")


def backend() -> str:
    """The attention backend in force; `INSTANTVIR_KERNELS` overrides the automatic choice.

    Raises:
        ValueError: if the variable names no backend.
    """
    name = os.environ.get("INSTANTVIR_KERNELS", "auto")
    if name not in BACKENDS:
        raise ValueError(f"INSTANTVIR_KERNELS is {name!r}; use one of {', '.join(BACKENDS)}")
    return "sdpa" if name == "auto" else name


def attention(q: Tensor, k: Tensor, v: Tensor, *, key_bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(D) + key_bias) v, [B, Q, N, D]: one block against all it may see.

    Same contract as `reference.attention`. This is the streaming case: keys and values are read in
    place, whatever their strides, such as a prefix of a `KVCache` buffer.
    """
    if backend() == "reference":
        return reference.attention(q, k, v, key_bias=key_bias)
    bias = None if key_bias is None else key_bias.to(q.dtype).expand(q.shape[1], -1)
    return _sdpa(q, k, v, bias)


def block_causal_attention(q: Tensor, k: Tensor, v: Tensor, *, tokens_per_block: int) -> Tensor:
    """softmax(q k^T / sqrt(D), masked to earlier-or-same blocks) v, [B, Q, N, D].

    Same contract as `reference.block_causal_attention`: a whole sequence at once, as in training.
    Queries that are one block see every key, so no mask is built.
    """
    if q.shape[1] <= tokens_per_block:
        return attention(q, k, v)
    if backend() == "reference":
        return reference.block_causal_attention(q, k, v, tokens_per_block=tokens_per_block)
    mask = reference.block_causal_mask(q.shape[1], k.shape[1], tokens_per_block, q.device)
    return _sdpa(q, k, v, mask)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))  # heads first
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
