"""A speed beside one that was measured before."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instantvir_models.errors import UsageError
from instantvir_models.speed.measure import Speed

COMPARED = (
    "clip", "task", "size", "dtype", "model", "solver", "device", "tile", "latency", "window", "threads",
)  # fmt: skip
"""Settings that must agree for two speeds to be compared; those that old files lack count as unset."""

HOW_TO_MAKE = "`instantvir benchmark --json > FILE` makes a baseline"


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """One configuration, now and before."""

    settings: dict[str, Any]
    fps_before: float
    fps: float
    is_other_machine: bool
    """Whether the one before was measured elsewhere, or with other libraries."""

    @property
    def ratio(self) -> float:
        """Above 1 where it has become faster."""
        return self.fps / self.fps_before


def read_baseline(path: Path) -> list[dict[str, Any]]:
    """What `benchmark --json` wrote into a file, one configuration or several.

    Raises:
        UsageError: if it is no such file.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the baseline `{path}`: {error}", hint=HOW_TO_MAKE) from error
    speeds = stored if isinstance(stored, list) else [stored]
    known = [s for s in speeds if isinstance(s, dict) and "request" in s and "fps" in s]
    if not known:
        raise UsageError(f"`{path}` holds no speed", hint=HOW_TO_MAKE)
    return known


def compared(speeds: Sequence[Speed], baseline: Sequence[dict[str, Any]]) -> list[Ratio]:
    """Every speed whose configuration is in the baseline, beside it.

    Raises:
        UsageError: if there is none.
    """
    before = {_key(each["request"]): each for each in baseline}
    ratios = [
        Ratio(
            settings={name: speed.request[name] for name in COMPARED},
            fps_before=old["fps"]["median"],
            fps=speed.fps.median,
            is_other_machine=old.get("hardware") != speed.hardware,
        )
        for speed in speeds
        if (old := before.get(_key(speed.request))) is not None
    ]
    if not ratios:
        raise UsageError(
            "the baseline holds no configuration that was measured now",
            hint=f"they must agree in {', '.join(COMPARED)}",
        )
    return ratios


def _key(request: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(request.get(name) for name in COMPARED)
