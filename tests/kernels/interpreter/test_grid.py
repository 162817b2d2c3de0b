import pytest
import torch

from instantvir_kernels import reference, triton_launch

BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])


@BOTH
@pytest.mark.parametrize(("frames", "residual"), [(1, False), (2, True)])
def test_depthwise_causal_conv(normal, assert_same, dtype, residual, frames):
    """17 places and 72 channels leave ragged tiles on both sides."""
    x = normal(1, frames, 2, 17, 72, dtype=dtype)
    memory = normal(1, 2, 2, 17, 72, dtype=dtype)
    weight, bias = 0.2 * normal(72, 1, 3, 3, 3, dtype=dtype), normal(72, dtype=dtype)
    actual = triton_launch.depthwise_causal_conv(x, memory, weight, bias, residual=residual)
    expected = reference.depthwise_causal_conv(x, memory, weight, bias, residual=residual)
    assert_same(actual, expected)


def test_convolving_in_pieces_with_the_memory_equals_the_whole(normal):
    x = normal(2, 5, 3, 4, 8)
    weight, bias = normal(8, 1, 3, 3, 3), normal(8)
    memory = torch.zeros(2, 2, 3, 4, 8)
    whole = triton_launch.depthwise_causal_conv(x, memory, weight, bias, residual=True)
    parts = []
    for piece in x.split([2, 1, 2], 1):
        parts.append(
            triton_launch.depthwise_causal_conv(piece, memory, weight, bias, residual=True)
        )
        memory = torch.cat([memory, piece], 1)[:, -2:]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=0)


@BOTH
@pytest.mark.parametrize(("frames_per_token", "frames"), [(1, 1), (4, 8)], ids=["image", "video"])
def test_haar_patchify_and_back(normal, assert_same, dtype, frames_per_token, frames):
    pixels = normal(2, frames, 3, 16, 24, dtype=dtype)
    expected = reference.haar_patchify(pixels, frames_per_token=frames_per_token)
    actual = triton_launch.haar_patchify(pixels, frames_per_token=frames_per_token)
    for one, other in zip(actual, expected, strict=True):
        assert_same(one, other)
    back = triton_launch.haar_unpatchify(*expected, frames_per_token=frames_per_token)
    assert_same(back, reference.haar_unpatchify(*expected, frames_per_token=frames_per_token))
