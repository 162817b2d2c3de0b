"""Which backend runs what: the rules, on machines that exist only on paper."""

from dataclasses import replace

import pytest
import torch

from instantvir_kernels.choice import Call, Kind, Machine, choose

A100 = Machine(capability=(8, 0))
CALL = Call(kind=Kind.BLOCK_CAUSAL, device="cuda", dtype=torch.bfloat16, head_dim=128)


def test_training_attention_on_a_card_skips_tiles_in_triton():
    assert choose("auto", CALL, A100).backend == "triton"


def test_attention_with_a_bias_runs_in_triton_because_flash_attention_has_none():
    call = replace(CALL, kind=Kind.ATTENTION, has_bias=True)
    assert choose("auto", call, A100).backend == "triton"


def test_plain_attention_waits_for_a_measurement():
    choice = choose("auto", replace(CALL, kind=Kind.ATTENTION), A100)
    assert choice.backend == "sdpa"
    assert "no measurement" in choice.reason


def test_plain_attention_runs_in_triton_where_it_was_measured_faster(monkeypatch):
    monkeypatch.setattr("instantvir_kernels.tiles.faster_than_sdpa", lambda: {80: [64]})
    call = replace(CALL, kind=Kind.ATTENTION, head_dim=64)
    card = Machine(capability=(8, 7))  # no table of its own: it takes that of 8.6
    assert choose("auto", call, card).backend == "sdpa"
    card = Machine(capability=(8, 2))
    assert choose("auto", call, card).backend == "triton"


@pytest.mark.parametrize(
    ("machine", "call", "reason", "instead"),
    [
        (Machine(triton_problem="triton is not installed"), CALL, "is not installed", "sdpa"),
        (Machine(capability=(9, 4), is_rocm=True), CALL, "this is ROCm", "flex"),
        (Machine(capability=(7, 5)), CALL, "no tiles for compute capability 7.5", "sdpa"),
        (
            Machine(capability=(7, 5)),
            replace(CALL, dtype=torch.float16),
            "no tiles for compute capability 7.5",
            "flex",
        ),
        (Machine(capability=(13, 0)), CALL, "no tiles for compute capability 13.0", "flex"),
        (A100, replace(CALL, dtype=torch.float32), "miss the tensor cores", "flex"),
        (A100, replace(CALL, head_dim=24), "no tiles for heads of 24", "sdpa"),
        (Machine(), replace(CALL, device="cpu"), "kernels need an NVIDIA card", "sdpa"),
        (Machine(), replace(CALL, device="mps"), "the tensors are on mps", "sdpa"),
    ],
    ids=[
        "absent",
        "rocm",
        "turing",
        "turing-16",
        "unknown-card",
        "float32",
        "head-dim",
        "cpu",
        "mps",
    ],
)
@pytest.mark.parametrize("requested", ["auto", "triton"])
def test_what_triton_cannot_run_has_a_plain_reason_and_another_backend(
    machine, call, reason, instead, requested
):
    choice = choose(requested, call, machine)
    assert choice.backend == instead
    assert reason in choice.reason
    assert choice.is_fallback == (requested == "triton")


def test_keys_in_e4m3_need_a_card_that_has_the_type():
    call = replace(CALL, kind=Kind.QUANTISED, kept_dtype=torch.float8_e4m3fn)
    assert choose("auto", call, Machine(capability=(8, 9))).backend == "triton"
    refused = choose("auto", call, A100)
    assert refused.backend == "reference"
    assert "int8 runs from 8.0 on" in refused.reason
    assert choose("auto", replace(call, kept_dtype=torch.int8), A100).backend == "triton"


def test_a_step_with_a_gradient_runs_in_pytorch():
    step = Call(kind=Kind.STEP, device="cuda", dtype=torch.bfloat16)
    assert choose("auto", step, A100).backend == "triton"
    choice = choose("auto", replace(step, needs_gradient=True), A100)
    assert (choice.backend, "has no gradient" in choice.reason) == ("reference", True)


def test_a_step_on_a_cpu_runs_in_its_own_form_without_gradients():
    step = Call(kind=Kind.STEP, device="cpu", dtype=torch.float32)
    assert choose("auto", step, Machine()).backend == "cpu"
    assert choose("auto", replace(step, needs_gradient=True), Machine()).backend == "reference"
    assert choose("reference", step, Machine()).backend == "reference"


def test_a_step_in_float32_needs_no_tensor_cores():
    step = Call(kind=Kind.STEP, device="cuda", dtype=torch.float32)
    assert choose("auto", step, A100).backend == "triton"


def test_training_with_flex_attention_on_a_cpu_falls_back():
    call = replace(CALL, device="cpu", needs_gradient=True)
    choice = choose("flex", call, Machine())
    assert (choice.backend, choice.is_fallback) == ("sdpa", True)
    assert "no gradient on a CPU" in choice.reason


def test_the_interpreter_runs_only_when_asked_and_never_bfloat16():
    call = replace(CALL, device="cpu", dtype=torch.float32)
    interpreted = Machine(is_interpreted=True)
    assert choose("auto", call, interpreted).backend != "triton"
    assert choose("triton", call, interpreted).backend == "triton"
    refused = choose("triton", replace(call, dtype=torch.bfloat16), interpreted)
    assert refused.is_fallback
    assert "bits of bfloat16" in refused.reason


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("requested", ["sdpa", "reference"])
def test_plain_pytorch_can_always_be_had(kind, requested):
    choice = choose(requested, replace(CALL, kind=kind), A100)
    assert choice.backend in (requested, "reference")
    assert not choice.is_fallback
