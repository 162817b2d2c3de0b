"""What every test shares: one thread, fixed seeds, no GPU unless asked for."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks a server that it did not start
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: tiny tensors gain nothing from more

import cv2
import pytest
import torch

from instantvir_models.solvers import amortised

torch.set_num_threads(1)
cv2.setNumThreads(1)


def pytest_collection_modifyitems(config, items):
    """Skip `cuda` without a GPU and `slow` unless `-m` asks for it."""
    for item in items:
        if "cuda" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))
        if "slow" in item.keywords and "slow" not in (config.option.markexpr or ""):
            item.add_marker(pytest.mark.skip(reason="slow; run with -m slow"))
        if "cluster" in item.keywords and "cluster" not in (config.option.markexpr or ""):
            item.add_marker(pytest.mark.skip(reason="starts a Ray cluster; run with -m cluster"))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def unguarded(monkeypatch):
    """What a student of random weights says comes out: the guard knows that it is no picture."""
    monkeypatch.setattr(amortised, "guarded", lambda held, *_, **__: held.restored)
