"""Fits what `diagnosis` expects of a file's rms error to clips whose truth is known.

    python benchmarks/fit_diagnosis.py gather CLIP... --rows rows.jsonl --seconds 600 [--seed 0]
    python benchmarks/fit_diagnosis.py fit --rows rows.jsonl

`gather` makes training rows: a part of a clip, often softened, made noisy in one of several ways, put
through a real encoder, and what was then seen of it. `fit` writes `error_model.json`; its bars come
from clips that each fit had not seen.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from damaged import Draw, rows_of
from numpy.typing import NDArray

from instantvir_models import diagnosis
from instantvir_models.diagnosis.error_model import (
    CODEC_FEATURES,
    CODED,
    SMALLEST_LEVELS,
    family_of,
    features_of,
    names_for,
    quadratic,
)
from instantvir_models.diagnosis.traces import Traces

Row = dict[str, Any]
Vector = NDArray[np.float64]

FOLDS = 6
RIDGES = (10.0, 30.0, 100.0)
COVERED = 0.97
"""Part of unseen files that bars hold in the fit, so that they hold 95 of 100 of what is stranger."""

FEWEST_ROWS = 20
TARGET = Path(diagnosis.__file__).with_name("error_model.json")


def gather(clips: Sequence[Path], rows: Path, *, seconds: float, seed: int) -> None:
    """Append rows until the time is over."""
    end, draw = time.monotonic() + seconds, Draw(clips, np.random.default_rng(seed))
    with rows.open("a") as file:
        while time.monotonic() < end:
            for row in rows_of(draw):
                file.write(json.dumps(row) + "\n")
            file.flush()


def traces_in(row: Row) -> Traces:
    """The traces that a row holds."""
    return Traces(**{name: row[name] for name in Traces.__dataclass_fields__ if name in row})


def fit(rows: Sequence[Row]) -> dict[str, Any]:
    """All regressions by their names, as `error_model` reads them."""
    by_family: dict[str, list[Row]] = {}
    for row in rows:
        by_family.setdefault(family_of(traces_in(row)), []).append(row)
    # what tells no step is learned from all that lost something, as if they told none
    lossy = [row for row in rows if not row["is_lossless"]]
    by_family["other"] = [*lossy, *3 * by_family.get("other", [])]
    fitted: dict[str, Any] = {}
    for family, mine in sorted(by_family.items()):
        moving = [row for row in mine if row["num_frames"] > 1]
        for name, wanted, is_still in (("", moving, False), (" still", mine, True)):
            names = names_for(family, is_still=is_still)
            fitted[f"error {family}{name}"] = _regression(
                f"error {family}{name}", wanted, names, lambda row: row["error"]
            )
        if family != "lossless":
            names = (*CODEC_FEATURES, *CODED.get(family, ("step", "bits")))
            clean = [row for row in mine if row["noise_true"] < 1]
            fitted[f"codec {family}"] = _regression(
                f"codec {family}", clean, names, lambda row: row["codec_error"]
            )
    return fitted


def _regression(
    title: str, rows: Sequence[Row], names: tuple[str, ...], target: Callable[[Row], float]
) -> dict[str, Any]:
    if len(rows) < FEWEST_ROWS:
        raise SystemExit(f"{title}: {len(rows)} rows are too few, gather more")
    features = [features_of(traces_in(row)) for row in rows]
    raw = np.array([[one[name] for name in names] for one in features])
    y = np.log(np.array([target(row) for row in rows]) + SMALLEST_LEVELS)
    mean, scale = raw.mean(0), raw.std(0) + 1e-6
    z = (raw - mean) / scale
    clips = sorted({row["clip"] for row in rows})
    fold = np.array([clips.index(row["clip"]) % FOLDS for row in rows])
    unseen = {ridge: _left_out(z, y, fold, ridge) for ridge in RIDGES}
    ridge = min(RIDGES, key=lambda r: float(np.mean(unseen[r] ** 2)))
    error = unseen[ridge]
    spread = _spread_weights(z, error)
    unit = np.abs(error) / np.exp(_with_one(z) @ spread)
    bar = float(np.quantile(unit, COVERED))
    print(
        f"{title:22} {len(rows):5} rows, ridge {ridge:5}: unseen rms "
        f"{np.sqrt(np.mean(error**2)):.3f} nepers, spread of log error alone {y.std():.3f}"
    )
    return {
        "names": list(names),
        "mean": _listed(mean),
        "scale": _listed(scale),
        "lowest": _listed(z.min(0)),
        "highest": _listed(z.max(0)),
        "weights": _listed(_ridge(quadratic(z), y, ridge)),
        "spread_weights": _listed(spread),
        "bar": round(bar, 4),
    }


def _left_out(z: Vector, y: Vector, fold: Vector, ridge: float) -> Vector:
    error = np.zeros_like(y)
    for k in range(FOLDS):
        seen = fold != k
        if seen.all() or not seen.any():
            continue
        weights = _ridge(quadratic(z[seen]), y[seen], ridge)
        low, high = z[seen].min(0), z[seen].max(0)
        error[~seen] = y[~seen] - quadratic(np.clip(z[~seen], low, high)) @ weights
    return error


def _ridge(a: Vector, y: Vector, ridge: float) -> Vector:
    """Least squares with a penalty on everything but the constant; linear terms pay a tenth."""
    linear = int((np.sqrt(8 * a.shape[1] + 1) - 3) / 2)
    penalty = np.full(a.shape[1], ridge)
    penalty[0], penalty[1 : linear + 1] = 0, 0.1 * ridge
    return np.linalg.solve(a.T @ a + np.diag(penalty), a.T @ y)


def _spread_weights(z: Vector, error: Vector) -> Vector:
    """Of the logarithm of the error's standard deviation, linear in the features, strongly damped."""
    log_size = np.log(np.abs(error) + 0.02) + 0.635  # the mean of log|n| of a Gaussian n is -0.635
    penalty = np.diag([0.0, *np.full(z.shape[1], 60.0)])
    a = _with_one(z)
    return np.linalg.solve(a.T @ a + penalty, a.T @ log_size)


def _with_one(z: Vector) -> Vector:
    return np.concatenate([np.ones((len(z), 1)), z], 1)


def _listed(values: Vector) -> list[float]:
    return [round(float(value), 5) for value in values]


def main() -> None:
    """One of the two steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("gather", "fit"))
    parser.add_argument("clips", nargs="*", type=Path)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    if options.step == "gather":
        gather(options.clips, options.rows, seconds=options.seconds, seed=options.seed)
        return
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()]
    TARGET.write_text(json.dumps({"rows": len(rows), "regressions": fit(rows)}) + "\n")


if __name__ == "__main__":
    main()
