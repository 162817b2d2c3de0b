"""What this machine can run: found once per device, with a check of what triton computes there."""

import os
from functools import cache
from typing import Any

import torch
from torch import Tensor

from instantvir_kernels import reference
from instantvir_kernels.choice import Machine

CHECK_TOLERANCE = 1e-2
"""Of the self-check in 16 bits; rounding explains 2e-3, a kernel that is wrong is off by all of 1."""


WHERE_FROM = "a CUDA build of torch brings it, and so does `pip install 'instantvir[kernels]'`"


@cache
def machine_of(device: torch.device) -> Machine:
    """Facts about a device that cost nothing to find; `launch_problem` knows more."""
    if device.type != "cuda":
        interpreted = is_interpreted()
        problem = import_problem() if interpreted else None  # else it is never asked to run
        return Machine(triton_problem=problem, is_interpreted=interpreted)
    return Machine(
        capability=torch.cuda.get_device_capability(device),
        is_rocm=torch.version.hip is not None,
        triton_problem=import_problem(),
        is_interpreted=is_interpreted(),
    )


def is_interpreted() -> bool:
    """Whether kernels of this process run in triton's interpreter."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def import_problem() -> str | None:
    """A sentence if triton cannot be imported."""
    try:
        import triton  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name == "triton":
            return f"triton is not installed ({WHERE_FROM})"
        return f"triton does not load ({_first_line(error)})"
    except Exception as error:
        return f"triton does not load ({_first_line(error)})"
    return None


@cache
def launch_problem(device: torch.device) -> str | None:
    """A sentence if the kernels do not run, or compute nonsense, on `device`.

    Compilers and drivers have bugs of their own: a few dozen tokens are compared with the plain
    formulas, gradients included, before anything is trusted to the card. Asked once per device,
    and only where triton is about to be used; takes some seconds where triton has cached nothing.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng([]):
            error = _largest_error(device)
    except Exception as failure:  # whatever a driver throws, there is another way to compute
        return f"a test launch failed ({_first_line(failure)}); is the driver newer than triton's?"
    if not error < CHECK_TOLERANCE:
        return f"a test launch was off by {error:.2g} instead of at most {CHECK_TOLERANCE}"
    return None


def _largest_error(device: torch.device) -> float:
    from instantvir_kernels import triton_launch

    generator = torch.Generator().manual_seed(0)

    def sample(tokens: int) -> Tensor:
        x = torch.randn(1, tokens, 2, 64, generator=generator)
        return x.to(device, torch.float16).requires_grad_()

    q, k, v = sample(40), sample(72), sample(72)
    results = []
    for block_causal in (
        reference.block_causal_attention,
        triton_launch.block_causal_attention,
    ):
        out = block_causal(q, k, v, tokens_per_block=20)
        results.append((out, *torch.autograd.grad(out.float().square().sum(), (q, k, v))))
    expected, actual = results
    return reference.largest_error(
        (*actual, *_inference_results(triton_launch, device)),
        (*expected, *_inference_results(reference, device)),
    )


def _inference_results(kernels: Any, device: torch.device) -> tuple[Tensor, ...]:
    """What the full-size student asks of `kernels` besides: a bias of few keys, norms, the ring."""
    generator = torch.Generator().manual_seed(1)

    def sample(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, torch.float16)

    few_keys = sample(1, 20, 2, 64)
    bias = torch.linspace(-1, 1, 20, device=device)
    k_ring, v_ring = torch.zeros(2, 1, 48, 2, 64, device=device, dtype=torch.float16)
    angle = torch.linspace(0, 3, 40 * 32, device=device).view(40, 32)
    q = kernels.norm_rope_write(
        sample(1, 40, 128), sample(1, 40, 128), sample(1, 40, 128), k_ring, v_ring,
        q_weight=sample(128), k_weight=sample(128), cos=angle.cos(), sin=angle.sin(),
        first_slot=30,
    )  # fmt: skip
    return (
        kernels.attention(sample(1, 72, 2, 64), few_keys, few_keys, key_bias=bias),
        *kernels.gated_residual_norm(
            sample(1, 40, 128), sample(1, 40, 128), sample(1, 1, 128), sample(1, 1, 128),
            sample(1, 1, 128),
        ),
        q, k_ring, v_ring,
        kernels.depthwise_causal_conv(
            sample(1, 2, 5, 7, 16), sample(1, 2, 5, 7, 16), sample(16, 1, 3, 3, 3) / 5, sample(16),
            residual=True,
        ),
    )  # fmt: skip


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
