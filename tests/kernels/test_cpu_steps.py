"""What a CPU runs without gradients, against the references."""

import pytest
import torch

from instantvir_kernels import cpu_steps, dispatch, reference

TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
MODULES = reference, cpu_steps


def normal(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_same(actual, expected):
    """Equal up to the last bit or two of the type, of the largest value."""
    assert actual.dtype == expected.dtype
    close = 4 * torch.finfo(expected.dtype).eps * expected.abs().max().item()
    torch.testing.assert_close(actual, expected, rtol=0, atol=close)


@TYPES
@pytest.mark.parametrize("rows", [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_norms_and_residuals(dtype, rows):
    x, y = normal(2, 6, 48) * 3 + 1, normal(2, 6, 48, dtype=dtype, seed=1)
    gate, scale, shift = (normal(*rows, 48, seed=seed) for seed in (2, 3, 4))
    expected, actual = (m.layer_norm_modulate(y, scale, shift) for m in MODULES)
    assert_same(actual, expected)
    for gate_or_none in (gate, None):
        results = [m.gated_residual_norm(x, y, gate_or_none, scale, shift) for m in MODULES]
        for expected, actual in zip(*results, strict=True):
            assert_same(actual, expected)


@TYPES
@pytest.mark.parametrize("first_slot", [0, 6, 14], ids=["start", "middle", "wraps"])
def test_norm_rope_write(dtype, first_slot):
    """Queries, and the whole ring: slots of other tokens must stay as they were."""
    heads, dim, tokens, slots = 3, 16, 6, 18
    q, k, v = normal(2, tokens, 3, heads * dim, dtype=dtype).unbind(2)  # one fused projection
    weights = {"q_weight": normal(heads * dim, seed=1), "k_weight": normal(heads * dim, seed=2)}
    angle = torch.arange(tokens)[:, None] * torch.linspace(1, 0.01, dim // 2)
    results = []
    for module in MODULES:
        # part of a larger buffer, as behind a sink
        rings = [normal(2, slots + 2, heads, dim, dtype=dtype, seed=s)[:, 2:] for s in (3, 4)]
        rotated = module.norm_rope_write(
            q, k, v, *rings, cos=angle.cos(), sin=angle.sin(), first_slot=first_slot, **weights
        )
        results.append((rotated, *rings))
    for expected, actual in zip(*results, strict=True):
        assert_same(actual, expected)


@TYPES
@pytest.mark.parametrize("residual", [True, False])
def test_depthwise_causal_conv(dtype, residual):
    x, memory = normal(2, 3, 4, 5, 24, dtype=dtype), normal(2, 2, 4, 5, 24, dtype=dtype, seed=1)
    weight, bias = 0.2 * normal(24, 1, 3, 3, 3, dtype=dtype, seed=2), normal(24, dtype=dtype)
    expected, actual = (
        m.depthwise_causal_conv(x, memory, weight, bias, residual=residual) for m in MODULES
    )
    assert_same(actual, expected)


@pytest.fixture(params=["as-here", "without-onednn"])
def products(request, monkeypatch):
    """The library that multiplies: the one found here, and what any build of PyTorch has."""
    if request.param == "without-onednn":
        monkeypatch.setattr(cpu_steps, "_runs_onednn", lambda dtype: False)


def feed_forward(dtype=torch.float32, channels=24, inner=61):
    """Arguments of a gated feed-forward net on 2 x 3 x 5 tokens."""
    return {
        "x": normal(2, 3, 5, channels, dtype=dtype),
        "norm_weight": normal(channels, dtype=dtype, seed=1),
        "norm_bias": normal(channels, dtype=dtype, seed=2),
        "up": normal(2 * inner, channels, dtype=dtype, seed=3) / channels**0.5,
        "down": normal(channels, inner, dtype=dtype, seed=4) / inner**0.5,
    }


@TYPES
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.usefixtures("products")
def test_gated_feed_forward_goes_through_the_tokens_a_few_at_a_time(dtype, residual, monkeypatch):
    monkeypatch.setattr(cpu_steps, "_TOKENS_PER_THREAD", 7)  # the last part is shorter
    given = feed_forward(dtype)
    before = given["x"].clone()
    expected, actual = (m.gated_feed_forward(**given, residual=residual) for m in MODULES)
    assert_same(actual, expected)
    assert torch.equal(given["x"], before)


@TYPES
@pytest.mark.usefixtures("products")
def test_gelu_behind_a_product(dtype):
    x, weight, bias = (normal(*shape, dtype=dtype) for shape in ((2, 5, 24), (61, 24), (61,)))
    assert_same(*(m.linear_gelu(x, weight / 5, bias) for m in reversed(MODULES)))


def test_gated_feed_forward_is_differentiable_where_it_trains():
    given = feed_forward()
    up = given["up"].requires_grad_()
    dispatch.gated_feed_forward(**given, residual=True).square().sum().backward()
    assert up.grad.abs().sum() > 0


@torch.inference_mode()
def test_products_follow_autocast():
    given = feed_forward()
    with torch.autocast("cpu", torch.bfloat16):
        assert dispatch.gated_feed_forward(**given, residual=False).dtype == torch.bfloat16
        assert (
            dispatch.linear_gelu(given["x"], given["up"], given["up"][:, 0]).dtype == torch.bfloat16
        )
