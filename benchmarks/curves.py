"""Pictures of how the embedded student learnt and of how well it knows its own error.

    python benchmarks/curves.py training/ scores.json -o docs/student

Args: the folder with log.jsonl and, if there is one, validation.jsonl, and a line that
`instantvir_distill.evaluate --each` printed. Needs matplotlib.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

mpl.use("Agg")

NO_LOSSES = ("step", "time", "rate", "cpu_seconds", "spikes", "norm")
"""What else a line of the log has."""


def lines(path: Path) -> list[dict[str, Any]]:
    """Every line of a .jsonl file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def learning(log: list[dict[str, Any]], validation: list[dict[str, Any]], path: Path) -> None:
    """The loss of each task over steps, and what was gained on held-out crops over time, if that was
    looked at."""
    figure, axes = plt.subplots(1, 2 if validation else 1, figsize=(11, 4), squeeze=False)
    left = axes[0, 0]
    steps = np.array([row["step"] for row in log])
    tasks = [name for row in log[:9] for name in row if name not in NO_LOSSES]
    for task in dict.fromkeys(tasks):
        loss = np.array([row.get(task, np.nan) for row in log])
        smooth = np.convolve(loss, np.ones(9) / 9, "valid")
        left.plot(steps[4:-4], smooth, label=task)
    between = steps[1] - steps[0]
    left.set(xlabel="step", ylabel=f"relative error, mean of 9 x {between} steps", yscale="log")
    left.legend()
    if validation:
        gained_over_time(axes[0, 1], validation)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def gained_over_time(right: Any, validation: list[dict[str, Any]]) -> None:
    """What was gained since the first look, by column."""
    first = validation[0]["psnr"]
    minutes = [(row["time"] - validation[0]["time"]) / 60 for row in validation]
    for column in first:
        gained = [row["psnr"][column] - first[column] for row in validation]
        right.plot(minutes, gained, label=column)
    right.set(xlabel="minutes", ylabel="dB gained since the first look, held-out crops")
    right.legend(fontsize=6, ncol=2)


def calibration(each: dict[str, dict[str, dict[str, float]]], path: Path) -> None:
    """Told over true error of every crop and column."""
    figure, axes = plt.subplots(figsize=(9, 4))
    for place, crops in enumerate(each.values()):
        ratios = [score["told_over_true_error"] for score in crops.values()]
        axes.plot([place] * len(ratios), ratios, ".", color="tab:blue", alpha=0.6)
        axes.plot(place, np.mean(ratios), "_", color="black", markersize=16)
    axes.axhspan(0.8, 1.2, color="tab:green", alpha=0.15)
    axes.set(yscale="log", ylabel="told / true error, each held-out crop, and the mean")
    axes.set_yticks([0.5, 0.8, 1, 1.2, 2], ["0.5", "0.8", "1", "1.2", "2"])
    axes.set_xticks(range(len(each)), list(each), rotation=40, ha="right", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("training", type=Path)
    parser.add_argument("scores", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    asked = parser.parse_args()
    asked.output.mkdir(parents=True, exist_ok=True)
    folder = asked.training
    learning(
        lines(folder / "log.jsonl"),
        lines(validation) if (validation := folder / "validation.jsonl").exists() else [],
        asked.output / "learning.png",
    )
    calibration(lines(asked.scores)[-1]["each"], asked.output / "calibration.png")


if __name__ == "__main__":
    main()
