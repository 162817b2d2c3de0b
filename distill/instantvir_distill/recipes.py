"""Named training runs: functions that return a complete configuration."""

from collections.abc import Callable

from instantvir_distill.config import DistillConfig, Phase
from instantvir_distill.data import ENLARGEMENT_BY_4
from instantvir_models.students.fused import FusedConfig


def tiny() -> DistillConfig:
    """The embedded student as it is shipped: supervised regression over all tasks at once."""
    return DistillConfig(
        phases=(
            Phase(steps=7000, crop=64, frames=5),
            Phase(steps=1500, crop=96, frames=6, samples=8),
        )
    )


def refine() -> DistillConfig:
    """A trained student trained on, such as the embedded one with clips of your own."""
    return DistillConfig(
        initial_weights="tiny",
        muon_lr=0.002,
        adam_lr=7e-4,
        constant_share=0.1,
        phases=(Phase(steps=1500, crop=96, frames=6, samples=8),),
    )


def enlarge() -> DistillConfig:
    """The branch of a student that enlarges by four; the rest of it stays as it is."""
    return DistillConfig(
        student=FusedConfig(enlarger_layers=5),
        learned="enlarger",
        mix=(ENLARGEMENT_BY_4,),
        workers=1,
        phases=(Phase(steps=2500, crop=96, frames=1, frames_learned=1),),
    )


RECIPES: dict[str, Callable[[], DistillConfig]] = {
    "tiny": tiny,
    "refine": refine,
    "enlarge": enlarge,
}
"""What `instantvir distill --recipe` knows."""
