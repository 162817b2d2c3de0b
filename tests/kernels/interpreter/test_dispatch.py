"""The entry points reach the kernels, with everything in between: choice, launch, strides."""

import pytest
import torch

from instantvir_kernels import dispatch, reference, triton_launch


@pytest.fixture(autouse=True)
def _in_triton(monkeypatch):
    monkeypatch.setenv("INSTANTVIR_KERNELS", "triton")


@pytest.fixture
def launched(monkeypatch):
    """Names of the launchers that were called."""
    names = []
    for name in ("attention", "block_causal_attention", "quantised_attention"):
        original = getattr(triton_launch, name)

        def noted(*args, _name=name, _original=original, **kwargs):
            names.append(_name)
            return _original(*args, **kwargs)

        monkeypatch.setattr(triton_launch, name, noted)
    return names


def test_a_filled_part_of_a_ring(normal, assert_same, launched):
    q = normal(1, 12, 1, 64)
    k, v = (normal(1, 60, 1, 64) for _ in range(2))
    actual = dispatch.attention(q, k[:, :36], v[:, :36])
    assert_same(actual, reference.attention(q, k[:, :36], v[:, :36]))
    assert launched == ["attention"]


def test_training(normal, assert_same, launched):
    q, k, v = (normal(1, 24, 1, 64).requires_grad_() for _ in range(3))
    out = dispatch.block_causal_attention(q, k, v, tokens_per_block=12)
    out.sum().backward()
    expected = reference.block_causal_attention(q, k, v, tokens_per_block=12)
    assert_same(out, expected)
    torch.testing.assert_close(
        v.grad, torch.autograd.grad(expected.sum(), v)[0], rtol=1e-5, atol=1e-5
    )
    assert launched == ["block_causal_attention"]


def test_one_block_takes_the_streaming_kernel_and_a_gradient_the_training_one(normal, launched):
    q, k, v = (normal(1, 12, 1, 64) for _ in range(3))
    dispatch.block_causal_attention(q, k, v, tokens_per_block=12)
    dispatch.block_causal_attention(q.requires_grad_(), k, v, tokens_per_block=12)
    assert launched == ["attention", "block_causal_attention"]


def test_keys_in_8_bits(normal, launched):
    q, k, v = (normal(1, 12, 1, 64) for _ in range(3))
    k, v = (reference.quantise(t, tokens_per_block=5) for t in (k, v))
    torch.testing.assert_close(
        dispatch.quantised_attention(q, k, v), reference.quantised_attention(q, k, v),
        rtol=1e-5, atol=1e-5,
    )  # fmt: skip
    assert launched == ["quantised_attention"]
