"""The check that stands between a card and wrong results, run on the interpreter instead of a card."""

import math

import pytest
import torch

from instantvir_kernels import machine, triton_launch

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _fresh():
    machine.launch_problem.cache_clear()
    yield
    machine.launch_problem.cache_clear()


def test_kernels_that_are_right_pass():
    assert machine.launch_problem(CPU) is None


@pytest.mark.parametrize("name", ["attention", "depthwise_causal_conv"])
def test_one_kernel_that_is_off_is_enough(monkeypatch, name):
    right = getattr(triton_launch, name)
    monkeypatch.setattr(triton_launch, name, lambda *a, **k: right(*a, **k) + 0.1)
    assert "a test launch was off by 0." in machine.launch_problem(CPU)


def test_a_gradient_that_is_no_number_is_seen(monkeypatch):
    """`max` passes over NaN: a tile with NaN in its gradients was written to the table."""
    monkeypatch.setattr(
        triton_launch, "backward", lambda q, k, v, *a, **o: (q, k, torch.full_like(v, math.nan))
    )
    assert "off by nan" in machine.launch_problem(CPU)
