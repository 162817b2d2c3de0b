"""Every kernel beside what PyTorch offers for the same work, on the device that is here.

    python benchmarks/kernels.py [--device auto] [--output kernels.json] [--repeats 20]

A contender first has to compute what `reference` computes, in float32 on the same inputs; one that
does not is not timed, and the exit status is 1. On a card: one block of 832x480 over windows of 0, 2
and 6 past blocks, training over seven blocks, the steps around attention. On a CPU: the windows of
the embedded student, and the steps at a small size. Times are medians; on a CPU they are CPU
seconds, which do not depend on who else is using the machine.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from instantvir_kernels import dispatch, reference
from instantvir_kernels.choice import Call, Kind, choose
from instantvir_kernels.machine import machine_of
from instantvir_kernels.tools.gate import TOLERANCE, head_by_head

Results = Tensor | Sequence[Tensor]


@dataclass(frozen=True)
class Contender:
    """One way to do the work."""

    name: str
    run: Callable[[], Results]
    expected: Callable[[], Results] | None = None
    """What it must give where that is not what the case must, as with keys kept in 8 bits: what
    rounding them costs is the reference's to say, not an error of the kernel."""


@dataclass(frozen=True)
class Case:
    """Some work, what it must give, and who does it."""

    name: str
    dtype: torch.dtype
    flop: float
    """0 for steps that move bytes only."""
    moved_bytes: float
    """The least that must cross memory."""
    expected: Callable[[], Results]
    contenders: tuple[Contender, ...]


@dataclass(frozen=True)
class Line:
    """One result; the times are None if it was wrong or did not run."""

    case: str
    contender: str
    dtype: str
    largest_error: float | None
    is_correct: bool
    problem: str | None = None
    ms: float | None = None
    ms_low: float | None = None
    ms_high: float | None = None
    tflops: float | None = None
    gbytes_per_second: float | None = None


Timer = Callable[[Callable[[], object], int], list[float]]


def measured(case: Case, *, repeats: int, timer: Timer) -> Iterator[Line]:
    """One line per contender; only those that compute what they should are timed."""
    expected_of_case = _as_list(case.expected())
    dtype = str(case.dtype).removeprefix("torch.")
    for contender in case.contenders:
        expected = expected_of_case
        if contender.expected is not None:
            expected = _as_list(contender.expected())
        try:
            error = reference.largest_error(_as_list(contender.run()), expected)
        except Exception as failure:  # not every contender runs everywhere; say which did not
            problem = f"{type(failure).__name__}: {failure}".splitlines()[0][:200]
            yield Line(case.name, contender.name, dtype, None, False, problem)
            continue
        if not error <= TOLERANCE[case.dtype]:
            problem = f"off by {error:.2g} of a row; not timed"
            yield Line(case.name, contender.name, dtype, error, False, problem)
            continue
        seconds = sorted(timer(contender.run, repeats))
        median = seconds[len(seconds) // 2]
        yield Line(
            case.name, contender.name, dtype, error, True, None, 1e3 * median,
            1e3 * seconds[len(seconds) // 5], 1e3 * seconds[len(seconds) * 4 // 5],
            case.flop / median / 1e12 if case.flop else None, case.moved_bytes / median / 1e9,
        )  # fmt: skip


def _as_list(results: Results) -> list[Tensor]:
    return [results] if isinstance(results, Tensor) else list(results)


def cpu_seconds(run: Callable[[], object], repeats: int) -> list[float]:
    """CPU seconds of each call, after one that warms up."""
    run()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        run()
        times.append(time.process_time() - started)
    return times


def card_seconds(run: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each call between two events, caches of the card cleared before each."""
    for _ in range(3):
        run()
    scratch = torch.empty(256 * 2**20, dtype=torch.int8, device="cuda")
    pairs = []
    for _ in range(repeats):
        scratch.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        pairs.append((start, end))
    torch.cuda.synchronize()
    return [start.elapsed_time(end) / 1e3 for start, end in pairs]


def through(backend: str, call: Call, run: Callable[[], Results]) -> Contender:
    """`run` through dispatch with `INSTANTVIR_KERNELS` set; an error where that would fall back."""

    def with_backend() -> Results:
        choice = choose(backend, call, machine_of(torch.device(call.device)))
        if choice.is_fallback:
            raise RuntimeError(choice.reason)
        before = os.environ.get("INSTANTVIR_KERNELS")
        os.environ["INSTANTVIR_KERNELS"] = backend
        try:
            return run()
        finally:
            os.environ.pop("INSTANTVIR_KERNELS")
            if before is not None:
                os.environ["INSTANTVIR_KERNELS"] = before

    return Contender(backend, with_backend)


def card_cases(dtype: torch.dtype) -> Iterator[Case]:
    """One block at 832x480 of Wan2.1-1.3B and LeanVAE."""
    tokens, heads, dim = 4680, 12, 128
    yield from (attention_case(tokens, n, heads, dim, dtype) for n in (0, 2, 6))
    yield biased_case(tokens, heads, dim, dtype)
    yield from training_cases(3 * 1560, 7, heads, dim, dtype)
    yield from step_cases(tokens, heads * dim, heads, 8960, "cuda", dtype)
    yield from grid_cases(3, 60, 104, 512, "cuda", dtype)


def small_cases(dtype: torch.dtype) -> Iterator[Case]:
    """The cases of a card in small, on the CPU: what the stand-in of `card.py` runs."""
    yield from (attention_case(12, n, 2, 16, dtype, device="cpu") for n in (0, 1))
    yield biased_case(12, 2, 16, dtype, device="cpu")
    yield from training_cases(6, 3, 2, 16, dtype, device="cpu")
    yield from step_cases(12, 32, 2, 64, "cpu", dtype)
    yield from grid_cases(3, 4, 6, 16, "cpu", dtype)


def attention_case(
    tokens: int, past_blocks: int, heads: int, dim: int, dtype: torch.dtype, device: str = "cuda"
) -> Case:
    """Keys are a part of a ring that holds one block more."""
    keys = tokens * (past_blocks + 1)
    q = torch.randn(1, tokens, heads, dim, device=device, dtype=dtype)
    k, v = (
        torch.randn(1, keys + tokens, heads, dim, device=device, dtype=dtype)[:, :keys]
        for _ in range(2)
    )
    call = Call(kind=Kind.ATTENTION, device=device, dtype=dtype, head_dim=dim)
    int8 = [reference.quantise(t, tokens_per_block=tokens) for t in (k, v)]

    def attend() -> Tensor:
        return dispatch.attention(q, k, v)

    return Case(
        f"attention, {past_blocks} past blocks", dtype,
        4.0 * tokens * keys * heads * dim, 2.0 * (2 * tokens + 2 * keys) * heads * dim,
        lambda: head_by_head(lambda *qkv: [reference.attention(*qkv)], q, k, v),
        (
            *(through(name, call, attend) for name in ("triton", "sdpa", "flex")),
            Contender("FlashAttention", lambda: flash_attention(q, k, v)),
            Contender(
                f"{'triton' if device == 'cuda' else 'reference'}, int8 keys",
                lambda: dispatch.quantised_attention(q, *int8),
                expected=lambda: head_by_head(
                    lambda *qkv: [reference.attention(*qkv)], q.float(), *(t.dequantised() for t in int8)
                ),
            ),
        ),
    )  # fmt: skip


def flash_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's FlashAttention and nothing else; RuntimeError where it cannot run."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def biased_case(
    tokens: int, heads: int, dim: int, dtype: torch.dtype, device: str = "cuda"
) -> Case:
    """Text of 60 rows and one that stands for 452 of padding."""
    q = torch.randn(1, tokens, heads, dim, device=device, dtype=dtype)
    k, v = (torch.randn(1, 61, heads, dim, device=device, dtype=dtype) for _ in range(2))
    call = Call(kind=Kind.ATTENTION, device=device, dtype=dtype, head_dim=dim, has_bias=True)
    bias = torch.zeros(61, device=device)
    bias[-1] = torch.tensor(452.0).log()

    def attend() -> Tensor:
        return dispatch.attention(q, k, v, key_bias=bias)

    return Case(
        "cross-attention, padding as one key", dtype, 4.0 * tokens * 61 * heads * dim,
        4.0 * tokens * heads * dim, lambda: reference.attention(q, k, v, key_bias=bias),
        tuple(through(name, call, attend) for name in ("triton", "sdpa")),
    )  # fmt: skip


def training_cases(
    per_block: int, blocks: int, heads: int, dim: int, dtype: torch.dtype, device: str = "cuda"
) -> Iterator[Case]:
    """A whole sequence, forward and then forward with gradients."""
    tokens = per_block * blocks
    q, k, v, d_out = (
        torch.randn(1, tokens, heads, dim, device=device, dtype=dtype) for _ in range(4)
    )
    call = Call(kind=Kind.BLOCK_CAUSAL, device=device, dtype=dtype, head_dim=dim)
    visible = tokens * per_block * (blocks + 1) / 2
    flop = 4.0 * visible * heads * dim

    def attend(tensors: Sequence[Tensor] = (q, k, v)) -> Tensor:
        return dispatch.block_causal_attention(*tensors, tokens_per_block=per_block)

    def gradients() -> Sequence[Tensor]:
        leaves = [t.detach().requires_grad_() for t in (q, k, v)]
        return torch.autograd.grad(attend(leaves), leaves, d_out)

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Sequence[Tensor]:
        return [reference.block_causal_attention(q, k, v, tokens_per_block=per_block)]

    def plain_gradients(q: Tensor, k: Tensor, v: Tensor, d_out: Tensor) -> Sequence[Tensor]:
        leaves = [t.float().requires_grad_() for t in (q, k, v)]
        return torch.autograd.grad(plain(*leaves), leaves, d_out.float())

    yield Case(
        f"block-causal, {blocks} blocks", dtype, flop, 8.0 * tokens * heads * dim,
        lambda: head_by_head(plain, q, k, v),
        tuple(through(name, call, attend) for name in ("triton", "flex", "sdpa")),
    )  # fmt: skip
    yield Case(
        f"block-causal with gradients, {blocks} blocks", dtype, 3.5 * flop,
        16.0 * tokens * heads * dim, lambda: head_by_head(plain_gradients, q, k, v, d_out),
        tuple(
            through(name, replace(call, needs_gradient=True), gradients)
            for name in ("triton", "flex", "sdpa")
        ),
    )  # fmt: skip


def step_cases(
    tokens: int, width: int, heads: int, wide: int, device: str, dtype: torch.dtype
) -> Iterator[Case]:
    """The steps around attention: ours, plain PyTorch, and plain PyTorch compiled."""
    x, y, q, k, v = (torch.randn(1, tokens, width, device=device, dtype=dtype) for _ in range(5))
    gate, scale, shift = (torch.randn(1, 1, width, device=device) for _ in range(3))
    row = 2.0 * tokens * width
    plain = reference.gated_residual_norm
    compiled = torch.compile(plain) if device == "cuda" else plain
    yield Case(
        "gated residual + LayerNorm + modulation", dtype, 0.0, 4 * row,
        lambda: plain(x, y, gate, scale, shift),
        (
            Contender("auto", lambda: dispatch.gated_residual_norm(x, y, gate, scale, shift)),
            Contender("torch.compile" if device == "cuda" else "plain",
                      lambda: compiled(x, y, gate, scale, shift)),
        ),
    )  # fmt: skip
    dim = width // heads
    angle = torch.randn(tokens, dim // 2, device=device)
    weight = torch.randn(width, device=device, dtype=dtype)

    def rotate(module: Any) -> Sequence[Tensor]:
        rings = [torch.zeros(1, tokens, heads, dim, device=device, dtype=dtype) for _ in range(2)]
        rotated = module.norm_rope_write(
            q, k, v, *rings, q_weight=weight, k_weight=weight, cos=angle.cos(), sin=angle.sin(),
            first_slot=tokens // 2,
        )  # fmt: skip
        return rotated, *rings

    yield Case(
        "qk RMS-norm + RoPE + ring write", dtype, 0.0, 6 * row, lambda: rotate(reference),
        (Contender("auto", lambda: rotate(dispatch)), Contender("plain", lambda: rotate(reference))),
    )  # fmt: skip
    matrix = torch.randn(wide, width, device=device, dtype=dtype) / width**0.5
    bias = torch.randn(wide, device=device, dtype=dtype)
    yield Case(
        "linear + GELU", dtype, 2.0 * tokens * width * wide, row + 2.0 * tokens * wide,
        lambda: reference.linear_gelu(x.float(), matrix.float(), bias.float()),
        (
            Contender("auto", lambda: dispatch.linear_gelu(x, matrix, bias)),
            Contender("plain", lambda: reference.linear_gelu(x, matrix, bias)),
        ),
    )  # fmt: skip


def grid_cases(
    frames: int, height: int, width: int, channels: int, device: str, dtype: torch.dtype
) -> Iterator[Case]:
    """LeanVAE's convolution and its patches."""
    x = torch.randn(1, frames, height, width, channels, device=device, dtype=dtype)
    memory = torch.randn(1, 2, height, width, channels, device=device, dtype=dtype)
    weight = torch.randn(channels, 1, 3, 3, 3, device=device, dtype=dtype) / 5
    bias = torch.randn(channels, device=device, dtype=dtype)
    size = float(x.nbytes)

    def convolve(module: Any) -> Tensor:
        return module.depthwise_causal_conv(x, memory, weight, bias, residual=True)

    yield Case(
        "depthwise causal convolution", dtype, 0.0, 2 * size + memory.nbytes,
        lambda: convolve(reference),
        (
            Contender("auto", lambda: convolve(dispatch)),
            Contender("plain", lambda: convolve(reference)),
        ),
    )  # fmt: skip
    pixels = torch.randn(1, 4 * frames, 3, 8 * height, 8 * width, device=device, dtype=dtype)

    def patchify(module: Any) -> Sequence[Tensor]:
        return module.haar_patchify(pixels, frames_per_token=4)

    yield Case(
        "Haar patchify", dtype, 0.0, 2.0 * pixels.nbytes, lambda: patchify(reference),
        (
            Contender("auto", lambda: patchify(dispatch)),
            Contender("plain", lambda: patchify(reference)),
        ),
    )  # fmt: skip


def cpu_cases(dtype: torch.dtype) -> Iterator[Case]:
    """The windows of the embedded student at 832x480: 104 of 8 x 8 tokens x 3 frames, 4 heads of 24."""
    windows, tokens, heads, dim = 104, 192, 4, 24
    call = Call(kind=Kind.ATTENTION, device="cpu", dtype=dtype, head_dim=dim)
    for past_blocks in (0, 2):
        keys = tokens * (past_blocks + 1)
        q = torch.randn(windows, tokens, 3, heads, dim).to(dtype)[:, :, 0]  # as out of a projection
        k, v = (torch.randn(windows, keys, heads, dim).to(dtype) for _ in range(2))
        yield Case(
            f"windows of the embedded student, {past_blocks} past blocks", dtype,
            4.0 * windows * tokens * keys * heads * dim,
            q.element_size() * 2.0 * windows * (tokens + keys) * heads * dim,
            lambda q=q, k=k, v=v: reference.attention(q, k, v),
            (
                through("sdpa", call, lambda q=q, k=k, v=v: dispatch.attention(q, k, v)),
                Contender("products, all windows", lambda q=q, k=k, v=v: by_products(q, k, v)),
                Contender(
                    "products, 8 windows at a time",
                    lambda q=q, k=k, v=v: torch.cat(
                        [
                            by_products(q[i : i + 8], k[i : i + 8], v[i : i + 8])
                            for i in range(0, len(q), 8)
                        ]
                    ),
                ),
                through("reference", call, lambda q=q, k=k, v=v: dispatch.attention(q, k, v)),
            ),
        )  # fmt: skip
    yield from step_cases(480, 384, 4, 1536, "cpu", dtype)
    yield from grid_cases(3, 15, 26, 128, "cpu", dtype)


def by_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as two batched products and a softmax, all scores in memory."""
    q, k, v = (t.transpose(1, 2).flatten(0, 1) for t in (q, k, v))
    scores = torch.baddbmm(q.new_zeros(1, 1, 1), q, k.mT, beta=0, alpha=q.shape[-1] ** -0.5)
    out = torch.bmm(F.softmax(scores, -1), v)
    return out.unflatten(0, (-1, 4)).transpose(1, 2)


def hardware(device: str) -> dict[str, Any]:
    """What the numbers belong to."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if "model name" in line), cpu)
    triton = None
    if find_spec("triton"):
        from importlib.metadata import version

        triton = version("triton")
    facts: dict[str, Any] = {
        "device": device, "cpu": cpu, "threads": torch.get_num_threads(),
        "python": platform.python_version(), "torch": torch.__version__, "triton": triton,
        "system": platform.platform(terse=True),
    }  # fmt: skip
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        facts |= {"card": card.name, "cuda": torch.version.cuda, "hip": torch.version.hip}
    return facts


def main() -> int:
    """Check, measure, print and store; 1 if a contender was wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], action="append")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    device = given.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    cases, timer = (card_cases, card_seconds) if device == "cuda" else (cpu_cases, cpu_seconds)
    names = given.dtype or (["bfloat16"] if device == "cuda" else ["float32", "bfloat16"])
    lines = []
    for name in names:
        for case in cases(getattr(torch, name)):
            for line in measured(case, repeats=given.repeats, timer=timer):
                lines.append(line)
                print(_text(line), flush=True)
    if given.output:
        summary = {"hardware": hardware(device), "lines": [asdict(line) for line in lines]}
        given.output.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    wrong = [line for line in lines if not line.is_correct]
    for line in wrong:
        print(f"{line.case}, {line.contender}: {line.problem}", file=sys.stderr)
    return 1 if wrong else 0


def _text(line: Line) -> str:
    head = f"{line.case:<52} {line.dtype:<9} {line.contender:<30}"
    if line.ms is None:
        return f"{head} {line.problem}"
    rate = f"{line.gbytes_per_second:7.1f} GB/s"
    if line.tflops is not None:
        rate += f" {line.tflops:8.3f} TFLOP/s"
    return f"{head} {line.ms:9.3f} ms  error {line.largest_error:.1e} {rate}"


if __name__ == "__main__":
    sys.exit(main())
