import pytest
import torch

from instantvir_kernels import reference, triton_launch

BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
WIDTH = pytest.mark.parametrize("width", [64, 48, 130])


@BOTH
@WIDTH
@pytest.mark.parametrize("rows", [(1, 1), (2, 3)], ids=["one-row", "row-per-group"])
def test_layer_norm_modulate(normal, assert_same, dtype, width, rows):
    x = normal(2, 6, width, dtype=dtype) * 3 + 1
    scale, shift = normal(*rows, width), normal(*rows, width)
    actual = triton_launch.layer_norm_modulate(x, scale, shift)
    assert_same(actual, reference.layer_norm_modulate(x, scale, shift))


@BOTH
@WIDTH
def test_gated_residual(normal, assert_same, dtype, width):
    x, y = normal(2, 6, width, dtype=dtype), normal(2, 6, width, dtype=dtype)
    gate = normal(2, 2, width)
    assert_same(triton_launch.gated_residual(x, y, gate), reference.gated_residual(x, y, gate))


@BOTH
@pytest.mark.parametrize("gated", [True, False])
def test_gated_residual_norm(normal, assert_same, dtype, gated):
    """The stream is float32, the layer's own type narrower, as in a mixed-precision student."""
    x, y = normal(2, 6, 48), normal(2, 6, 48, dtype=dtype)
    gate = normal(1, 1, 48) if gated else None
    scale, shift = normal(1, 1, 48), normal(1, 1, 48)
    actual = triton_launch.gated_residual_norm(x, y, gate, scale, shift)
    expected = reference.gated_residual_norm(x, y, gate, scale, shift)
    for one, other in zip(actual, expected, strict=True):
        assert_same(one, other)


def angles(tokens, dim):
    angle = torch.arange(tokens)[:, None] * torch.linspace(1, 0.01, dim // 2)
    return angle.cos(), angle.sin()


@BOTH
@pytest.mark.parametrize("first_slot", [0, 6, 14], ids=["start", "middle", "wraps"])
def test_norm_rope_write(normal, assert_same, dtype, first_slot):
    """Queries, and the whole ring: slots of other tokens must stay as they were."""
    heads, dim, tokens, slots = 3, 16, 6, 18
    q, k, v = normal(2, tokens, 3, heads * dim, dtype=dtype).unbind(2)  # one fused projection
    weights = {"q_weight": normal(heads * dim), "k_weight": normal(heads * dim)}
    cos, sin = angles(tokens, dim)
    old = [normal(2, slots, heads, dim, dtype=dtype) for _ in range(2)]
    results = []
    for module in (reference, triton_launch):
        rings = [t.clone() for t in old]
        rotated = module.norm_rope_write(
            q, k, v, *rings, cos=cos, sin=sin, first_slot=first_slot, **weights
        )
        results.append((rotated, *rings))
    for expected, actual in zip(*results, strict=True):
        assert_same(actual, expected)


def test_a_ring_written_around_and_around_equals_the_concatenated_blocks(normal, assert_same):
    """Window of 3 blocks and a sink of one: each block is written over the oldest, then attended."""
    heads, dim, tokens, window = 2, 64, 10, 3
    weight = torch.ones(heads * dim)
    cos, sin = angles(tokens, dim)
    k_buffer, v_buffer = (torch.empty(1, (1 + window) * tokens, heads, dim) for _ in range(2))
    blocks = []
    for index in range(7):
        q, k, v = normal(1, tokens, 3 * heads * dim).chunk(3, -1)
        if index == 0:  # the sink is never written over
            k_part, v_part, first_slot = k_buffer[:, :tokens], v_buffer[:, :tokens], 0
        else:
            k_part, v_part = k_buffer[:, tokens:], v_buffer[:, tokens:]
            first_slot = (index - 1) % window * tokens
        rotated = triton_launch.norm_rope_write(
            q, k, v, k_part, v_part, q_weight=weight, k_weight=weight, cos=cos, sin=sin,
            first_slot=first_slot,
        )  # fmt: skip
        filled = min(index + 1, 1 + window) * tokens
        actual = triton_launch.attention(rotated, k_buffer[:, :filled], v_buffer[:, :filled])

        plain_k, plain_v = (torch.zeros(1, tokens, heads, dim) for _ in range(2))
        plain_q = reference.norm_rope_write(
            q, k, v, plain_k, plain_v, q_weight=weight, k_weight=weight, cos=cos, sin=sin,
            first_slot=0,
        )  # fmt: skip
        blocks.append((plain_k, plain_v))
        kept = blocks[:1] + blocks[1:][-window:]
        expected = reference.attention(
            plain_q, torch.cat([b[0] for b in kept], 1), torch.cat([b[1] for b in kept], 1)
        )
        assert_same(actual, expected)


def test_a_ring_whose_heads_are_apart_is_refused(normal):
    q, ring = (
        normal(1, 4, 32),
        normal(1, 2, 8, 16).transpose(1, 2),
    )  # [B, slots, N, D], heads outside
    weight, (cos, sin) = torch.ones(32), angles(4, 16)
    with pytest.raises(ValueError, match="heads of k_ring must be dense"):
        triton_launch.norm_rope_write(
            q, q, q, ring, ring, q_weight=weight, k_weight=weight, cos=cos, sin=sin, first_slot=0
        )


def test_a_gate_for_each_frame_goes_with_one_scale_for_all(normal, assert_same):
    """The affine norm after self-attention has one scale, the gate one row per latent frame."""
    x, y, gate = normal(2, 6, 32), normal(2, 6, 32), normal(2, 3, 32)
    scale, shift = normal(1, 1, 32), normal(1, 1, 32)
    actual = triton_launch.gated_residual_norm(x, y, gate, scale, shift)
    for one, other in zip(
        actual, reference.gated_residual_norm(x, y, gate, scale, shift), strict=True
    ):
        assert_same(one, other)


def test_tokens_that_do_not_divide_among_rows_are_refused(normal):
    x, rows = normal(1, 5, 32), normal(1, 2, 32)
    with pytest.raises(ValueError, match="5 tokens cannot share 2, 2, 2 rows"):
        triton_launch.layer_norm_modulate(x, rows, rows)
