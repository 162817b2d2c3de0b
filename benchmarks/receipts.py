"""What a number is worth nothing without: the machine, the versions, the load, the command."""

import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, object]:
    """Where and with what a number was measured."""
    import av
    import torch

    from instantvir_cli import __version__

    git = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=RESULTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "instantvir": __version__,
        "git": git.stdout.strip(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "av": av.__version__,
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "load_average_at_start": [round(load, 1) for load in os.getloadavg()],
    }


def write_result(name: str, result: dict[str, object]) -> None:
    """Print the result and keep it as benchmarks/results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(result, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.processor(),
    )
