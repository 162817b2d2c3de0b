"""Named training runs: functions that return a complete configuration."""

from collections.abc import Callable

from instantvir_distill.config import DistillConfig, Phase


def tiny() -> DistillConfig:
    """The embedded student as it is shipped: supervised regression over all tasks at once."""
    return DistillConfig(
        phases=(
            Phase(steps=8000, crop=64, frames=6, clips_per_worker=4),
            Phase(steps=2000, crop=96, frames=6, clips_per_worker=4),
        )
    )


RECIPES: dict[str, Callable[[], DistillConfig]] = {"tiny": tiny}
