"""The truth for every kernel: plain PyTorch, no tricks, runs anywhere."""

import torch
from torch import Tensor


def block_causal_mask(
    num_queries: int, num_keys: int, tokens_per_block: int, device: torch.device | str = "cpu"
) -> Tensor:
    """[Q, K] bool, True where a query may look: its own block and every earlier one.

    Queries are the last `num_queries` of the `num_keys` positions (cache + current block).
    """
    key_block = torch.arange(num_keys, device=device) // tokens_per_block
    query_block = key_block[num_keys - num_queries :]
    return key_block[None, :] <= query_block[:, None]


def block_causal_attention(q: Tensor, k: Tensor, v: Tensor, *, tokens_per_block: int) -> Tensor:
    """softmax(q k^T / sqrt(D), masked to earlier-or-same blocks) v, accumulated in float32.

    Args:
        q: [B, Q, N, D]. k, v: [B, K, N, D] with K >= Q; positions are right-aligned.
        tokens_per_block: tokens that see each other; positions count from the first key.

    Returns:
        [B, Q, N, D] in the dtype of `q`.
    """
    scores = torch.einsum("bqnd,bknd->bnqk", q.float(), k.float()) * q.shape[-1] ** -0.5
    allowed = block_causal_mask(q.shape[1], k.shape[1], tokens_per_block, q.device)
    weights = scores.masked_fill(~allowed, float("-inf")).softmax(-1)
    return torch.einsum("bnqk,bknd->bqnd", weights, v.float()).to(q.dtype)
