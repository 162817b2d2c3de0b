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
        machine.machine_of, machine.import_problem, machine.launch_problem, dispatch._say_once
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


CARD = torch.device("cuda", 0)


@pytest.fixture
def import_of_triton(monkeypatch):
    """Makes `import triton` raise what a test sets."""
    failure = []
    real_import = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "triton":
            raise failure[0]
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    return failure


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        (ModuleNotFoundError("No module named 'triton'", name="triton"), "triton is not installed"),
        (ModuleNotFoundError("No module named 'x'", name="x"), "triton does not load (Module"),
        (ImportError("libtriton.so: undefined symbol"), "triton does not load (ImportError: lib"),
        (OSError("GLIBC_2.34 not found"), "triton does not load (OSError: GLIBC"),
    ],
)
@pytest.mark.parametrize("requested", ["auto", "triton"])
def test_a_card_without_triton_runs_on_pytorch_and_says_why(
    monkeypatch, caplog, import_of_triton, failure, sentence, requested
):
    import_of_triton.append(failure)
    monkeypatch.setenv("INSTANTVIR_KERNELS", requested)
    with caplog.at_level(logging.INFO):
        assert dispatch._chosen(dispatch.Kind.BLOCK_CAUSAL, OnCard()) == "sdpa"
    assert sentence in caplog.text
    assert caplog.records[0].levelno == (logging.WARNING if requested == "triton" else logging.INFO)


def test_triton_without_a_gpu(monkeypatch, caplog):
    monkeypatch.setenv("INSTANTVIR_KERNELS", "triton")
    attend()
    assert "triton cannot run it: the tensors are on cpu" in caplog.text
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


def test_the_choice_is_said_once_and_is_no_news_on_a_cpu(caplog):
    with caplog.at_level(logging.DEBUG):
        attend()
        attend()
    said = [r for r in caplog.records if r.name == dispatch.__name__]
    assert [record.levelno for record in said] == [logging.DEBUG]
    assert said[0].getMessage().startswith("block-causal attention runs on ")


def test_a_process_that_cannot_import_triton_restores_on_a_cpu():
    """Nothing asks for it: not the entry points, not the student, not the roofline."""
    code = (
        "import sys; sys.modules['triton'] = None; "
        "import torch; from instantvir_kernels import dispatch; "
        "from instantvir_kernels.tools import aot, roofline, tune; "
        "from instantvir_models.students.tiny import TinyStudent; "
        "q = torch.ones(1, 4, 1, 8); dispatch.attention(q, q, q); "
        "assert 'instantvir_kernels.triton_launch' not in sys.modules"
    )
    environment = {"PYTHONPATH": ":".join(sys.path), "INSTANTVIR_KERNELS": "triton"}
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, env=environment, capture_output=True, text=True
    )
    assert "attention runs on sdpa: triton cannot run it" in result.stderr


def test_compiling_for_cards_without_triton_says_where_it_comes_from():
    code = "import sys; sys.modules['triton'] = None; from instantvir_kernels.tools.aot import main; main()"
    environment = {"PYTHONPATH": ":".join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert "pip install 'instantvir[kernels]'" in result.stderr.replace("\n", " ")


def test_what_runs_imports_no_tool():
    """`tools` measures and counts; a restoration must not depend on it."""
    code = (
        "import sys; from instantvir_kernels import dispatch, triton_launch; "
        "import instantvir_models.students.wan.student, instantvir_models.autoencoders.lean; "
        "assert not [name for name in sys.modules if name.startswith('instantvir_kernels.tools')]"
    )
    pytest.importorskip("triton")
    environment = {"PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


class OnCard:
    """Stands for a tensor on a card that this machine does not have."""

    def __init__(self):
        self.device = CARD
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
