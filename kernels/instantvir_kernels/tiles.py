"""Tile sizes of the attention kernels for each architecture: a static table, no search at start-up.

`tiles.json` holds the numbers. Those that ship were chosen by what the compiler reports (no spills,
within shared memory); `python -m instantvir_kernels.tune` replaces them by measured ones on a card.
"""

import json
import re
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


@dataclass(frozen=True)
class Architecture:
    """What one streaming multiprocessor of an architecture holds (CUDA C programming guide)."""

    capability: int
    """10 major + minor."""
    shared_bytes_per_program: int
    shared_bytes: int
    max_warps: int
    max_programs: int
    registers: int = 65536

    def resident_programs(self, *, registers: int, shared_bytes: int, num_warps: int) -> int:
        """Programs of a kernel that run at once on one multiprocessor.

        Args:
            registers: per thread, as the compiler reports; allocated to warps in units of 256.
            shared_bytes: per program; the driver takes 1 KiB more for itself.
            num_warps: per program.
        """
        registers_per_warp = -(-registers * 32 // 256) * 256
        return min(
            self.max_programs,
            self.max_warps // num_warps,
            self.registers // (registers_per_warp * num_warps),
            self.shared_bytes // (shared_bytes + 1024),
        )


KIB = 1024
ARCHITECTURES = {
    architecture.capability: architecture
    for architecture in (
        Architecture(80, 163 * KIB, 164 * KIB, 64, 32),  # A100
        Architecture(86, 99 * KIB, 100 * KIB, 48, 16),  # RTX 30
        Architecture(89, 99 * KIB, 100 * KIB, 48, 24),  # RTX 40, L4
        Architecture(90, 227 * KIB, 228 * KIB, 64, 32),  # H100
        Architecture(100, 227 * KIB, 228 * KIB, 64, 32),  # B200
    )
}

INTERPRETER_TILE = Tile(block_q=32, block_k=16, num_warps=4, num_stages=1)
"""Small, so that short sequences of a test have whole tiles, ragged tiles and skipped ones."""


def architecture_of(capability: tuple[int, int]) -> Architecture | None:
    """The architecture whose tiles a card of this compute capability uses; None if it has none.

    A minor version without a table of its own (8.7, 10.3) uses the closest one below it.
    """
    number = 10 * capability[0] + capability[1]
    same_major = [known for known in ARCHITECTURES if known // 10 == capability[0]]
    below = [known for known in same_major if known <= number]
    return ARCHITECTURES[max(below)] if below else None


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
    if architecture is None:
        return False
    return head_dim in faster_than_sdpa().get(architecture.capability, [])


def write_table(
    tiles: dict[int, dict[str, dict[int, Tile]]],
    *,
    origin: str,
    faster_than_sdpa: dict[int, list[int]],
    path: Path,
) -> None:
    """Store a table where `table` finds it, with a note of where its numbers are from.

    Args:
        tiles: architecture -> kernel -> head dimension -> tile.
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
            for capability, kernels in tiles.items()
        },
    }
    text = re.sub(r"\[[\d,\s]+\]", _on_one_line, json.dumps(stored, indent=1))
    path.write_text(text + "\n", encoding="utf-8")


def _on_one_line(numbers: re.Match[str]) -> str:
    return "[" + ", ".join(re.findall(r"\d+", numbers[0])) + "]"
