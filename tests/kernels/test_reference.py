"""The references are the truth for every kernel, so they have laws of their own."""

import math

import pytest
import torch

from instantvir_kernels import dispatch, reference


def test_haar_tokens_hold_the_whole_picture():
    for frames_per_token, frames in ((1, 1), (4, 8)):
        pixels = torch.randn(2, frames, 3, 16, 24)
        tokens = dispatch.haar_patchify(pixels, frames_per_token=frames_per_token)
        back = dispatch.haar_unpatchify(*tokens, frames_per_token=frames_per_token)
        torch.testing.assert_close(back, pixels, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("frames_per_token", "step", "band"),
    [
        (4, (2, 2, 2), 1), (4, (2, 2, 2), 2), (4, (2, 2, 2), 4),  # high in W, H, T alone
        (1, (1, 2, 2), 1), (1, (1, 2, 2), 2),  # high in H, W alone
    ],
)  # fmt: skip
def test_order_and_sign_of_the_bands(frames_per_token, step, band):
    """LeanVAE: (T, H, W) in binary for video, (W, H) for an image; high is first minus second."""
    axis = {(4, 1): 4, (4, 2): 3, (4, 4): 1, (1, 1): 3, (1, 2): 4}[frames_per_token, band]
    pixels = torch.ones(1, frames_per_token, 3, 8, 8)
    second = [slice(None)] * 5
    second[axis] = slice(1, None, 2)
    pixels[tuple(second)] = -1.0  # alternates along one axis: only its high band is not zero
    low, high = reference.haar_patchify(pixels, frames_per_token=frames_per_token)
    bands = torch.cat([low, high], -1).unflatten(-1, (-1, low.shape[-1]))[0, 0, 0, 0]
    expected = torch.zeros_like(bands)
    expected[band] = float(step[0] * step[1] * step[2])
    torch.testing.assert_close(bands, expected, rtol=0, atol=0)


def test_patches_are_ordered_by_color_then_time_then_rows_then_columns():
    pixels = torch.zeros(1, 4, 3, 8, 8)
    pixels[0, 2:, 1, 4:6, 6:8] = 1.0  # green, second pair of frames, third row, fourth column
    low, _ = reference.haar_patchify(pixels, frames_per_token=4)
    place = ((1 * 2 + 1) * 4 + 2) * 4 + 3
    assert low.flatten().nonzero().flatten().tolist() == [place]


def test_the_convolution_never_looks_ahead():
    x, memory = torch.randn(1, 4, 3, 5, 8), torch.randn(1, 2, 3, 5, 8)
    weight, bias = torch.randn(8, 1, 3, 3, 3), torch.randn(8)
    before = dispatch.depthwise_causal_conv(x, memory, weight, bias, residual=False)
    x[:, 2:] += 1
    after = dispatch.depthwise_causal_conv(x, memory, weight, bias, residual=False)
    torch.testing.assert_close(after[:, :2], before[:, :2], rtol=0, atol=0)
    assert not torch.allclose(after[:, 2], before[:, 2])


def test_scores_of_rotated_keys_depend_on_distance_alone():
    """So keys stay in a ring as they were written, whatever comes after them."""
    dim = 16
    q, k = torch.randn(1, 1, dim), torch.randn(1, 1, dim)
    weight = torch.ones(dim)

    def score(query_position, key_position):
        turned = []
        for x, position in ((q, query_position), (k, key_position)):
            angle = position * torch.linspace(1, 0.1, dim // 2)[None]
            rings = torch.zeros(1, 1, 1, dim), torch.zeros(1, 1, 1, dim)
            turned.append(
                dispatch.norm_rope_write(
                    x, x, x, *rings, q_weight=weight, k_weight=weight, cos=angle.cos(),
                    sin=angle.sin(), first_slot=0,
                )
            )  # fmt: skip
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(score(5, 2), score(8, 5), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(score(5, 2), score(5, 3))


def test_an_affine_layer_norm_is_a_modulation():
    norm = torch.nn.LayerNorm(24, eps=1e-6)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 6, 24)
    scale, shift = norm.weight[None, None] - 1, norm.bias[None, None]
    actual = dispatch.layer_norm_modulate(x, scale, shift)
    torch.testing.assert_close(actual, norm(x), rtol=1e-5, atol=1e-5)


def test_the_residual_and_its_norm_equal_the_two_steps():
    x, y, gate = torch.randn(2, 6, 24), torch.randn(2, 6, 24), torch.randn(1, 2, 24)
    scale, shift = torch.randn(2, 2, 24), torch.randn(2, 2, 24)
    total, normed = dispatch.gated_residual_norm(x, y, gate, scale, shift)
    torch.testing.assert_close(total, dispatch.gated_residual(x, y, gate))
    torch.testing.assert_close(normed, dispatch.layer_norm_modulate(total, scale, shift))


def test_steps_are_differentiable_where_a_student_trains():
    x, y = (torch.randn(1, 4, 8, requires_grad=True) for _ in range(2))
    gate = torch.randn(1, 1, 8)
    total, normed = dispatch.gated_residual_norm(x, y, gate, gate, gate)
    (total.sum() + normed.square().sum()).backward()
    assert x.grad.abs().sum() > 0
    assert y.grad.abs().sum() > 0


def test_gelu_behind_a_product():
    x, weight, bias = torch.randn(2, 5, 8), torch.randn(12, 8), torch.randn(12)
    layer = torch.nn.functional.linear(x, weight, bias)
    expected = torch.nn.functional.gelu(layer, approximate="tanh")
    torch.testing.assert_close(dispatch.linear_gelu(x, weight, bias), expected)


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.int8, 0.02), (torch.float8_e4m3fn, 0.06)], ids=["int8", "e4m3"]
)
def test_what_8_bits_cost(dtype, bound):
    """Relative rms of the attention output, normal keys and values: measured 1.7 % and 5.0 %."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 256, 4, 128, generator=generator) for _ in range(3))
    exact = reference.attention(2 * q, k, v)
    k, v = (reference.quantise(t, tokens_per_block=64, dtype=dtype) for t in (k, v))
    error = dispatch.quantised_attention(2 * q, k, v) - exact
    assert (error.square().mean() / exact.square().mean()).sqrt() < bound


def test_every_head_of_every_block_fills_the_range():
    x = torch.randn(1, 10, 2, 8)
    x[:, :4, 1] *= 1000
    kept = reference.quantise(x, tokens_per_block=4)
    assert kept.scale.shape == (1, 2, 3)
    blocks = kept.values.split(4, 1)
    assert all((b.abs().amax((1, 3)) == 127).all() for b in blocks)
    step = kept.scale.amax()
    assert (kept.dequantised() - x).abs().max() <= step / 2 * 1.001


def test_a_head_of_zeros_stays_zero():
    kept = reference.quantise(torch.zeros(1, 4, 1, 8), tokens_per_block=4)
    assert kept.dequantised().abs().max() == 0


def test_other_types_are_refused_in_words():
    with pytest.raises(ValueError, match=r"int8 or float8_e4m3fn, not torch\.int16"):
        reference.quantise(torch.zeros(1, 4, 1, 8), tokens_per_block=4, dtype=torch.int16)


def test_an_error_counts_as_a_part_of_a_row():
    """Averages of thousands of values are small: zeros were within an absolute limit of 2e-2."""
    q, k, v = torch.randn(1, 2, 3, 16), torch.randn(1, 4000, 3, 16), torch.randn(1, 4000, 3, 16)
    expected = reference.attention(q, k, v)
    assert reference.largest_error([expected], [expected]) == 0
    assert reference.largest_error([torch.zeros_like(expected)], [expected]) > 0.5
    last_head = expected.clone()
    last_head[:, 1, 2] *= 1.5
    assert reference.largest_error([expected, last_head], [expected, expected]) > 0.3


def test_an_error_that_is_no_number_is_never_small():
    right, wrong = torch.ones(2, 3), torch.full((2, 3), math.nan)
    assert math.isnan(reference.largest_error([wrong, right], [right, right]))


def test_zeros_where_zeros_are_expected_are_right():
    assert reference.largest_error([torch.zeros(2, 3)], [torch.zeros(2, 3)]) == 0
    assert not reference.largest_error([torch.ones(2, 3)], [torch.zeros(2, 3)]) < 1
