"""Runs only in a process whose Triton interprets kernels: `test_interpreter.py` starts it."""

import os

import pytest
import torch

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["test_*.py"]

TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3}


@pytest.fixture(autouse=True)
def _poisoned_outputs(monkeypatch):
    """Whatever a kernel forgets to write stays NaN and fails the comparison."""

    def poisoned(make):
        def filled(*args, **kwargs):
            out = make(*args, **kwargs)
            return out.fill_(float("nan")) if out.is_floating_point() else out

        return filled

    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, poisoned(getattr(owner, name)))


@pytest.fixture
def normal():
    """Standard normal tensors, another one at each call."""
    generator = torch.Generator().manual_seed(0)

    def sample(*shape, dtype=torch.float32):
        return torch.randn(*shape, generator=generator).to(dtype)

    return sample


@pytest.fixture
def assert_same():
    """Equal within what the rounding of the type explains."""

    def check(actual, expected):
        tolerance = TOLERANCE[expected.dtype]
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)

    return check
