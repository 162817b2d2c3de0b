"""What `--sandbox` costs: CPU seconds of reading a clip with and without, in turn.

    python -m benchmarks.sandbox_cost CLIP [--seconds 4] [--runs 2]

Each run is a process of its own; a short one and a long one tell what starting costs and what a frame.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from statistics import median

from benchmarks.receipts import RESULTS, machine

SHORT_SECONDS = 0.3
_READ = (
    "import sys; from instantvir_models.media import InputRules, open_video\n"
    "rules = InputRules(sandbox=sys.argv[2] == 'walled')\n"
    "with open_video(sys.argv[1], duration_seconds=float(sys.argv[3]), threads=1, rules=rules) as r:\n"
    "    print(sum(1 for _ in r))"
)


def read(clip: str, how: str, seconds: float) -> tuple[int, float]:
    """Frames of one run, and its CPU seconds with those of its children."""
    before = os.times()
    command = [sys.executable, "-c", _READ, clip, how, str(seconds)]
    frames = int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    after = os.times()
    spent = after.children_user + after.children_system
    return frames, spent - before.children_user - before.children_system


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--runs", type=int, default=2)
    asked = parser.parse_args()
    spent: dict[tuple[str, float], list[float]] = {}
    frames: dict[float, int] = {}
    for _ in range(asked.runs):
        for how in ("plain", "walled"):
            for seconds in (SHORT_SECONDS, asked.seconds):
                frames[seconds], cpu = read(asked.clip, how, seconds)
                spent.setdefault((how, seconds), []).append(cpu)
    lines = [
        "# What `--sandbox` costs", "",
        f"CPU seconds of reading a clip and doing nothing with it, {asked.runs} runs each in turn, "
        "medians, one thread (`python -m benchmarks.sandbox_cost CLIP`); a restoration costs the difference "
        "more.", "",
        "| | starting, s | a frame, ms | frames a CPU second |", "|---|---|---|---|",
    ]  # fmt: skip
    for how, name in (("plain", "without"), ("walled", "`--sandbox`")):
        start, whole = (median(spent[how, s]) for s in (SHORT_SECONDS, asked.seconds))
        each = (whole - start) / (frames[asked.seconds] - frames[SHORT_SECONDS])
        lines.append(f"| {name} | {start:.2f} | {1000 * each:.1f} | {1 / each:.0f} |")
    lines += ["", f"{frames[asked.seconds]} frames.", "", "```", json.dumps(machine()), "```", ""]
    (RESULTS / "sandbox.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
