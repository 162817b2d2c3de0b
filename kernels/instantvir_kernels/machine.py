"""What this machine can run: found once per device, with a check of what triton computes there."""

import os
from functools import cache

import torch
from torch import Tensor

from instantvir_kernels import reference
from instantvir_kernels.choice import Machine

CHECK_TOLERANCE = 2e-2
"""Of the self-check in 16 bits; a kernel that is wrong is off by a hundred times as much."""


@cache
def machine_of(device: torch.device) -> Machine:
    """Facts about a device that cost nothing to find; `launch_problem` knows more."""
    if device.type != "cuda":
        interpreted = is_interpreted()
        problem = _import_problem() if interpreted else None  # else it is never asked to run
        return Machine(triton_problem=problem, is_interpreted=interpreted)
    return Machine(
        capability=torch.cuda.get_device_capability(device),
        is_rocm=torch.version.hip is not None,
        triton_problem=_import_problem(),
        is_interpreted=is_interpreted(),
    )


def is_interpreted() -> bool:
    """Whether kernels of this process run in triton's interpreter."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _import_problem() -> str | None:
    try:
        import triton  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name == "triton":
            return "triton is not installed (`pip install triton`, Linux only)"
        return f"triton does not load ({_first_line(error)})"
    except Exception as error:
        return f"triton does not load ({_first_line(error)})"
    return None


@cache
def launch_problem(device: torch.device) -> str | None:
    """A sentence if attention and its gradients do not run, or compute nonsense, on `device`.

    Compilers and drivers have bugs of their own: 40 queries of 72 keys are compared with the plain
    formula before anything is trusted to the card. Asked once per device, and only where triton is
    about to be used; takes some seconds where triton has cached nothing.
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
    pairs = zip(*results, strict=True)
    return max((one.float() - other.float()).abs().max().item() for one, other in pairs)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
