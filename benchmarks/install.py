"""What installing costs: MB downloaded, MB on disk, seconds to the first restored file, in a new environment.

python benchmarks/install.py WHEEL [--torch torch==2.13.0] [--python python3.12] --scratch DIR [-o results/install.json]

Downloading and installing are two steps, so that what a network adds stands apart; without `--torch`, pip
takes the torch that the registry gives.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

CLIP = Path(__file__).parents[1] / "examples" / "flower-blurred.mp4"
PART = ("--task", "denoise", "--noise", "3", "--duration", "0.2")
"""Six frames of 832x480: what is measured is the way to a file, not the student."""
MEGABYTE = 1e6


@dataclass(frozen=True)
class Cost:
    """What one installation took."""

    requirements: tuple[str, ...]
    python: str
    downloaded_mb: float
    """All files that pip fetched, the package's own wheel included."""
    on_disk_mb: float
    """Of the environment, with pip and what pip compiles."""
    largest_mb: dict[str, float]
    """The five largest downloads."""
    download: "Spent"
    install: "Spent"
    restore: "Spent"
    """From `instantvir restore CLIP` to its end."""

    @property
    def to_first_file(self) -> "Spent":
        """From nothing to a restored file."""
        steps = (self.download, self.install, self.restore)
        return Spent(*(round(sum(each), 1) for each in zip(*steps, strict=True)))


class Spent(NamedTuple):
    """Of one step; on a machine that does other things, too, the second number is what it costs."""

    seconds: float
    cpu_seconds: float


def measured(wheel: Path, torch: Sequence[str], python: str, scratch: Path) -> Cost:
    """The cost of `wheel` in an environment made for it in `scratch`."""
    environment, downloads = scratch / "venv", scratch / "downloads"
    subprocess.run([python, "-m", "venv", environment], check=True)
    pip = [str(environment / "bin" / "pip"), "--quiet", "--no-cache-dir"]
    wanted = [*torch, str(wheel)]
    downloading = _timed([*pip, "download", "--dest", str(downloads), *wanted])
    installing = _timed([*pip, "install", "--no-index", "--find-links", str(downloads), *wanted])
    command = [str(environment / "bin" / "instantvir"), "restore", str(CLIP)]
    restoring = _timed([*command, *PART, "-o", str(scratch / "restored.mp4")])
    sizes = {path.name.split("-")[0]: _megabytes(path) for path in downloads.iterdir()}
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:5]
    return Cost(
        requirements=(*torch, wheel.name),
        python=_version(environment / "bin" / "python"),
        downloaded_mb=round(sum(sizes.values()), 1),
        on_disk_mb=round(sum(_megabytes(path) for path in environment.rglob("*")), 1),
        largest_mb=dict(largest),
        download=downloading,
        install=installing,
        restore=restoring,
    )


def _timed(command: Sequence[str]) -> Spent:
    started, cpu = time.perf_counter(), _cpu_seconds_of_children()
    subprocess.run(command, check=True)
    spent = time.perf_counter() - started, _cpu_seconds_of_children() - cpu
    return Spent(*(round(seconds, 1) for seconds in spent))


def _cpu_seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _megabytes(path: Path) -> float:
    return round(path.lstat().st_size / MEGABYTE, 3) if path.is_file() else 0.0


def _version(python: Path) -> str:
    found = subprocess.run([python, "-V"], check=True, capture_output=True, text=True)
    return found.stdout.split()[-1]


def main() -> None:
    """Measure, print and keep."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("wheel", type=Path)
    arguments.add_argument("--torch", nargs="*", default=[])
    arguments.add_argument("--python", default=sys.executable)
    arguments.add_argument("--scratch", type=Path, required=True)
    arguments.add_argument("-o", "--output", type=Path)
    given = arguments.parse_args()
    given.scratch.mkdir(parents=True)
    cost = measured(given.wheel.resolve(), given.torch, given.python, given.scratch)
    receipt = {
        **asdict(cost),
        "to_first_file": cost.to_first_file,
        "machine": platform.platform(),
    }
    text = json.dumps(receipt, indent=2)
    print(text)
    if given.output:
        given.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
