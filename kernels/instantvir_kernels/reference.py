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


def attention(q: Tensor, k: Tensor, v: Tensor, *, key_bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(D) + key_bias) v, every query sees every key, accumulated in float32.

    Args:
        q: [B, Q, N, D]. k, v: [B, K, N, D], any strides; the order of the keys does not matter.
        key_bias: [K] added to the scores of each key; log(n) makes one key stand for n equal ones.

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
