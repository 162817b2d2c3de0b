"""Named training runs: functions that return a complete configuration."""

from collections.abc import Callable

from instantvir_distill.config import DistillConfig, Phase
from instantvir_distill.data import ENLARGEMENT_BY_4
from instantvir_models.students.fused import FusedConfig


def tiny() -> DistillConfig:
    """The embedded student but for its branch: supervised regression over all tasks at once."""
    return DistillConfig(
        phases=(
            Phase(steps=9000, crop=64, frames=6, samples=16, frames_learned=1),
            Phase(steps=9000, crop=96, frames=9, samples=8, frames_learned=1),
        )
    )


def refine() -> DistillConfig:
    """A trained student trained on, such as the embedded one with clips of your own."""
    return DistillConfig(
        initial_weights="tiny",
        muon_lr=0.002,
        adam_lr=7e-4,
        constant_share=0.1,
        phases=(Phase(steps=3000, crop=96, frames=9, samples=8, frames_learned=1),),
    )


def enlarge() -> DistillConfig:
    """The branch of a student that enlarges by four; the rest of it stays as it is."""
    return DistillConfig(
        initial_weights="tiny",
        student=FusedConfig(enlarger_layers=5),
        learned="enlarger",
        mix=(ENLARGEMENT_BY_4,),
        workers=1,
        phases=(Phase(steps=1500, crop=96, frames=1, frames_learned=1),),
    )


def calibrate() -> DistillConfig:
    """What a trained student expects of its own error; the rest of it stays as it is."""
    return DistillConfig(
        initial_weights="tiny",
        learned="head_error",
        adam_lr=5e-3,
        calibration_weight=1.0,
        warmup_steps=5,
        constant_share=0.0,
        ema_decay=0.95,
        workers=1,
        phases=(Phase(steps=200, crop=96, frames=6, samples=8, frames_learned=1),),
    )


RECIPES: dict[str, Callable[[], DistillConfig]] = {
    "tiny": tiny,
    "refine": refine,
    "enlarge": enlarge,
    "calibrate": calibrate,
}
"""What `instantvir distill --recipe` knows."""
