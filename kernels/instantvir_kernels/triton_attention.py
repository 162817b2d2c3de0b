"""softmax(q k^T) v in one pass over the keys (FlashAttention, Dao et al. 2022), in Triton.

One forward kernel serves streaming and training. What differs is only how far each query may look:
`visible_end[row]`, the number of keys before it that it sees. Streaming calls it with one block of
all keys, so every row sees every key; training with `tokens_per_block`, so a row sees its own block
and all earlier ones. The same comparison also cuts the ragged last tile.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _rows(base, stride, rows, columns, num_rows, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
          MASK_ROWS: tl.constexpr):  # fmt: skip
    """A [rows, BLOCK_D] tile; rows past the end and columns past HEAD_DIM read as 0."""
    pointers = base + rows[:, None] * stride + columns[None, :]
    if MASK_ROWS:
        if HEAD_DIM == BLOCK_D:
            tile = tl.load(pointers, mask=rows[:, None] < num_rows, other=0.0)
        else:
            inside = (rows[:, None] < num_rows) & (columns[None, :] < HEAD_DIM)
            tile = tl.load(pointers, mask=inside, other=0.0)
    elif HEAD_DIM == BLOCK_D:
        tile = tl.load(pointers)
    else:
        tile = tl.load(pointers, mask=columns[None, :] < HEAD_DIM, other=0.0)
    return tile


@triton.jit
def _visible_end(rows, num_queries, num_keys, tokens_per_block):
    """How many keys each query row sees: through the end of its block, never past the last key."""
    # more queries than keys, as in cross-attention: positions start before the first key
    block = tl.maximum(rows + (num_keys - num_queries), 0) // tokens_per_block
    return tl.minimum((block + 1) * tokens_per_block, num_keys)


@triton.jit
def _attend(q, acc, row_max, row_sum, k_base, v_base, k_stride, v_stride, bias_ptr,
            k_scale_ptr, v_scale_ptr, tokens_per_scale, start, end, visible_end, num_keys,
            qk_scale, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
            MASKED: tl.constexpr, HAS_BIAS: tl.constexpr, QUANTISED: tl.constexpr,
            PRECISION: tl.constexpr):  # fmt: skip
    """Online softmax over the keys start .. end; MASKED where some row sees only part of a tile."""
    columns = tl.arange(0, BLOCK_D)
    in_tile = tl.arange(0, BLOCK_K)
    for first in range(start, end, BLOCK_K):
        first = tl.multiple_of(first, BLOCK_K)
        left = num_keys - first
        # the base of a tile in 64 bits, what is inside a tile in 32: keeps registers for the math
        offset = tl.cast(first, tl.int64)
        k = _rows(k_base + offset * k_stride, k_stride, in_tile, columns, left,
                  HEAD_DIM, BLOCK_D, MASKED)  # fmt: skip
        scores = tl.dot(q, tl.trans(k.to(q.dtype)), input_precision=PRECISION) * qk_scale
        if QUANTISED:
            slot = (first + in_tile) // tokens_per_scale
            scores *= tl.load(k_scale_ptr + slot, mask=in_tile < left, other=0.0)[None, :]
        if HAS_BIAS:
            bias = tl.load(bias_ptr + first + in_tile, mask=in_tile < left, other=0.0)
            scores += bias.to(tl.float32)[None, :] * LOG2_E
        if MASKED:
            visible = (first + in_tile)[None, :] < visible_end[:, None]
            scores = tl.where(visible, scores, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(scores, 1))
        # a bias may be -inf for every key so far, and -inf - -inf is no number
        origin = tl.where(new_max == float("-inf"), 0.0, new_max) if HAS_BIAS else new_max
        weights = tl.exp2(scores - origin[:, None])
        shrink = tl.exp2(row_max - origin)
        row_sum = row_sum * shrink + tl.sum(weights, 1)
        acc = acc * shrink[:, None]
        v = _rows(v_base + offset * v_stride, v_stride, in_tile, columns, left,
                  HEAD_DIM, BLOCK_D, MASKED)  # fmt: skip
        if QUANTISED:
            slot = (first + in_tile) // tokens_per_scale
            weights *= tl.load(v_scale_ptr + slot, mask=in_tile < left, other=0.0)[None, :]
        acc = tl.dot(weights.to(q.dtype), v.to(q.dtype), acc, input_precision=PRECISION)
        row_max = new_max
    return acc, row_max, row_sum


@triton.jit(do_not_specialize=["num_queries", "num_keys", "tokens_per_block"])
def attention_forward(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, bias_ptr, k_scale_ptr, v_scale_ptr,
    q_batch, q_row, q_head, k_batch, k_row, k_head, v_batch, v_row, v_head,
    out_batch, out_row, out_head, scale_head,
    num_heads, num_queries, num_keys, tokens_per_block, tokens_per_scale, qk_scale,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    HAS_BIAS: tl.constexpr, QUANTISED: tl.constexpr, SAVE_LSE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """out = softmax(qk_scale q k^T + bias, to `visible_end`) v for one tile of queries of one head.

    `qk_scale` is log2(e) / sqrt(D): the softmax runs in base 2. `lse` is the log2 of its sum.
    """
    batch = tl.cast(tl.program_id(1) // num_heads, tl.int64)
    head = tl.cast(tl.program_id(1) % num_heads, tl.int64)
    # last tiles first: with a causal mask they are the longest and must not start last
    first_row = (tl.num_programs(0) - 1 - tl.program_id(0)) * BLOCK_Q
    in_tile = tl.arange(0, BLOCK_Q)
    columns = tl.arange(0, BLOCK_D)
    rows = first_row + in_tile
    visible_end = _visible_end(rows, num_queries, num_keys, tokens_per_block)
    # every row of the tile sees the keys before `whole`, no row sees one from `end` on
    seen_by_first = _visible_end(first_row, num_queries, num_keys, tokens_per_block)
    last_row = tl.minimum(first_row + BLOCK_Q, num_queries) - 1
    end = _visible_end(last_row, num_queries, num_keys, tokens_per_block)
    whole = seen_by_first // BLOCK_K * BLOCK_K

    offset = tl.cast(first_row, tl.int64)
    q_base = q_ptr + batch * q_batch + head * q_head + offset * q_row
    q = _rows(q_base, q_row, in_tile, columns, num_queries - first_row, HEAD_DIM, BLOCK_D, True)
    k_base = k_ptr + batch * k_batch + head * k_head
    v_base = v_ptr + batch * v_batch + head * v_head
    k_scales = k_scale_ptr + (batch * num_heads + head) * scale_head
    v_scales = v_scale_ptr + (batch * num_heads + head) * scale_head

    acc = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    row_max = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_Q], tl.float32)
    acc, row_max, row_sum = _attend(
        q, acc, row_max, row_sum, k_base, v_base, k_row, v_row, bias_ptr, k_scales, v_scales,
        tokens_per_scale, 0, whole, visible_end, num_keys, qk_scale,
        HEAD_DIM, BLOCK_D, BLOCK_K, False, HAS_BIAS, QUANTISED, PRECISION)  # fmt: skip
    acc, row_max, row_sum = _attend(
        q, acc, row_max, row_sum, k_base, v_base, k_row, v_row, bias_ptr, k_scales, v_scales,
        tokens_per_scale, whole, end, visible_end, num_keys, qk_scale,
        HEAD_DIM, BLOCK_D, BLOCK_K, True, HAS_BIAS, QUANTISED, PRECISION)  # fmt: skip

    out_base = out_ptr + batch * out_batch + head * out_head + offset * out_row
    inside = (rows[:, None] < num_queries) & (columns[None, :] < HEAD_DIM)
    out = (acc / row_sum[:, None]).to(out_ptr.dtype.element_ty)
    tl.store(out_base + in_tile[:, None] * out_row + columns[None, :], out, mask=inside)
    if SAVE_LSE:
        lse_base = lse_ptr + (batch * num_heads + head) * num_queries
        tl.store(lse_base + rows, row_max + tl.log2(row_sum), mask=rows < num_queries)
