"""Throughput of a Ray cluster of two workers beside `--jobs 2`: the same videos, in turn.

    python benchmarks/cluster.py --scratch DIR [--videos 8] [--frames 60] [--size 160x120] [--rounds 2]

The cluster is this process's own and has a niceness of 0, as the processes of `--jobs` have. CPU seconds
are those of every process of a run, Ray's included, so they can be compared where others use the machine.
"""

import argparse
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from receipts import machine

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.media_clips import make_clip

WORKERS = 2
TASK = ("--task", "denoise", "--noise", "5", "--codec", "ffv1", "--json", "--quiet")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one command took."""

    how: str
    load: float
    """Of the machine when it began."""
    all_seconds: float
    first_row_seconds: float
    cpu_seconds: float
    rows: int

    @property
    def seconds_a_video(self) -> float:
        """Between the first row and the last, for the videos that came in between."""
        return (self.all_seconds - self.first_row_seconds) / max(1, self.rows - 1)

    def __str__(self) -> str:
        cells = (
            self.how, f"{self.load:.1f}", f"{self.all_seconds:.1f}", f"{self.first_row_seconds:.1f}",
            f"{self.seconds_a_video:.2f}", f"{self.cpu_seconds:.1f}",
        )  # fmt: skip
        return f"| {' | '.join(cells)} |"


class CpuOfChildren:
    """CPU seconds of all processes below this one, also of those that nobody waits for."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, str], float] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "CpuOfChildren":
        self._before = self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self.seconds = self._look() - self._before

    def _watch(self) -> None:
        while not self._is_over.wait(0.2):
            self._look()

    def _look(self) -> float:
        self._seen |= dict(_descendants(os.getpid()))
        return sum(self._seen.values())


def _descendants(root: int) -> Iterator[tuple[tuple[int, str], float]]:
    """((pid, when it began), CPU seconds) of every process below `root`."""
    stats = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has just ended
            continue
        fields = text.rpartition(")")[2].split()
        stats[int(path.parent.name)] = fields
    below = {root}
    for _ in stats:
        more = {pid for pid, fields in stats.items() if int(fields[1]) in below} - below
        if not more:
            break
        below |= more
    for pid in below - {root}:
        fields = stats[pid]
        yield (pid, fields[19]), (int(fields[11]) + int(fields[12])) / TICKS


def run(how: str, options: Sequence[str], folder: Path, scratch: Path) -> Run:
    """One command from its start to its end."""
    output = scratch / "out"
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-m", "instantvir_cli", "restore", str(folder), "-o", f"{output}/"]
    load, started, times = os.getloadavg()[0], time.perf_counter(), []
    with (
        CpuOfChildren() as cpu,
        subprocess.Popen([*command, *TASK, *options], stdout=subprocess.PIPE, text=True) as running,
    ):
        assert running.stdout is not None
        times = [time.perf_counter() - started for line in running.stdout if '"outcome"' in line]
    if running.returncode:
        raise SystemExit(f"{how}: status {running.returncode}")
    return Run(
        how=how, load=load, all_seconds=time.perf_counter() - started, first_row_seconds=times[0],
        cpu_seconds=cpu.seconds, rows=len(times),
    )  # fmt: skip


def main() -> None:
    """Print a table, one row a run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--size", default="160x120", help="WIDTHxHEIGHT")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--scratch", type=Path, required=True)
    given = parser.parse_args()
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112, Ray spells it so
    import ray

    width, height = map(int, given.size.split("x"))
    folder = given.scratch / "tapes"
    folder.mkdir(parents=True)
    for index in range(given.videos):
        make_clip(folder / f"{index}.mkv", width=width, height=height, num_frames=given.frames)
    print(machine(), flush=True)
    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    address = ray.get_runtime_context().gcs_address
    ways = {
        f"`--cluster`, {WORKERS} workers": ("--cluster", address, "--threads", "1"),
        f"`--jobs {WORKERS}`": ("--jobs", str(WORKERS)),
    }
    print("| | load | all, s | first row after, s | then a video, s | CPU seconds |")
    print("|---|---|---|---|---|---|", flush=True)
    for round_ in range(given.rounds):
        in_turn = list(ways.items())
        for how, options in reversed(in_turn) if round_ % 2 else in_turn:
            print(run(how, options, folder, given.scratch), flush=True)


if __name__ == "__main__":
    main()
