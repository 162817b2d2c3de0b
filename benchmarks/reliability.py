"""How far what `diagnosis` says of a file's error can be relied on, on clips that no fit has seen.

    python benchmarks/fit_diagnosis.py gather HELD_OUT_CLIP... --rows held.jsonl --seconds 300
    python benchmarks/reliability.py held.jsonl [--out benchmarks/results/reliability.md]

For every kind of encoder and of noise: how many files, the median of said over true, how far it is
usually off, how many truths lie within the bars (95 in 100 should), and what was said with which
confidence. "High" is right where the truth lies within its bar.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from instantvir_models.diagnosis.diagnose import confidence_of, shows_something
from instantvir_models.diagnosis.error_model import expected_error, is_white
from instantvir_models.diagnosis.traces import Traces

HALF_A_LEVEL = 0.5
"""Truths this near to a bar count as within it: nobody sees the difference."""

NOISE_STEPS = ((0, 1), (1, 5), (5, 15), (15, 80))


@dataclass(frozen=True)
class Said:
    """What was said of one file, and what is true."""

    encoder: str
    kind: str
    noise: float
    value: float
    low: float
    high: float
    confidence: str
    true: float
    is_white: bool
    num_frames: int

    @classmethod
    def of(cls, row: dict[str, Any]) -> Said | None:
        """None where nothing would be said."""
        traces = Traces(**{name: row[name] for name in Traces.__dataclass_fields__ if name in row})
        if not shows_something(traces):
            return None
        found = expected_error(traces)
        return cls(
            encoder=row["encoder"],
            kind=row["kind"],
            noise=row["noise_true"],
            value=found.value,
            low=found.low,
            high=found.high,
            confidence=confidence_of(found),
            true=row["error"],
            is_white=is_white(traces),
            num_frames=traces.num_frames,
        )

    @property
    def is_within(self) -> bool:
        """Whether the truth lies within the bar."""
        return self.low - HALF_A_LEVEL <= self.true <= self.high + HALF_A_LEVEL


def table(said: Sequence[Said]) -> str:
    """All groups as a Markdown table."""
    groups: dict[str, Callable[[Said], bool]] = {"all": lambda one: True}
    for family in ("lossless", "h264", "hevc", "vp9", "mpeg2", "mpeg4", "mjpeg"):
        groups[family] = lambda one, family=family: one.encoder.startswith(family)
    for low, high in ((16, 23), (24, 31), (32, 40)):
        name = f"h264 crf {low} to {high}"
        groups[name] = lambda one, low=low, high=high: (
            one.encoder.startswith("h264") and low <= int(one.encoder.split()[-1]) <= high
        )
    for kind in ("none", "white", "grain", "sensor", "tape"):
        groups[f"noise: {kind}"] = lambda one, kind=kind: one.kind == kind
    for low, high in NOISE_STEPS:
        groups[f"noise {low} to {high}"] = lambda one, low=low, high=high: low <= one.noise < high
    groups["one frame"] = lambda one: one.num_frames == 1
    lines = [
        "| files | n | true, median | said / true, median | off by (rms of log, %) | within bars | "
        "high: n, right | medium: n, right | low: n, right |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, belongs in groups.items():
        mine = [one for one in said if belongs(one)]
        if mine:
            lines.append(_line(name, mine))
    return "\n".join(lines)


def _line(name: str, mine: Sequence[Said]) -> str:
    true = np.array([one.true for one in mine])
    ratio = np.array([(one.value + HALF_A_LEVEL) / (one.true + HALF_A_LEVEL) for one in mine])
    cells = [
        name,
        str(len(mine)),
        f"{np.median(true):.1f}",
        f"{np.median(ratio):.2f}",
        f"{100 * np.sqrt(np.mean(np.log(ratio) ** 2)):.0f}",
        _share(mine),
        *(
            _counted([one for one in mine if one.confidence == confidence])
            for confidence in ("high", "medium", "low")
        ),
    ]
    return f"| {' | '.join(cells)} |"


def _counted(mine: Sequence[Said]) -> str:
    return f"{len(mine)}, {_share(mine)}" if mine else "0"


def _share(mine: Sequence[Said]) -> str:
    return f"{100 * np.mean([one.is_within for one in mine]):.0f} %"


def kinds(said: Sequence[Said]) -> str:
    """White or not, where no codec has touched the noise."""
    seen = [one for one in said if one.encoder == "lossless" and one.noise > 2]
    lines = ["| noise | n | called white |", "|---|---|---|"]
    for kind in ("white", "grain", "sensor", "tape"):
        mine = [one for one in seen if one.kind == kind]
        called = sum(one.is_white for one in mine)
        lines.append(f"| {kind} | {len(mine)} | {called} |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables and keep them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()]
    said = [one for one in map(Said.of, rows) if one is not None]
    abstained = len(rows) - len(said)
    text = f"{table(said)}\n\nNothing was said of {abstained} files.\n\n{kinds(said)}\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
