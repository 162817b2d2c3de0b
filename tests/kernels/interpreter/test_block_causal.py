import pytest
import torch

from instantvir_kernels import reference, triton_launch

SHAPES = [
    # batch, queries, keys, heads, dim, tokens per block
    (1, 64, 64, 1, 64, 32),  # blocks end where tiles end
    (2, 54, 54, 2, 64, 18),  # they do not
    (1, 50, 50, 1, 64, 7),  # a tile of queries spans many blocks, the last block is cut
    (1, 20, 53, 1, 64, 20),  # queries are the last of more keys
    (1, 36, 36, 1, 128, 12),
    (1, 30, 30, 2, 96, 10),
]
IDS = [f"q{s[1]}-k{s[2]}-d{s[4]}-block{s[5]}" for s in SHAPES]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_forward_equals_the_reference(normal, assert_same, dtype, shape):
    batch, queries, keys, heads, dim, per_block = shape
    q = normal(batch, queries, heads, dim, dtype=dtype)
    k, v = (normal(batch, keys, heads, dim, dtype=dtype) for _ in range(2))
    expected = reference.block_causal_attention(q, k, v, tokens_per_block=per_block)
    actual = triton_launch.block_causal_attention(q, k, v, tokens_per_block=per_block)
    assert_same(actual, expected)


@pytest.mark.parametrize("shape", SHAPES, ids=IDS)
def test_gradients_equal_the_reference(normal, shape):
    batch, queries, keys, heads, dim, per_block = shape
    q = normal(batch, queries, heads, dim)
    k, v = (normal(batch, keys, heads, dim) for _ in range(2))
    d_out = normal(batch, queries, heads, dim)
    grads = {}
    for module in (reference, triton_launch):
        leaves = [t.clone().requires_grad_() for t in (q, k, v)]
        out = module.block_causal_attention(*leaves, tokens_per_block=per_block)
        grads[module] = torch.autograd.grad(out, leaves, d_out)
    for actual, expected in zip(grads[triton_launch], grads[reference], strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_gradients_in_fp16_are_off_by_rounding_only(normal):
    q, k, v, d_out = (normal(1, 50, 1, 64, dtype=torch.float16) for _ in range(4))
    grads = []
    for module in (reference, triton_launch):
        leaves = [t.clone().requires_grad_() for t in (q, k, v)]
        out = module.block_causal_attention(*leaves, tokens_per_block=20)
        grads.append(torch.autograd.grad(out, leaves, d_out))
    for expected, actual in zip(*grads, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-2, atol=5e-3)


def test_gradients_of_a_broadcast_and_of_views_out_of_one_projection(normal):
    """`out.sum()` has a gradient of strides 0; q, k and v are interleaved in memory."""
    projected = normal(1, 40, 3 * 64).requires_grad_()
    grads = []
    for module in (reference, triton_launch):
        q, k, v = projected.unflatten(-1, (3, 1, 64)).unbind(2)
        out = module.block_causal_attention(q, k, v, tokens_per_block=16)
        grads.append(torch.autograd.grad(out.sum(), projected)[0])
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-5, atol=1e-5)


def test_the_future_is_invisible(normal):
    q, k, v = (normal(1, 54, 1, 64) for _ in range(3))
    before = triton_launch.block_causal_attention(q, k, v, tokens_per_block=18)
    k[:, 36:], v[:, 36:] = 99.0, 99.0
    after = triton_launch.block_causal_attention(q, k, v, tokens_per_block=18)
    torch.testing.assert_close(after[:, :36], before[:, :36], rtol=0, atol=0)
    assert not torch.equal(after[:, 36:], before[:, 36:])


def test_inside_a_block_attention_is_bidirectional(normal):
    """A token-causal mask would pass the test above, not this one."""
    q, k, v = (normal(1, 36, 1, 64) for _ in range(3))
    before = triton_launch.block_causal_attention(q, k, v, tokens_per_block=18)[:, 18]
    v[:, 35] += 10.0
    after = triton_launch.block_causal_attention(q, k, v, tokens_per_block=18)[:, 18]
    assert not torch.allclose(after, before)
