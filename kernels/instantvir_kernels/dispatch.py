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


def block_causal_attention(q: Tensor, k: Tensor, v: Tensor, *, tokens_per_block: int) -> Tensor:
    """softmax(q k^T / sqrt(D), masked to earlier-or-same blocks) v, [B, Q, N, D].

    Same contract as `reference.block_causal_attention`. Queries that are one block, the streaming
    case, see every key, so no mask is built.
    """
    if backend() == "reference":
        return reference.block_causal_attention(q, k, v, tokens_per_block=tokens_per_block)
    mask = None
    if q.shape[1] > tokens_per_block:
        mask = reference.block_causal_mask(q.shape[1], k.shape[1], tokens_per_block, q.device)
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))  # heads first
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
