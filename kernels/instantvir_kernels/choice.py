"""Which implementation runs a call, and why: a pure function of the call and the machine."""

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

import torch

from instantvir_kernels import tiles

BACKENDS = ("auto", "triton", "flex", "sdpa", "reference")
FLEX_HEAD_DIMS = (16, 32, 64, 128, 256)


class Kind(Enum):
    """What is called."""

    ATTENTION = "attention"
    BLOCK_CAUSAL = "block-causal attention"
    QUANTISED = "attention over 8-bit keys"
    STEP = "the steps around attention"


@dataclass(frozen=True)
class Call:
    """What the choice may depend on."""

    kind: Kind
    device: str
    """Type of the tensors' device."""
    dtype: torch.dtype
    head_dim: int | None = None
    """None for a step, which has no heads to tile."""
    kept_dtype: torch.dtype | None = None
    """Of keys and values kept in 8 bits."""
    has_bias: bool = False
    needs_gradient: bool = False


@dataclass(frozen=True)
class Machine:
    """What is known of the device and of what is installed for it."""

    capability: tuple[int, int] | None = None
    """Of a CUDA device, else None."""
    is_rocm: bool = False
    triton_problem: str | None = None
    """A sentence if triton cannot run here."""
    is_interpreted: bool = False
    """Kernels run on the CPU, in Python (TRITON_INTERPRET=1)."""


@dataclass(frozen=True)
class Choice:
    """The implementation and a sentence that says why."""

    backend: str
    reason: str
    is_fallback: bool = False
    """The user asked for another one."""


@lru_cache(maxsize=256)
def choose(requested: str, call: Call, machine: Machine) -> Choice:
    """The backend for `call`.

    Args:
        requested: one of `BACKENDS`. What cannot be had falls back to what `auto` would take.
    """
    if requested in ("sdpa", "reference") and call.kind in (Kind.ATTENTION, Kind.BLOCK_CAUSAL):
        return Choice(requested, "INSTANTVIR_KERNELS asks for it")
    if requested in ("sdpa", "flex", "reference") and call.kind in (Kind.STEP, Kind.QUANTISED):
        return Choice("reference", f"INSTANTVIR_KERNELS={requested} has no other form of it")
    if requested == "triton":
        obstacle = why_not_triton(call, machine)
    elif requested == "flex":
        obstacle = why_not_flex(call, machine)
    else:
        return _automatic(call, machine)
    if obstacle is None:
        return Choice(requested, "INSTANTVIR_KERNELS asks for it")
    rest = _automatic(call, machine)
    return Choice(rest.backend, f"{requested} cannot run it: {obstacle}", is_fallback=True)


def _automatic(call: Call, machine: Machine) -> Choice:
    obstacle = why_not_triton(call, machine)
    if machine.is_interpreted and call.device != "cuda":
        obstacle = obstacle or "the interpreter is for tests"
    if call.kind in (Kind.STEP, Kind.QUANTISED):
        if obstacle is None:
            return Choice("triton", "one pass over memory")
        if call.kind is Kind.STEP and call.device == "cpu" and not call.needs_gradient:
            return Choice("cpu", obstacle)
        return Choice("reference", obstacle)
    if obstacle is None:
        if call.kind is Kind.BLOCK_CAUSAL:
            if _trains_faster_with_flex(call, machine):
                return Choice("flex", "gradients were measured twice as fast as triton's here")
            return Choice("triton", "tiles that nobody sees are skipped")
        if call.has_bias:
            return Choice("triton", "FlashAttention takes no bias of the keys")
        assert machine.capability is not None
        assert call.head_dim is not None
        if tiles.is_faster_than_sdpa(machine.capability, call.head_dim):
            return Choice("triton", "measured faster than scaled_dot_product_attention here")
        obstacle = "no measurement here says that triton is faster (instantvir_kernels.tools.tune)"
    elif _takes_flex(call, machine):
        return Choice("flex", obstacle)
    return Choice("sdpa", obstacle)


def _trains_faster_with_flex(call: Call, machine: Machine) -> bool:
    """On Hopper: 37 ms against 78 over seven blocks of 832x480 (benchmarks/results/card_h200.md)."""
    return call.needs_gradient and machine.capability == (9, 0) and _takes_flex(call, machine)


def _takes_flex(call: Call, machine: Machine) -> bool:
    """Where a mask is needed on a card; on a CPU it takes a minute to compile, and is slow without."""
    is_masked_on_card = call.kind is Kind.BLOCK_CAUSAL and call.device == "cuda"
    return is_masked_on_card and why_not_flex(call, machine) is None


def why_not_triton(call: Call, machine: Machine) -> str | None:
    """A sentence if our kernels cannot run `call`, None if they can."""
    if machine.triton_problem is not None:
        return machine.triton_problem
    if machine.is_interpreted:
        if call.dtype == torch.bfloat16:
            return "triton's interpreter multiplies the bits of bfloat16, not its values"
    elif call.device != "cuda":
        return f"the tensors are on {call.device}; kernels need an NVIDIA card"
    elif machine.is_rocm:
        return "tiles are known for NVIDIA cards only, this is ROCm"
    elif machine.capability is None or tiles.architecture_of(machine.capability) is None:
        return (
            f"no tiles for compute capability {_dotted(machine.capability)}; 8.x to 10.x have some"
        )
    elif call.head_dim is not None and call.dtype not in (torch.bfloat16, torch.float16):
        return f"{_name(call.dtype)} products miss the tensor cores; use bfloat16 or float16"
    if call.head_dim is not None and call.head_dim not in tiles.HEAD_DIMS:
        return f"no tiles for heads of {call.head_dim}; there are {_listed(tiles.HEAD_DIMS)}"
    has_e4m3 = machine.capability is None or machine.capability >= (8, 9)
    if call.kept_dtype == torch.float8_e4m3fn and not has_e4m3:
        return "float8_e4m3fn needs compute capability 8.9; int8 runs from 8.0 on"
    if call.needs_gradient and call.kind is not Kind.BLOCK_CAUSAL:
        return f"{call.kind.value} in triton has no gradient"
    return None


def why_not_flex(call: Call, machine: Machine) -> str | None:
    """A sentence if FlexAttention cannot run `call`, None if it can."""
    if call.kind is Kind.ATTENTION and call.has_bias:
        return "the bias of the keys is ours, not FlexAttention's"
    if call.needs_gradient and call.device == "cpu":
        return "FlexAttention has no gradient on a CPU"
    if call.device == "cuda" and machine.triton_problem is not None:
        return f"torch.compile needs triton, and {machine.triton_problem}"
    if call.device == "cuda" and machine.capability is not None:
        least = (8, 0) if call.dtype == torch.bfloat16 else (7, 0)
        if machine.capability < least:  # it would build every score, or not compile
            return (
                f"FlexAttention in {_name(call.dtype)} needs compute capability {_dotted(least)}, "
                f"this card has {_dotted(machine.capability)}"
            )
    if call.device not in ("cuda", "cpu"):
        return f"FlexAttention does not run on {call.device}"
    if call.device == "cuda" and call.head_dim not in FLEX_HEAD_DIMS:
        return f"FlexAttention is tried for heads of {_listed(FLEX_HEAD_DIMS)} only"
    return None


def _dotted(capability: tuple[int, int] | None) -> str:
    return "unknown" if capability is None else f"{capability[0]}.{capability[1]}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))
