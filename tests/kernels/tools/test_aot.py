"""What the compiler makes of every kernel for cards that are not here.

Regenerate the baseline with `python -m instantvir_kernels.tools.aot --write`.
"""

import dataclasses

import pytest

from instantvir_kernels import tiles
from instantvir_kernels.tools import aot
from instantvir_kernels.tools.baseline import (
    Baseline,
    Report,
    differences,
    read_baseline,
    write_baseline,
)

triton = pytest.importorskip("triton")

REPORT = Report(
    registers=200, stack_bytes=0, shared_bytes=90_000, num_warps=8, tensor_core_ops=64, float_ops=40
)


def compiled(*, everything):
    jobs = aot.selected(aot.TARGETS, everything=everything)
    return jobs, aot.compile_all(jobs)


def check(jobs, reports):
    found = [s for job in jobs for s in aot.problems(job[1], reports[aot.key_of(*job)], job[0])]
    assert not found, "\n".join(found)
    different = differences(reports, triton.__version__, read_baseline())
    assert not different, "\n".join(different)


def test_every_kernel_compiles_for_every_target_without_spills():
    """And with tensor cores where it multiplies, within the target's limits, as in the baseline."""
    jobs, reports = compiled(everything=False)
    print(*aot.table_lines(reports), sep="\n")  # noqa: T201
    check(jobs, reports)


def test_every_variant_compiles_for_every_target_without_spills():
    """Head dimensions, types, biases and 8-bit keys. Two tiles for sm_100 spilled, unseen."""
    check(*compiled(everything=True))


def test_the_default_run_covers_every_kernel_at_every_target():
    everything = {(t, s.kernel) for t, s in aot.selected(aot.TARGETS, everything=True)}
    default = {(t, s.kernel) for t, s in aot.selected(aot.TARGETS, everything=False)}
    assert default == everything
    assert {t for t, _ in default} == set(aot.TARGETS)


def test_every_kernel_of_the_package_is_a_specimen():
    """A kernel that is added without a specimen would ship uncompiled."""
    from instantvir_kernels import (
        triton_attention,
        triton_attention_backward,
        triton_grid,
        triton_steps,
    )

    kernels = {
        f"{module.__name__.rpartition('.')[2]}:{name}"
        for module in (triton_attention, triton_attention_backward, triton_grid, triton_steps)
        for name, value in vars(module).items()
        if isinstance(value, triton.JITFunction)
        and not name.startswith("_")
        and value.fn.__module__ == module.__name__
    }
    assert len(kernels) >= 7
    assert kernels == {specimen.kernel for specimen in aot.specimens(80)}


def test_the_stored_baseline_is_free_of_problems():
    """Checked whatever compiler is installed, and for 8.6, too, which the default run leaves out."""
    reports = read_baseline().reports
    targets = tiles.ARCHITECTURES
    default = {aot.key_of(*job) for job in aot.selected(targets, everything=False)}
    assert default <= set(reports)
    jobs = {aot.key_of(*job): job for job in aot.selected(targets, everything=True)}
    assert set(reports) <= set(jobs)
    for key, report in reports.items():
        target, specimen = jobs[key]
        assert aot.problems(specimen, report, target) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"stack_bytes": 240}, "spills 240 bytes"),
        ({"shared_bytes": 120_000}, "needs 120000 bytes of shared memory; there are 101376"),
        ({"registers": 255, "num_warps": 16}, "does not fit one multiprocessor"),
        ({"tensor_core_ops": 0}, "has no HMMA"),
        ({"float_ops": 16_000}, "16000 FFMA"),
    ],
)
def test_a_bad_kernel_is_named_with_its_fault(change, sentence):
    specimen = next(aot.specimens(89))
    assert aot.problems(specimen, REPORT, 89) == []
    (found,) = aot.problems(specimen, dataclasses.replace(REPORT, **change), 89)
    assert found.startswith(f"sm_89 {specimen.name}")
    assert sentence in found


def test_another_compiler_is_not_held_to_the_baseline_but_this_one_is():
    baseline = Baseline("3.9.0", {"sm_80/x": REPORT})
    changed = {"sm_80/x": dataclasses.replace(REPORT, registers=201)}
    assert differences(changed, "3.8.0", baseline) == []
    (found,) = differences(changed, "3.9.0", baseline)
    assert "registers=201" in found
    assert "registers=200" in found


def test_a_baseline_survives_the_disk(tmp_path):
    baseline = Baseline("3.9.0", {"sm_80/x": REPORT})
    write_baseline(baseline, tmp_path / "b.json")
    assert read_baseline(tmp_path / "b.json") == baseline
