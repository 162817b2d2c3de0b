"""Triton absent, present without a GPU, and behind a broken driver: a sentence, then the fallback."""

import builtins
import logging
import subprocess
import sys

import pytest
import torch

from instantvir_kernels import dispatch, machine, reference

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _forget():
    """What a process found out about its machine is found again in each test."""
    caches = (
        machine.machine_of, machine._import_problem, machine.launch_problem, dispatch._say_once
    )  # fmt: skip
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def attend():
    q, k, v = (torch.randn(1, 12, 2, 8) for _ in range(3))
    out = dispatch.block_causal_attention(q, k, v, tokens_per_block=4)
    expected = reference.block_causal_attention(q, k, v, tokens_per_block=4)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


def test_triton_that_is_not_installed(monkeypatch, caplog):
    monkeypatch.setattr(machine, "find_spec", lambda name: None)
    monkeypatch.setenv("INSTANTVIR_KERNELS", "triton")
    attend()
    assert "triton cannot run it: triton is not installed" in caplog.text


def test_triton_that_does_not_load(monkeypatch, caplog):
    monkeypatch.setattr(machine, "find_spec", lambda name: object())
    real_import = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "triton":
            raise ImportError("libtriton.so: undefined symbol")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setenv("INSTANTVIR_KERNELS", "triton")
    attend()
    assert "triton does not load (ImportError: libtriton.so" in caplog.text


def test_triton_without_a_gpu(monkeypatch, caplog):
    monkeypatch.setenv("INSTANTVIR_KERNELS", "triton")
    attend()
    assert "cannot run it:" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


def test_a_broken_driver_is_found_by_a_test_launch():
    """On this machine the launch itself fails, as with a driver that triton cannot talk to."""
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("this machine has a driver that works")
    assert "a test launch failed (" in machine.launch_problem(CPU)


def test_a_card_that_computes_nonsense_is_not_trusted(monkeypatch):
    monkeypatch.setattr(machine, "_largest_error", lambda device: float("nan"))
    assert "a test launch was off by nan" in machine.launch_problem(CPU)
    machine.launch_problem.cache_clear()
    monkeypatch.setattr(machine, "_largest_error", lambda device: 1e-3)
    assert machine.launch_problem(CPU) is None


def test_the_choice_is_said_once(caplog):
    with caplog.at_level(logging.INFO):
        attend()
        attend()
    said = [r for r in caplog.records if r.name == dispatch.__name__]
    assert len(said) == 1
    assert said[0].getMessage().startswith("block-causal attention runs on ")


def test_nothing_here_imports_triton_by_itself():
    """It takes 0.2 s and can fail; a CPU never needs it."""
    code = (
        "import sys, torch; from instantvir_kernels import dispatch, machine, choice, tiles; "
        "q = torch.ones(1, 4, 1, 8); dispatch.attention(q, q, q); "
        "assert 'instantvir_kernels.triton_launch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


class OnCard:
    """Stands for a tensor on a card that this machine does not have."""

    def __init__(self):
        self.device = torch.device("cuda", 0)
        self.is_cuda, self.requires_grad = True, False
        self.dtype, self.shape = torch.float16, (1, 40, 2, 64)


@pytest.mark.parametrize(
    ("problem", "backend"), [(None, "triton"), ("a test launch failed (driver)", "sdpa")]
)
def test_a_card_is_asked_before_triton_is_trusted_to_it(monkeypatch, caplog, problem, backend):
    monkeypatch.setattr(dispatch, "machine_of", lambda device: machine.Machine(capability=(9, 0)))
    monkeypatch.setattr(dispatch, "launch_problem", lambda device: problem)
    with caplog.at_level(logging.INFO):
        assert dispatch._chosen(dispatch.Kind.BLOCK_CAUSAL, OnCard()) == backend
    assert (problem or "tiles that nobody sees are skipped") in caplog.text


def test_a_card_that_needs_no_triton_is_not_kept_waiting(monkeypatch):
    monkeypatch.setattr(dispatch, "machine_of", lambda device: machine.Machine(capability=(9, 0)))
    monkeypatch.setattr(dispatch, "launch_problem", lambda device: pytest.fail("compiled"))
    assert dispatch._chosen(dispatch.Kind.ATTENTION, OnCard()) == "sdpa"
