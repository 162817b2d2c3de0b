"""Gradients of block-causal attention, in Triton: keys and values from the queries that saw them.

The weights are recomputed from the saved log-sum of each row (Dao et al. 2022), so memory stays
linear in the sequence. `attention_backward_queries` runs first: it also leaves
`delta = sum(out * d_out)` of every row for `attention_backward_keys`.
"""

import triton
import triton.language as tl

from instantvir_kernels.triton_attention import _rows, _visible_end


@triton.jit(do_not_specialize=["num_queries", "num_keys", "tokens_per_block"])
def attention_backward_queries(
    q_ptr, k_ptr, v_ptr, out_ptr, d_out_ptr, lse_ptr, delta_ptr, d_q_ptr,
    q_batch, q_row, q_head, k_batch, k_row, k_head, v_batch, v_row, v_head,
    num_heads, num_queries, num_keys, tokens_per_block, qk_scale, softmax_scale,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """d_q of one tile of queries; `out`, `d_out` and `d_q` are dense [B, Q, N, D]."""
    batch = tl.cast(tl.program_id(1) // num_heads, tl.int64)
    head = tl.cast(tl.program_id(1) % num_heads, tl.int64)
    first_row = (tl.num_programs(0) - 1 - tl.program_id(0)) * BLOCK_Q
    in_tile = tl.arange(0, BLOCK_Q)
    columns = tl.arange(0, BLOCK_D)
    rows = first_row + in_tile
    left = num_queries - first_row
    visible_end = _visible_end(rows, num_queries, num_keys, tokens_per_block)
    last_row = tl.minimum(first_row + BLOCK_Q, num_queries) - 1
    end = _visible_end(last_row, num_queries, num_keys, tokens_per_block)

    dense_row = num_heads * HEAD_DIM
    offset = tl.cast(first_row, tl.int64)
    dense = (batch * num_queries + offset) * dense_row + head * HEAD_DIM
    q_base = q_ptr + batch * q_batch + head * q_head + offset * q_row
    q = _rows(q_base, q_row, in_tile, columns, left, HEAD_DIM, BLOCK_D, True)
    d_out = _rows(d_out_ptr + dense, dense_row, in_tile, columns, left, HEAD_DIM, BLOCK_D, True)
    out = _rows(out_ptr + dense, dense_row, in_tile, columns, left, HEAD_DIM, BLOCK_D, True)
    delta = tl.sum(out.to(tl.float32) * d_out.to(tl.float32), 1)
    row_index = (batch * num_heads + head) * num_queries + rows
    tl.store(delta_ptr + row_index, delta, mask=rows < num_queries)
    lse = tl.load(lse_ptr + row_index, mask=rows < num_queries, other=float("inf"))
    k_base = k_ptr + batch * k_batch + head * k_head
    v_base = v_ptr + batch * v_batch + head * v_head

    d_q = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    in_keys = tl.arange(0, BLOCK_K)
    for first in range(0, end, BLOCK_K):
        key_offset = tl.cast(first, tl.int64)
        keys_left = num_keys - first
        k = _rows(k_base + key_offset * k_row, k_row, in_keys, columns, keys_left,
                  HEAD_DIM, BLOCK_D, True)  # fmt: skip
        v = _rows(v_base + key_offset * v_row, v_row, in_keys, columns, keys_left,
                  HEAD_DIM, BLOCK_D, True)  # fmt: skip
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * qk_scale
        visible = (first + in_keys)[None, :] < visible_end[:, None]
        weights = tl.where(visible, tl.exp2(scores - lse[:, None]), 0.0)
        d_weights = tl.dot(d_out, tl.trans(v), input_precision=PRECISION)
        d_scores = weights * (d_weights - delta[:, None])
        d_q = tl.dot(d_scores.to(k.dtype), k, d_q, input_precision=PRECISION)

    inside = (rows[:, None] < num_queries) & (columns[None, :] < HEAD_DIM)
    d_q = (d_q * softmax_scale).to(d_q_ptr.dtype.element_ty)
    pointers = d_q_ptr + dense + in_tile[:, None] * dense_row + columns[None, :]
    tl.store(pointers, d_q, mask=inside)


@triton.jit(do_not_specialize=["num_queries", "num_keys", "tokens_per_block"])
def attention_backward_keys(
    q_ptr, k_ptr, v_ptr, d_out_ptr, lse_ptr, delta_ptr, d_k_ptr, d_v_ptr,
    q_batch, q_row, q_head, k_batch, k_row, k_head, v_batch, v_row, v_head,
    num_heads, num_queries, num_keys, tokens_per_block, qk_scale, softmax_scale,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """d_k and d_v of one tile of keys; `d_out`, `d_k` and `d_v` are dense [B, S, N, D]."""
    batch = tl.cast(tl.program_id(1) // num_heads, tl.int64)
    head = tl.cast(tl.program_id(1) % num_heads, tl.int64)
    first_key = tl.program_id(0) * BLOCK_K
    in_keys = tl.arange(0, BLOCK_K)
    columns = tl.arange(0, BLOCK_D)
    keys = first_key + in_keys
    keys_left = num_keys - first_key
    key_offset = tl.cast(first_key, tl.int64)
    k_base = k_ptr + batch * k_batch + head * k_head + key_offset * k_row
    v_base = v_ptr + batch * v_batch + head * v_head + key_offset * v_row
    k = _rows(k_base, k_row, in_keys, columns, keys_left, HEAD_DIM, BLOCK_D, True)
    v = _rows(v_base, v_row, in_keys, columns, keys_left, HEAD_DIM, BLOCK_D, True)

    dense_row = num_heads * HEAD_DIM
    q_base = q_ptr + batch * q_batch + head * q_head
    d_out_base = d_out_ptr + batch * num_queries * dense_row + head * HEAD_DIM
    row_base = (batch * num_heads + head) * num_queries
    # no query before the block of the first key sees any key of this tile
    first_position = first_key // tokens_per_block * tokens_per_block
    start = tl.maximum(first_position - (num_keys - num_queries), 0) // BLOCK_Q * BLOCK_Q

    d_k = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    d_v = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    in_tile = tl.arange(0, BLOCK_Q)
    for first_row in range(start, num_queries, BLOCK_Q):
        rows = first_row + in_tile
        left = num_queries - first_row
        offset = tl.cast(first_row, tl.int64)
        q = _rows(q_base + offset * q_row, q_row, in_tile, columns, left,
                  HEAD_DIM, BLOCK_D, True)  # fmt: skip
        d_out = _rows(d_out_base + offset * dense_row, dense_row, in_tile, columns, left,
                      HEAD_DIM, BLOCK_D, True)  # fmt: skip
        lse = tl.load(lse_ptr + row_base + rows, mask=rows < num_queries, other=float("inf"))
        delta = tl.load(delta_ptr + row_base + rows, mask=rows < num_queries, other=0.0)
        scores = tl.dot(k, tl.trans(q), input_precision=PRECISION) * qk_scale
        visible_end = _visible_end(rows, num_queries, num_keys, tokens_per_block)
        visible = (keys[:, None] < visible_end[None, :]) & (rows < num_queries)[None, :]
        weights = tl.where(visible, tl.exp2(scores - lse[None, :]), 0.0)
        d_v = tl.dot(weights.to(d_out.dtype), d_out, d_v, input_precision=PRECISION)
        d_weights = tl.dot(v, tl.trans(d_out), input_precision=PRECISION)
        d_scores = weights * (d_weights - delta[None, :])
        d_k = tl.dot(d_scores.to(q.dtype), q, d_k, input_precision=PRECISION)

    inside = (keys[:, None] < num_keys) & (columns[None, :] < HEAD_DIM)
    dense = (batch * num_keys + key_offset) * dense_row + head * HEAD_DIM
    offsets = dense + in_keys[:, None] * dense_row + columns[None, :]
    d_k = d_k * softmax_scale
    tl.store(d_k_ptr + offsets, d_k.to(d_k_ptr.dtype.element_ty), mask=inside)
    tl.store(d_v_ptr + offsets, d_v.to(d_v_ptr.dtype.element_ty), mask=inside)
