"""What the compiler makes of every kernel for real cards, without one: registers, spills, opcodes.

    python -m instantvir_kernels.tools.aot            # compile, print the table, compare with the baseline
    python -m instantvir_kernels.tools.aot --write    # and keep the result as the new baseline

Needs triton (the extra `kernels`; its wheel brings ptxas and the disassemblers) and no GPU.
Not under TRITON_INTERPRET=1.
"""

import argparse
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instantvir_kernels import tiles
from instantvir_kernels.machine import import_problem
from instantvir_kernels.tiles import Tile
from instantvir_kernels.tools.baseline import (
    Baseline,
    Report,
    differences,
    read_baseline,
    write_baseline,
)
from instantvir_kernels.tools.occupancy import ARCHITECTURES

TARGETS = (80, 89, 90, 100)
"""Architectures the tests compile for; this script also compiles for 8.6, which has 8.9's tiles."""
MODEL_WIDTH = 1536
"""Width of the rows the step kernels are compiled for (Wan2.1-T2V-1.3B)."""

TENSOR_CORE_OPCODES = {80: "HMMA", 86: "HMMA", 89: "HMMA", 90: "HGMMA", 100: "UTCHMMA"}
"""SASS names of a 16-bit product on the tensor cores; UTCHMMA is PTX's tcgen05.mma."""


@dataclass(frozen=True)
class Specimen:
    """One kernel with everything that is fixed when it is compiled."""

    name: str
    kernel: str
    """`module:function` inside `instantvir_kernels`."""
    pointers: tuple[tuple[str, str], ...]
    """(argument, Triton type) of each pointer."""
    constants: tuple[tuple[str, Any], ...]
    num_warps: int
    num_stages: int
    wants_tensor_cores: bool
    is_default: bool
    """Part of the default run; the others are variants of the same kernels."""


def specimens(capability: int) -> Iterator[Specimen]:
    """Every kernel, at every tile of the table of this architecture."""
    table = tiles.table()[capability]
    for dim, tile in table[tiles.ATTENTION].items():
        main = dim == 128
        yield attention_specimen("attention", tile, dim, "bf16", is_default=main)
        yield attention_specimen("attention-bias", tile, dim, "bf16", bias=True, is_default=main)
        yield attention_specimen("attention-lse", tile, dim, "bf16", lse=True)
        yield attention_specimen("attention-int8", tile, dim, "bf16", kv="i8")
        if capability >= 89:
            yield attention_specimen("attention-e4m3", tile, dim, "bf16", kv="fp8e4nv")
    for kernel in (tiles.BACKWARD_QUERIES, tiles.BACKWARD_KEYS):
        for dim, tile in table[kernel].items():
            yield backward_specimen(kernel, tile, dim, "bf16", is_default=dim == 128)
    # the other 16-bit type differs in one letter of each opcode: the widest tile stands for it
    widest = max(table[tiles.ATTENTION])
    yield attention_specimen("attention", table[tiles.ATTENTION][widest], widest, "fp16")
    for kernel in (tiles.BACKWARD_QUERIES, tiles.BACKWARD_KEYS):
        yield backward_specimen(kernel, table[kernel][widest], widest, "fp16")
    yield from step_specimens()


def attention_specimen(
    name: str, tile: Tile, dim: int, dtype: str, *, bias: bool = False, lse: bool = False,
    kv: str | None = None, is_default: bool = False,
) -> Specimen:  # fmt: skip
    """The forward kernel at one tile."""
    types = {
        "q_ptr": dtype, "k_ptr": kv or dtype, "v_ptr": kv or dtype, "out_ptr": dtype,
        "lse_ptr": "fp32", "bias_ptr": "fp32", "k_scale_ptr": "fp32", "v_scale_ptr": "fp32",
    }  # fmt: skip
    constants = {"HAS_BIAS": bias, "QUANTISED": kv is not None, "SAVE_LSE": lse}
    kernel = "triton_attention:attention_forward"
    return _tiled(f"{name}-d{dim}-{dtype}", kernel, types, constants, tile, dim, is_default)


def backward_specimen(
    kernel: str, tile: Tile, dim: int, dtype: str, *, is_default: bool = False
) -> Specimen:
    """A backward kernel at one tile."""
    names = ["q_ptr", "k_ptr", "v_ptr", "d_out_ptr"]
    names += ["out_ptr", "d_q_ptr"] if kernel == tiles.BACKWARD_QUERIES else ["d_k_ptr", "d_v_ptr"]
    types = dict.fromkeys(names, dtype) | {"lse_ptr": "fp32", "delta_ptr": "fp32"}
    function = f"triton_attention_backward:attention_{kernel}"
    return _tiled(f"{kernel}-d{dim}-{dtype}", function, types, {}, tile, dim, is_default)


def _tiled(
    name: str, kernel: str, types: dict[str, str], constants: dict[str, Any], tile: Tile, dim: int,
    is_default: bool,
) -> Specimen:  # fmt: skip
    block_d = 1 << (dim - 1).bit_length()
    constants = constants | {
        "HEAD_DIM": dim, "BLOCK_D": block_d, "BLOCK_Q": tile.block_q, "BLOCK_K": tile.block_k,
        "PRECISION": "tf32x3",
    }  # fmt: skip
    return Specimen(
        name, kernel, tuple(types.items()), tuple(constants.items()), tile.num_warps,
        tile.num_stages, wants_tensor_cores=True, is_default=is_default,
    )  # fmt: skip


def step_specimens() -> Iterator[Specimen]:
    """The kernels around attention, as `triton_launch` calls them for Wan2.1-1.3B and LeanVAE."""
    row = 1 << (MODEL_WIDTH - 1).bit_length()
    norm_types = dict.fromkeys(
        ("x_ptr", "y_ptr", "gate_ptr", "scale_ptr", "shift_ptr", "sum_ptr", "out_ptr"), "bf16"
    )
    for name, residual, gate, norm in (
        ("layer_norm_modulate", False, False, True),
        ("gated_residual", True, True, False),
        ("gated_residual_norm", True, True, True),
    ):
        constants = {"HAS_RESIDUAL": residual, "HAS_GATE": gate, "HAS_NORM": norm, "BLOCK_M": row}
        is_default = name == "gated_residual_norm"
        yield _step(name, "triton_steps:residual_norm", norm_types, constants, is_default)
    ring_types = dict.fromkeys(
        ("q_ptr", "k_ptr", "v_ptr", "q_weight_ptr", "k_weight_ptr", "q_out_ptr", "k_ring_ptr",
         "v_ring_ptr"), "bf16",
    ) | {"cos_ptr": "fp32", "sin_ptr": "fp32"}  # fmt: skip
    constants = {"HEAD_DIM": 128, "BLOCK_M": row}
    yield _step("norm_rope_write", "triton_steps:norm_rope_write", ring_types, constants, True)
    conv_types = dict.fromkeys(("x_ptr", "memory_ptr", "weight_ptr", "bias_ptr", "out_ptr"), "bf16")
    block_w, block_c = tiles.CONV_TILE
    constants = {"RESIDUAL": True, "BLOCK_W": block_w, "BLOCK_C": block_c}
    conv = "triton_grid:depthwise_causal_conv"
    yield _step("depthwise_causal_conv", conv, conv_types, constants, True)
    for direction in ("patchify", "unpatchify"):
        for frames in (1, 4):
            types = dict.fromkeys(("pixels_ptr", "low_ptr", "high_ptr"), "bf16")
            constants = {
                "FRAMES": frames, "BLOCK_TOKENS": tiles.HAAR_TOKENS,
                "BLOCK_PLACES": 64 if frames == 1 else 128,
            }  # fmt: skip
            name = f"haar_{direction}-{'image' if frames == 1 else 'video'}"
            kernel = f"triton_grid:haar_{direction}"
            yield _step(name, kernel, types, constants, frames == 4)


def _step(
    name: str, kernel: str, types: dict[str, str], constants: dict[str, Any], is_default: bool
) -> Specimen:
    return Specimen(
        name, kernel, tuple(types.items()), tuple(constants.items()), tiles.ROW_WARPS, 3,
        wants_tensor_cores=False, is_default=is_default,
    )  # fmt: skip


def compile_specimen(specimen: Specimen, capability: int) -> Report:
    """Compile for an architecture and read registers, memory and opcodes off the machine code.

    Raises:
        RuntimeError: if the compiler refuses, or kernels are interpreted in this process.
    """
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # triton 3.9's default, said aloud
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module, _, function = specimen.kernel.partition(":")
    kernel = getattr(__import__(f"instantvir_kernels.{module}", fromlist=[function]), function)
    if not hasattr(kernel, "cache_key"):
        raise RuntimeError("kernels are interpreted in this process; unset TRITON_INTERPRET")
    pointers, constants = dict(specimen.pointers), dict(specimen.constants)
    signature = {name: _type_of(name, pointers, constants) for name in kernel.arg_names}
    # what a launch finds out by itself: addresses and strides are multiples of 16
    divisible = [
        (index,)
        for index, name in enumerate(kernel.arg_names)
        if name in pointers or name.endswith(("_batch", "_row", "_head")) or name == "width"
    ]
    source = ASTSource(
        kernel, signature, constexprs=constants,
        attrs={index: [["tt.divisibility", 16]] for index in divisible},
    )  # fmt: skip
    options = {"num_warps": specimen.num_warps, "num_stages": specimen.num_stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    usage, text = _disassembled(compiled.asm["cubin"])
    return Report(
        registers=int(re.findall(r"REG:(\d+)", usage)[-1]),
        stack_bytes=int(re.findall(r"STACK:(\d+)", usage)[-1]),
        shared_bytes=compiled.metadata.shared,
        num_warps=specimen.num_warps,
        tensor_core_ops=len(re.findall(rf"\b{TENSOR_CORE_OPCODES[capability]}", text)),
        float_ops=len(re.findall(r"\bFFMA", text)),
    )


def _type_of(name: str, pointers: dict[str, str], constants: dict[str, Any]) -> str:
    if name in constants:
        return "constexpr"
    if name in pointers:
        return "*" + pointers[name]
    return "fp32" if name in ("qk_scale", "softmax_scale", "eps") else "i32"


def _disassembled(cubin: bytes) -> tuple[str, str]:
    """(resource usage, SASS) by the tools in triton's wheel."""
    import triton

    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        commands = (["cuobjdump", "--dump-resource-usage"], ["nvdisasm", "-c"])
        usage, text = (
            subprocess.run(
                [str(tools / tool), *options, file.name], capture_output=True, text=True, check=True
            ).stdout
            for tool, *options in commands
        )
    return usage, text


def problems(specimen: Specimen, report: Report, capability: int) -> list[str]:
    """Sentences that say why this kernel must not ship for this architecture."""
    architecture = ARCHITECTURES[capability]
    found = []
    if report.stack_bytes:
        found.append(f"spills {report.stack_bytes} bytes per thread")
    if report.registers > 255:
        found.append(f"needs {report.registers} registers per thread; there are 255")
    if report.shared_bytes > architecture.shared_bytes_per_program:
        limit = architecture.shared_bytes_per_program
        found.append(f"needs {report.shared_bytes} bytes of shared memory; there are {limit}")
    elif not report.programs_per_multiprocessor(architecture):
        found.append("does not fit one multiprocessor")
    if specimen.wants_tensor_cores and not report.tensor_core_ops:
        found.append(f"has no {TENSOR_CORE_OPCODES[capability]}: it misses the tensor cores")
    if specimen.wants_tensor_cores and report.float_ops > MOST_FLOAT_OPS:
        found.append(f"has {report.float_ops} FFMA: products run outside the tensor cores")
    return [f"sm_{capability} {specimen.name} {sentence}" for sentence in found]


MOST_FLOAT_OPS = 600
"""A softmax of the tables' tiles needs some tens to hundreds of FFMA, a product without tensor
cores thousands."""


def selected(targets: Sequence[int], *, everything: bool) -> list[tuple[int, Specimen]]:
    """(architecture, specimen) of the default run or of all variants."""
    return [
        (target, specimen)
        for target in targets
        for specimen in specimens(target)
        if everything or specimen.is_default
    ]


def key_of(capability: int, specimen: Specimen) -> str:
    """Name of one result in the baseline."""
    return f"sm_{capability}/{specimen.name}"


def compile_all(jobs: Sequence[tuple[int, Specimen]], *, workers: int = 2) -> dict[str, Report]:
    """Reports of all jobs by `key_of`, compiled in `workers` processes."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        reports = pool.map(
            compile_specimen, [job[1] for job in jobs], [job[0] for job in jobs], chunksize=4
        )
        return {key_of(*job): report for job, report in zip(jobs, reports, strict=True)}


def table_lines(reports: dict[str, Report]) -> Iterable[str]:
    """The table that a person reads."""
    yield (
        f"{'kernel':<40} {'regs':>5} {'stack':>6} {'shared':>7} {'warps':>6} {'tensor':>7} "
        f"{'FFMA':>5} {'per SM':>7}"
    )
    for key, report in sorted(reports.items()):
        architecture = ARCHITECTURES[int(key.split("/")[0].removeprefix("sm_"))]
        yield (
            f"{key:<40} {report.registers:>5} {report.stack_bytes:>6} {report.shared_bytes:>7} "
            f"{report.num_warps:>6} {report.tensor_core_ops:>7} {report.float_ops:>5} "
            f"{report.programs_per_multiprocessor(architecture):>7}"
        )


def main() -> int:
    """The command line; 1 if a kernel must not ship or differs from the baseline."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="keep the result as the baseline")
    parser.add_argument("--all", action="store_true", help="every variant, not only one per kernel")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    if (problem := import_problem()) is not None:
        parser.error(problem)
    import triton

    warnings.filterwarnings("ignore", message="TRITON_DEFAULT_FP_FUSION")
    jobs = selected(tiles.ARCHITECTURES, everything=given.all)
    reports = compile_all(jobs, workers=given.workers)
    for line in table_lines(reports):
        print(line)
    bad = [s for job in jobs for s in problems(job[1], reports[key_of(*job)], job[0])]
    if given.write and not bad:
        write_baseline(Baseline(triton.__version__, reports))
    elif not given.write:
        bad += differences(reports, triton.__version__, read_baseline())
    for sentence in bad:
        print(sentence, file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
