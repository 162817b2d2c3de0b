"""What the compiler made of every kernel, kept: `aot` writes and compares it, `roofline` reads it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from instantvir_kernels.tools.occupancy import Architecture

BASELINE_PATH = Path(__file__).with_name("aot_baseline.json")


@dataclass(frozen=True)
class Report:
    """What the compiler made of one specimen for one architecture."""

    registers: int
    """Per thread."""
    stack_bytes: int
    """Per thread; more than 0 means that registers spilled."""
    shared_bytes: int
    """Per program."""
    num_warps: int
    tensor_core_ops: int
    """Instructions in the program text that multiply on the tensor cores."""
    float_ops: int
    """FFMA instructions in the program text."""

    def programs_per_multiprocessor(self, architecture: Architecture) -> int:
        """Programs that run at once on one multiprocessor; 0 if not even one fits."""
        return architecture.resident_programs(
            registers=self.registers, shared_bytes=self.shared_bytes, num_warps=self.num_warps
        )


@dataclass(frozen=True)
class Baseline:
    """The results that are kept, and the compiler they belong to."""

    triton: str
    reports: dict[str, Report]


def read_baseline(path: Path = BASELINE_PATH) -> Baseline:
    """The stored results."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    return Baseline(
        stored["triton"], {key: Report(**report) for key, report in stored["kernels"].items()}
    )


def write_baseline(baseline: Baseline, path: Path = BASELINE_PATH) -> None:
    """Store results, one line each."""
    lines = [
        f"  {json.dumps(key)}: {json.dumps(asdict(report))}"
        for key, report in sorted(baseline.reports.items())
    ]
    text = (
        f'{{\n "triton": "{baseline.triton}",\n "kernels": {{\n' + ",\n".join(lines) + "\n }\n}\n"
    )
    path.write_text(text, encoding="utf-8")


def differences(reports: dict[str, Report], triton_version: str, baseline: Baseline) -> list[str]:
    """Sentences for every result that is not the baseline's; none if the compiler is another one.

    Variants that the baseline does not hold are bound by `problems` alone.
    """
    if triton_version != baseline.triton:
        return []
    return [
        f"{key} is {report}, the baseline says {baseline.reports[key]}"
        for key, report in reports.items()
        if key in baseline.reports and report != baseline.reports[key]
    ]
