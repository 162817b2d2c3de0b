"""Measures tiles on the card that is here and writes the table that launches read.

    python -m instantvir_kernels.tools.tune [--output tiles.json]

Only the rows of this card's architecture change; those of other cards stay. Every candidate must
give the reference's result before it is timed. It also times PyTorch's own attention beside ours:
`dispatch` takes ours for plain attention only where this found it faster.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from instantvir_kernels import reference, tiles
from instantvir_kernels.machine import import_problem
from instantvir_kernels.tiles import Tile
from instantvir_kernels.tools.gate import TOLERANCE, head_by_head

CANDIDATES = {
    tiles.ATTENTION: [
        Tile(q, k, warps, stages)
        for q, k in ((64, 32), (64, 64), (128, 32), (128, 64), (128, 128))
        for warps in (4, 8)
        for stages in (2, 3, 4)
    ],
    tiles.BACKWARD_QUERIES: [
        Tile(q, k, warps, stages)
        for q, k in ((64, 32), (64, 64), (128, 32), (128, 64))
        for warps in (4, 8)
        for stages in (2, 3)
    ],
    tiles.BACKWARD_KEYS: [
        Tile(q, k, warps, stages)
        for q, k in ((32, 64), (64, 64), (32, 128), (64, 128))
        for warps in (4, 8)
        for stages in (2, 3)
    ],
}

DTYPE = torch.bfloat16
QUERIES, KEYS, HEADS, TOKENS_PER_BLOCK = 4680, 3 * 4680, 12, 4680
"""One block and a window of two, as at 832x480."""

Job = Callable[[Tile], Sequence[Tensor]]
"""Runs one kernel with a tile and returns what it computed."""


def best_tile(
    job: Job,
    candidates: Sequence[Tile],
    *,
    expected: Sequence[Tensor],
    seconds: Callable[[Callable[[], object]], float],
    say: Callable[[str], None],
) -> tuple[Tile, float] | None:
    """The fastest tile that computes `expected`, and its time; None if there is none.

    Args:
        job: the kernel.
        candidates: tiles to try; those that do not fit the card, or spill to a wrong result, drop.
        expected: what the kernel must return, within `TOLERANCE` of bfloat16.
        seconds: times a call.
        say: receives one line per candidate.
    """
    found: list[tuple[float, int, Tile]] = []
    for index, tile in enumerate(candidates):
        try:
            error = reference.largest_error(job(tile), expected)
        except Exception as failure:  # OutOfResources and compiler failures alike: not this one
            say(f"{tile}: {type(failure).__name__}")
            continue
        if not error < TOLERANCE[DTYPE]:
            say(f"{tile}: wrong by {error:.2g}")
            continue
        found.append((seconds(partial(job, tile)), index, tile))
        say(f"{tile}: {1e3 * found[-1][0]:.3f} ms")
    if not found:
        return None
    time, _, tile = min(found)
    return tile, time


def jobs_of(dim: int) -> dict[str, tuple[Job, Sequence[Tensor]]]:
    """Each kernel at the working size, and what it must compute."""
    from instantvir_kernels import triton_launch

    generator = torch.Generator("cuda").manual_seed(0)

    def sample(tokens: int) -> Tensor:
        return torch.randn(1, tokens, HEADS, dim, device="cuda", generator=generator, dtype=DTYPE)

    q, k, v, d_out = sample(QUERIES), sample(KEYS), sample(KEYS), sample(QUERIES)
    lse = torch.empty(1, HEADS, QUERIES, device="cuda")
    block = TOKENS_PER_BLOCK
    out = triton_launch.forward(q, k, v, tokens_per_block=block, lse=lse)
    plain, *gradients = head_by_head(_plain, q, k, v, d_out)

    def attend(tile: Tile) -> Sequence[Tensor]:
        return (triton_launch.forward(q, k, v, tokens_per_block=block, tile=tile),)

    def both(query_tile: Tile | None, key_tile: Tile | None) -> Sequence[Tensor]:
        return triton_launch.backward(
            q, k, v, out, lse, d_out, tokens_per_block=block, query_tile=query_tile,
            key_tile=key_tile,
        )  # fmt: skip

    return {
        tiles.ATTENTION: (attend, (plain,)),
        tiles.BACKWARD_QUERIES: (lambda tile: both(tile, None), gradients),
        tiles.BACKWARD_KEYS: (lambda tile: both(None, tile), gradients),
    }


def _plain(q: Tensor, k: Tensor, v: Tensor, d_out: Tensor) -> tuple[Tensor, ...]:
    """(out, d_q, d_k, d_v) of the reference, in float32."""
    leaves = [t.detach().float().requires_grad_() for t in (q, k, v)]
    out = reference.block_causal_attention(*leaves, tokens_per_block=TOKENS_PER_BLOCK)
    return out.detach(), *torch.autograd.grad(out, leaves, d_out.float())


def _sdpa_seconds(dim: int, seconds: Callable[[Callable[[], object]], float]) -> float:
    shape = (1, HEADS, QUERIES, dim), (1, HEADS, KEYS, dim), (1, HEADS, KEYS, dim)
    q, k, v = (torch.randn(s, device="cuda", dtype=DTYPE) for s in shape)
    return seconds(lambda: F.scaled_dot_product_attention(q, k, v))


def card_seconds(job: Callable[[], object]) -> float:
    """The median of some dozens of calls."""
    from triton.testing import do_bench

    return float(do_bench(job, warmup=50, rep=200, return_mode="median")) / 1e3


def write_table(
    table: dict[int, dict[str, dict[int, Tile]]],
    *,
    origin: str,
    faster_than_sdpa: dict[int, list[int]],
    path: Path,
) -> None:
    """Store a table where `tiles.table` finds it, with a note of where its numbers are from.

    Args:
        table: architecture -> kernel -> head dimension -> tile.
        faster_than_sdpa: architecture -> head dimensions at which ours was measured faster.
    """
    stored = {
        "origin": origin,
        "faster_than_sdpa": {str(key): dims for key, dims in faster_than_sdpa.items()},
        "columns": ["block_q", "block_k", "num_warps", "num_stages"],
        "tiles": {
            str(capability): {
                kernel: {
                    str(dim): [t.block_q, t.block_k, t.num_warps, t.num_stages]
                    for dim, t in of_dim.items()
                }
                for kernel, of_dim in kernels.items()
            }
            for capability, kernels in table.items()
        },
    }
    text = re.sub(r"\[[\d,\s]+\]", _on_one_line, json.dumps(stored, indent=1))
    path.write_text(text + "\n", encoding="utf-8")


def _on_one_line(numbers: re.Match[str]) -> str:
    return "[" + ", ".join(re.findall(r"\d+", numbers[0])) + "]"


def main() -> int:
    """Tune every kernel at every head dimension; 1 where there is no card to measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=tiles.TABLE_PATH)
    given = parser.parse_args()
    capability = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
    architecture = None if capability is None else tiles.architecture_of(capability)
    if architecture is None:
        print(
            "there is no NVIDIA card of compute capability 8.x, 9.x or 10.x here", file=sys.stderr
        )
        return 1
    if (problem := import_problem()) is not None:
        print(problem, file=sys.stderr)
        return 1
    table = {key: {k: dict(d) for k, d in row.items()} for key, row in tiles.table().items()}
    faster = tiles.faster_than_sdpa()
    faster[architecture] = []
    for dim in tiles.HEAD_DIMS:
        for kernel, (job, expected) in jobs_of(dim).items():
            print(f"{kernel}, heads of {dim}", file=sys.stderr)
            best = best_tile(
                job, CANDIDATES[kernel], expected=expected, seconds=card_seconds,
                say=lambda line: print(f"  {line}", file=sys.stderr),
            )  # fmt: skip
            if best is None:
                print(f"no tile of {kernel} works for heads of {dim}", file=sys.stderr)
                return 1
            table[architecture][kernel][dim], time = best
            if kernel == tiles.ATTENTION:
                rate = 4 * QUERIES * KEYS * HEADS * dim / time / 1e12
                sdpa = _sdpa_seconds(dim, card_seconds)
                print(f"  best: {rate:.0f} TFLOP/s; SDPA takes {sdpa / time:.2f} x as long")
                if math.isfinite(sdpa) and time < sdpa:
                    faster[architecture].append(dim)
    import triton

    origin = (
        f"sm_{architecture} measured on {torch.cuda.get_device_name()}, torch "
        f"{torch.__version__}, triton {triton.__version__}; others by what the compiler reports"
    )
    write_table(table, origin=origin, faster_than_sdpa=faster, path=given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
