"""Tile sizes of the attention kernels for each architecture: a static table, no search at start-up.

`tiles.json` holds the numbers. Those that ship were chosen by what the compiler reports (no spills,
within shared memory); `python -m instantvir_kernels.tools.tune` replaces them by measured ones on a card.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE_PATH = Path(__file__).with_name("tiles.json")
HEAD_DIMS = (64, 96, 128)
"""Head dimensions that have tiles."""

ATTENTION, BACKWARD_QUERIES, BACKWARD_KEYS = "attention", "backward_queries", "backward_keys"
KERNELS = (ATTENTION, BACKWARD_QUERIES, BACKWARD_KEYS)

ROW_WARPS = 4
"""Warps of one program of the kernels around attention; they move bytes, so one size fits all."""
CONV_TILE = (16, 64)
"""Places along a line and channels of one program of the depthwise convolution."""
HAAR_TOKENS = 8
"""Tokens of one program of the Haar kernels."""


@dataclass(frozen=True)
class Tile:
    """How one program of an attention kernel is cut."""

    block_q: int
    """Queries per program (or per step, in the backward pass of the keys)."""
    block_k: int
    """Keys per step (or per program, in the backward pass of the keys)."""
    num_warps: int
    num_stages: int
    """Depth of the software pipeline over the steps."""


INTERPRETER_TILE = Tile(block_q=32, block_k=16, num_warps=4, num_stages=1)
"""Small, so that short sequences of a test have whole tiles, ragged tiles and skipped ones."""


ARCHITECTURES = (80, 86, 89, 90, 100)
"""Those that have tiles, each as 10 major + minor: A100, RTX 30, RTX 40 and L4, H100, B200."""


def architecture_of(capability: tuple[int, int]) -> int | None:
    """The architecture whose tiles a card of this compute capability uses; None if it has none.

    A minor version without a table of its own (8.7, 10.3) uses the closest one below it.
    """
    number = 10 * capability[0] + capability[1]
    below = [known for known in ARCHITECTURES if known // 10 == capability[0] and known <= number]
    return max(below, default=None)


@cache
def table() -> dict[int, dict[str, dict[int, Tile]]]:
    """Architecture -> kernel -> head dimension -> tile."""
    stored = json.loads(TABLE_PATH.read_text(encoding="utf-8"))
    return {
        int(capability): {
            kernel: {int(dim): Tile(*sizes) for dim, sizes in of_dim.items()}
            for kernel, of_dim in kernels.items()
        }
        for capability, kernels in stored["tiles"].items()
    }


@cache
def faster_than_sdpa() -> dict[int, list[int]]:
    """Architecture -> head dimensions at which `tune` measured ours to beat PyTorch's attention."""
    stored = json.loads(TABLE_PATH.read_text(encoding="utf-8"))["faster_than_sdpa"]
    return {int(capability): dims for capability, dims in stored.items()}


def is_faster_than_sdpa(capability: tuple[int, int], head_dim: int) -> bool:
    """Whether `tune` measured our attention to beat PyTorch's on this architecture."""
    architecture = architecture_of(capability)
    return architecture is not None and head_dim in faster_than_sdpa().get(architecture, [])
