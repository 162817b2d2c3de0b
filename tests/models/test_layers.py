"""Layers of the embedded students."""

import pytest
import torch
from torch.nn import functional as F

from instantvir_models.students import layers
from instantvir_models.students.layers import (
    Conv1x1,
    Conv3x3,
    Doubling,
    Halving,
    Residual,
    conv3x3,
    laid_out,
    normed,
    squashed,
)

HEIGHT, WIDTH, CHANNELS = 40, 56, 48


@pytest.fixture(params=[True, False], ids=["winograd", "plain"])
def is_winograd(request, monkeypatch):
    """Both ways there are, whatever the processor."""
    if request.param and not torch.backends.nnpack.is_available():
        pytest.skip("torch was built without NNPACK")
    monkeypatch.setattr(layers, "_has_winograd", lambda: request.param)
    return request.param


def picture(channels=CHANNELS, frames=1):
    return torch.randn(frames, channels, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
@pytest.mark.parametrize("channels_out", [24, 48, 64])
def test_both_ways_to_convolve_say_the_same(is_winograd, channels_out):
    torch.manual_seed(0)
    conv, x = Conv3x3(CHANNELS, channels_out), picture()
    assert layers.suits_winograd(x) == is_winograd
    expected = F.conv2d(x.double(), conv.weight.double(), conv.bias.double(), padding=1)
    torch.testing.assert_close(conv(laid_out(x)).double(), expected, atol=2e-4, rtol=0)


@torch.no_grad()
def test_a_layer_is_the_same_in_both_orders_of_memory(is_winograd):
    torch.manual_seed(0)
    layer, x, code = Residual(CHANNELS, is_normed=True), picture(), torch.randn(1, 2 * CHANNELS)
    expected = layer.double()(torch.cat([x, x]).double(), code.expand(2, -1).double())[:1]
    found = layer.float()(laid_out(x), code)
    torch.testing.assert_close(found.double(), expected, atol=5e-4, rtol=0)


@torch.no_grad()
def test_to_half_the_size_and_back_is_the_same_in_both_orders_of_memory(is_winograd):
    torch.manual_seed(0)
    halving, doubling = Halving(CHANNELS, 64), Doubling(64, CHANNELS)
    x = picture()
    small = F.conv2d(x, halving.weight, halving.bias, stride=2)
    expected = F.conv_transpose2d(small, doubling.weight, doubling.bias, stride=2) + x
    x = laid_out(x)
    found = halving(x)
    assert found.is_contiguous() == x.is_contiguous()
    torch.testing.assert_close(found, small, atol=1e-5, rtol=0)
    torch.testing.assert_close(doubling(found, x), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_mix_of_channels_is_a_convolution():
    torch.manual_seed(0)
    conv, x = Conv1x1(CHANNELS, 5), picture(frames=2)
    for laid in (x, x.contiguous(memory_format=torch.channels_last)):
        expected = F.conv2d(x, conv.weight, conv.bias)
        torch.testing.assert_close(conv(laid), expected, atol=1e-5, rtol=0)


def test_squashed_is_a_tangent():
    x = torch.linspace(-40, 40, 101, dtype=torch.float64)
    torch.testing.assert_close(squashed(x), 2 * torch.tanh(x / 4))


@torch.no_grad()
def test_each_pixel_is_normed_to_one(is_winograd):
    square = normed(laid_out(3 * picture())).square().mean(1)
    torch.testing.assert_close(square, torch.ones_like(square))


def test_what_is_learned_goes_by_the_plain_way(monkeypatch):
    """Winograd's algorithm has no gradient."""
    monkeypatch.setattr(layers, "_has_winograd", lambda: True)
    conv, x = Conv3x3(CHANNELS, CHANNELS), picture().requires_grad_()
    conv3x3(x, conv.weight, conv.bias).sum().backward()
    assert x.grad.abs().sum() > 0
    assert conv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "x",
    [
        picture(frames=2),
        picture(channels=24),
        picture()[..., :8, :8],
        picture().double(),
        picture().bfloat16(),
    ],
    ids=["two frames", "few channels", "a small picture", "float64", "bfloat16"],
)
@torch.no_grad()
def test_where_it_does_not_pay_the_plain_way_is_taken(monkeypatch, x):
    monkeypatch.setattr(layers, "_has_winograd", lambda: True)
    assert not layers.suits_winograd(x)
