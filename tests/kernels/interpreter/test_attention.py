import pytest
import torch

from instantvir_kernels import reference, tiles, triton_launch

BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
TILE = tiles.INTERPRETER_TILE


@BOTH
@pytest.mark.parametrize(
    ("batch", "queries", "keys", "heads", "dim"),
    [
        (1, 32, 48, 1, 64),  # whole tiles only
        (2, 33, 49, 2, 64),  # one row and one key over
        (1, 7, 5, 1, 128),  # less than a tile
        (1, 72, 20, 1, 64),  # cross-attention: far more queries than keys
        (1, 40, 31, 2, 96),  # a head dimension that is no power of two
        (1, 72, 72 + 16, 1, 128),  # ragged like the last tile of 4680 = 36 x 128 + 72
    ],
)
def test_attention_equals_the_reference(
    normal, assert_same, dtype, batch, queries, keys, heads, dim
):
    q = normal(batch, queries, heads, dim, dtype=dtype)
    k, v = (normal(batch, keys, heads, dim, dtype=dtype) for _ in range(2))
    assert_same(triton_launch.attention(q, k, v), reference.attention(q, k, v))


def test_keys_past_the_last_one_are_never_seen(normal, assert_same):
    """The ragged tail must be masked: what lies behind it in memory is large, and not ours."""
    q = normal(1, 20, 1, 64)
    k, v = (normal(1, 64, 1, 64) for _ in range(2))
    k[:, 37:], v[:, 37:] = 30.0, 1e4
    assert 37 % TILE.block_k
    expected = reference.attention(q, k[:, :37], v[:, :37])
    assert_same(triton_launch.attention(q, k[:, :37], v[:, :37]), expected)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")], ids=["nan", "inf"])
def test_free_slots_of_a_ring_may_hold_anything(normal, assert_same, poison):
    q = normal(1, 20, 1, 64)
    k, v = (normal(1, 64, 1, 64) for _ in range(2))
    k[:, 37:], v[:, 37:] = poison, poison
    expected = reference.attention(q, k[:, :37], v[:, :37])
    assert_same(triton_launch.attention(q, k[:, :37], v[:, :37]), expected)


@BOTH
def test_a_view_of_a_larger_buffer_is_read_in_place(normal, assert_same, dtype):
    """Odd strides: heads outside tokens, q out of a fused projection, half of a ring."""
    q = normal(2, 21, 3 * 2 * 64, dtype=dtype).unflatten(-1, (3, 2, 64))[:, :, 0]
    k = normal(2, 2, 60, 64, dtype=dtype).transpose(1, 2)[:, 5:42]
    v = normal(2, 80, 2, 64, dtype=dtype)[:, :74:2]
    before = k.data_ptr(), v.data_ptr()
    assert_same(triton_launch.attention(q, k, v), reference.attention(q, k, v))
    assert (k.data_ptr(), v.data_ptr()) == before


def test_offsets_beyond_32_bits(normal, assert_same):
    """The second batch entry starts 2^31 + 2^20 elements after the first; pages between stay unmapped."""
    apart = 2**31 + 2**20
    try:
        storage = torch.UntypedStorage(2 * (apart + 2**16))
    except RuntimeError:
        pytest.skip("this machine does not reserve 4 GiB of address space")
    k = torch.tensor([], dtype=torch.float16).set_(storage, 0, (2, 20, 1, 64), (apart, 64, 64, 1))
    k.copy_(normal(2, 20, 1, 64, dtype=torch.float16))
    q = normal(2, 5, 1, 64, dtype=torch.float16)
    assert_same(triton_launch.attention(q, k, k), reference.attention(q, k, k))


@BOTH
def test_a_bias_of_log_n_makes_one_key_stand_for_n_equal_ones(normal, assert_same, dtype):
    q = normal(1, 9, 2, 64, dtype=dtype)
    k, v = (normal(1, 40, 2, 64, dtype=dtype) for _ in range(2))
    k[:, 19:], v[:, 19:] = k[:, 18:19], v[:, 18:19]  # 22 equal rows, like padded text
    bias = torch.zeros(19)
    bias[18] = torch.tensor(22.0).log()
    actual = triton_launch.attention(q, k[:, :19], v[:, :19], key_bias=bias)
    assert_same(actual, reference.attention(q, k, v))


@BOTH
def test_hidden_keys_may_fill_a_whole_tile(normal, assert_same, dtype):
    """-inf - -inf is no number: a first tile of hidden keys made every output NaN."""
    q = normal(1, 20, 2, 64, dtype=dtype)
    k, v = (normal(1, 50, 2, 64, dtype=dtype) for _ in range(2))
    bias = torch.zeros(50)
    bias[: TILE.block_k + 3] = float("-inf")
    bias[-1] = float("-inf")
    actual = triton_launch.attention(q, k, v, key_bias=bias)
    assert_same(actual, reference.attention(q, k, v, key_bias=bias))


def test_scores_far_apart_do_not_overflow(normal, assert_same):
    q, k, v = 60 * normal(1, 8, 1, 64), 60 * normal(1, 40, 1, 64), normal(1, 40, 1, 64)
    actual = triton_launch.attention(q, k, v)
    assert_same(actual, reference.attention(q, k, v))


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn], ids=["int8", "e4m3"])
def test_keys_and_values_in_8_bits(normal, assert_same, dtype):
    """Equal to attention over the de-quantised ones; 37 keys of blocks of 15 straddle every tile."""
    q, k, v = normal(2, 21, 2, 64), normal(2, 37, 2, 64), normal(2, 37, 2, 64)
    k[:, 15:30] *= 7  # every block has a scale of its own
    k, v = (reference.quantise(t, tokens_per_block=15, dtype=dtype) for t in (k, v))
    actual = triton_launch.quantised_attention(q, k, v)
    expected = reference.quantised_attention(q, k, v)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
