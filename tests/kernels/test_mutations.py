"""Kernels that are wrong on purpose: each fault must fail the test that is named for it."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "kernels" / "instantvir_kernels"


@dataclass(frozen=True)
class Fault:
    """`right` in `module` becomes `wrong`; then `failing` must fail."""

    name: str
    module: str
    right: str
    wrong: str
    failing: str


FAULTS = [
    Fault(
        "token-causal-mask",
        "triton_attention",
        "return tl.minimum((block + 1) * tokens_per_block, num_keys)",
        "return tl.minimum(rows + (num_keys - num_queries) + 1, num_keys)",
        "test_inside_a_block_attention_is_bidirectional",
    ),
    Fault(
        "future-block-visible",
        "triton_attention",
        "return tl.minimum((block + 1) * tokens_per_block, num_keys)",
        "return tl.minimum((block + 2) * tokens_per_block, num_keys)",
        "test_the_future_is_invisible",
    ),
    Fault(
        "ring-slot-off-by-one",
        "triton_steps",
        "(first_slot + token) % num_slots",
        "(first_slot + token + 1) % num_slots",
        "test_norm_rope_write",
    ),
    Fault(
        "ring-wraps-one-early",
        "triton_steps",
        "(first_slot + token) % num_slots",
        "(first_slot + token) % (num_slots - 1)",
        "test_norm_rope_write",
    ),
    Fault(
        "no-tail-mask-of-scores",
        "triton_attention",
        'scores = tl.where(visible, scores, float("-inf"))',
        "scores = tl.where(visible, scores, scores)",
        "test_keys_past_the_last_one_are_never_seen",
    ),
    Fault(
        "no-tail-mask-of-loads",
        "triton_attention",
        "tile = tl.load(pointers, mask=rows[:, None] < num_rows, other=0.0)",
        "tile = tl.load(pointers)",
        "test_free_slots_of_a_ring_may_hold_anything",
    ),
    Fault(
        "tiles-skipped-too-early",
        "triton_attention",
        "end = _visible_end(last_row, num_queries, num_keys, tokens_per_block)",
        "end = seen_by_first",
        "test_forward_equals_the_reference",
    ),
    Fault(
        "hidden-tile-is-no-number",
        "triton_attention",
        'origin = tl.where(new_max == float("-inf"), 0.0, new_max) if HAS_BIAS else new_max',
        "origin = new_max",
        "test_hidden_keys_may_fill_a_whole_tile",
    ),
    Fault(
        "gradient-misses-first-queries",
        "triton_attention_backward",
        "start = tl.maximum(first_position - (num_keys - num_queries), 0) // BLOCK_Q * BLOCK_Q",
        "start = tl.maximum(first_key - (num_keys - num_queries), 0)",
        "test_gradients_equal_the_reference",
    ),
    Fault(
        "memory-one-frame-late",
        "triton_grid",
        "(batch * 2 + (source + 2)) * plane",
        "(batch * 2 + (source + 2) % 1) * plane",
        "test_depthwise_causal_conv",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_fails_the_test_named_for_it(tmp_path, fault):
    pytest.importorskip("triton")
    shutil.copytree(PACKAGE, tmp_path / "instantvir_kernels")
    module = tmp_path / "instantvir_kernels" / f"{fault.module}.py"
    source = module.read_text(encoding="utf-8")
    assert source.count(fault.right) >= 1, "the kernel changed: write this fault anew"
    module.write_text(source.replace(fault.right, fault.wrong), encoding="utf-8")
    result = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o",
            f"pythonpath={tmp_path} . models", "-k", fault.failing, "tests/kernels/interpreter",
        ],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    failed = re.findall(r"^FAILED \S+::(\w+)", result.stdout, re.MULTILINE)
    assert fault.failing in failed, result.stdout[-3000:] + result.stderr[-1000:]
