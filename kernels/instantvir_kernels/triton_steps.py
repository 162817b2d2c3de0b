"""The steps around attention, each one pass over its tokens, in Triton."""

import triton
import triton.language as tl


@triton.jit
def residual_norm(
    x_ptr, y_ptr, gate_ptr, scale_ptr, shift_ptr, sum_ptr, out_ptr,
    num_tokens, tokens_per_group, group_batch, group_row, width, eps,
    HAS_RESIDUAL: tl.constexpr, HAS_GATE: tl.constexpr, HAS_NORM: tl.constexpr,
    BLOCK_M: tl.constexpr,
):  # fmt: skip
    """sum = x + gate y and out = LayerNorm(sum) (1 + scale) + shift for one token, dense rows.

    `gate`, `scale` and `shift` have one row for each `tokens_per_group` tokens, same strides.
    """
    batch = tl.cast(tl.program_id(1), tl.int64)
    token = tl.program_id(0)
    columns = tl.arange(0, BLOCK_M)
    inside = columns < width
    row = (batch * num_tokens + token) * width
    group = batch * group_batch + (token // tokens_per_group) * group_row
    x = tl.load(x_ptr + row + columns, mask=inside, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        y = tl.load(y_ptr + row + columns, mask=inside, other=0.0).to(tl.float32)
        if HAS_GATE:
            y *= tl.load(gate_ptr + group + columns, mask=inside, other=0.0).to(tl.float32)
        x += y
        tl.store(sum_ptr + row + columns, x.to(sum_ptr.dtype.element_ty), mask=inside)
    if HAS_NORM:
        if HAS_RESIDUAL:  # normalise what was stored, as the unfused steps would
            x = x.to(sum_ptr.dtype.element_ty).to(tl.float32)
        centred = tl.where(inside, x - tl.sum(x, 0) / width, 0.0)
        rstd = tl.rsqrt(tl.sum(centred * centred, 0) / width + eps)
        scale = tl.load(scale_ptr + group + columns, mask=inside, other=0.0).to(tl.float32)
        shift = tl.load(shift_ptr + group + columns, mask=inside, other=0.0).to(tl.float32)
        out = centred * rstd * (1 + scale) + shift
        tl.store(out_ptr + row + columns, out.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _norm_rotate(pointer, weight_ptr, cos, sin, columns, inside, width, eps,
                 BLOCK_M: tl.constexpr):  # fmt: skip
    """RMS-norm of one row over its whole width, then each pair (2i, 2i + 1) turned."""
    x = tl.load(pointer + columns, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    x = x * tl.rsqrt(tl.sum(x * x, 0) / width + eps) * weight
    even, odd = tl.split(tl.reshape(x, [BLOCK_M // 2, 2]))
    turned = tl.join(even * cos - odd * sin, even * sin + odd * cos)
    return tl.reshape(turned, [BLOCK_M])


@triton.jit(do_not_specialize=["first_slot"])
def norm_rope_write(
    q_ptr, k_ptr, v_ptr, q_weight_ptr, k_weight_ptr, cos_ptr, sin_ptr,
    q_out_ptr, k_ring_ptr, v_ring_ptr,
    q_batch, q_row, k_batch, k_row, v_batch, v_row,
    k_ring_batch, k_ring_row, v_ring_batch, v_ring_row,
    num_tokens, first_slot, num_slots, width, eps,
    HEAD_DIM: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """One token: q normed and turned, k the same into its slot of the ring, v copied beside it."""
    batch = tl.cast(tl.program_id(1), tl.int64)
    token = tl.program_id(0)
    slot = tl.cast((first_slot + token) % num_slots, tl.int64)
    row = tl.cast(token, tl.int64)
    columns = tl.arange(0, BLOCK_M)
    inside = columns < width
    pairs = tl.arange(0, BLOCK_M // 2)
    angle = token * (HEAD_DIM // 2) + pairs % (HEAD_DIM // 2)
    cos = tl.load(cos_ptr + angle)
    sin = tl.load(sin_ptr + angle)

    q = _norm_rotate(q_ptr + batch * q_batch + row * q_row, q_weight_ptr, cos, sin, columns,
                     inside, width, eps, BLOCK_M)  # fmt: skip
    q_out = q_out_ptr + (batch * num_tokens + row) * width + columns
    tl.store(q_out, q.to(q_out_ptr.dtype.element_ty), mask=inside)
    k = _norm_rotate(k_ptr + batch * k_batch + row * k_row, k_weight_ptr, cos, sin, columns,
                     inside, width, eps, BLOCK_M)  # fmt: skip
    k_ring = k_ring_ptr + batch * k_ring_batch + slot * k_ring_row + columns
    tl.store(k_ring, k.to(k_ring_ptr.dtype.element_ty), mask=inside)
    v = tl.load(v_ptr + batch * v_batch + row * v_row + columns, mask=inside, other=0.0)
    v_ring = v_ring_ptr + batch * v_ring_batch + slot * v_ring_row + columns
    tl.store(v_ring, v.to(v_ring_ptr.dtype.element_ty), mask=inside)
