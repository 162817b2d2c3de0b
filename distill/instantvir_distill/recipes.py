"""Named training runs: functions that return a complete configuration."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from instantvir_distill.config import (
    DENOISE_POWER,
    CriticConfig,
    DistillConfig,
    Phase,
    RunConfig,
    StockConfig,
    TeacherConfig,
    WanSize,
)
from instantvir_distill.data import ENLARGEMENT_BELOW_4, ENLARGEMENT_BY_4
from instantvir_distill.levels import NoiseLaw
from instantvir_distill.methods.amortise import Amortise
from instantvir_distill.methods.by_task import ByTask
from instantvir_distill.methods.posterior_teacher import PosteriorTeacher
from instantvir_distill.methods.regression import Regression
from instantvir_distill.methods.self_supervised import SelfSupervised
from instantvir_distill.methods.variational import Variational
from instantvir_distill.teachers import SHIPPED
from instantvir_models.students.fused import FusedConfig
from instantvir_models.tasks import DEBLUR, DENOISE, INPAINT


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


def tiny_card() -> DistillConfig:
    """The embedded student but for its branch, on a card and all processors beside it."""
    return replace(
        tiny(),
        mix=(DENOISE.name,) * 6 + (INPAINT.name, ENLARGEMENT_BELOW_4, DEBLUR.name) * 2,
        device="cuda",
        workers=1,
        stock=StockConfig(),
        phases=(Phase(steps=9000, crop=96, frames=9, samples=128, frames_learned=3),),
    )


def enlarge_card() -> DistillConfig:
    """The branch of a student that enlarges by four, on a card."""
    return replace(
        enlarge(),
        device="cuda",
        stock=StockConfig(),
        phases=(Phase(steps=9000, crop=96, frames=3, samples=128, frames_learned=3),),
    )


def calibrate() -> DistillConfig:
    """What a trained student expects of its own error; the rest of it stays as it is."""
    return DistillConfig(
        initial_weights="tiny",
        learned="head_error",
        adam_lr=5e-3,
        method=Regression(powers=DENOISE_POWER, calibration_weight=1.0),
        warmup_steps=5,
        constant_share=0.0,
        ema_decay=0.95,
        workers=1,
        phases=(Phase(steps=200, crop=96, frames=6, samples=8, frames_learned=1),),
    )


def tiny_teacher() -> TeacherConfig:
    """A video prior of two million weights, from clean clips: what the recipes below are taught by."""
    return TeacherConfig(
        muon_lr=0.003,
        adam_lr=1e-3,
        phases=(
            Phase(steps=3000, crop=64, frames=3, samples=8, frames_learned=3),
            Phase(steps=1000, crop=64, frames=6, samples=8, frames_learned=6),
        ),
    )


def tiny_self_supervised() -> DistillConfig:
    """The embedded student from measurements alone: no clean frame, no teacher."""
    return DistillConfig(
        method=SelfSupervised(powers=DENOISE_POWER),
        lossy_fraction=0.0,  # a codec's error is not the noise that is told
        inexactness=0.0,
        phases=(Phase(steps=8000, crop=64, frames=5, samples=16, frames_learned=1),),
    )


def tiny_amortised() -> DistillConfig:
    """The embedded student from measurements and what a teacher makes of them."""
    return DistillConfig(
        method=Amortise(powers=DENOISE_POWER),
        teacher=SHIPPED,
        lossy_fraction=0.0,
        inexactness=0.0,
        phases=(Phase(steps=8000, crop=64, frames=5, samples=16, frames_learned=1),),
    )


def tiny_by_task() -> DistillConfig:
    """The embedded student without a clean frame: a teacher for noise, measurements alone elsewhere."""
    return replace(
        tiny_amortised(),
        method=ByTask(
            methods={DENOISE.name: Amortise(powers=DENOISE_POWER)},
            others=SelfSupervised(powers=DENOISE_POWER),
        ),
    )


def tiny_posterior() -> DistillConfig:
    """The embedded student against a teacher that is given the measurement."""
    return DistillConfig(
        method=PosteriorTeacher(levels=NoiseLaw(low=0.03, high=0.5)),
        teacher=SHIPPED,
        lossy_fraction=0.0,
        inexactness=0.0,
        phases=(Phase(steps=8000, crop=64, frames=5, samples=16, frames_learned=3),),
    )


def sharpen() -> DistillConfig:
    """The paper's objective from a trained student, anchored to it: a little sharper, a little noisier."""
    return DistillConfig(
        initial_weights="tiny",
        method=Variational(
            critic="blind",
            levels=NoiseLaw(low=0.06, high=0.5),
            anchor_weight=0.25,
            is_normalised=True,
        ),
        teacher=SHIPPED,
        critic=CriticConfig(),
        muon_lr=0.0016,
        adam_lr=6e-4,
        lossy_fraction=0.0,
        inexactness=0.0,
        phases=(Phase(steps=300, crop=64, frames=3, samples=8, frames_learned=3),),
    )


def wan_lean() -> DistillConfig:
    """The paper's student: Wan2.1-1.3B with the light autoencoder, against Wan2.1-1.3B with its own."""
    return _full_size("lean", start="wan-1.3b-lean")


def wan() -> DistillConfig:
    """The same with the autoencoder that Wan2.1 came with."""
    return _full_size("wan", start="wan-1.3b")


def _full_size(autoencoder: Literal["lean", "wan"], *, start: str) -> DistillConfig:
    return DistillConfig(
        student=WanSize(autoencoder=autoencoder),
        initial_weights=start,
        method=Variational(
            critic="blind",
            levels=NoiseLaw(law="shifted_flow", low=0.02, high=0.98),
            weight="dmd",
            fidelity="likelihood",
        ),
        teacher="wan2.1-t2v-1.3b",
        teacher_guidance=4.5,
        critic=CriticConfig(updates_per_step=5, muon_lr=0.0, adam_lr=1e-5),
        muon_lr=0.0,
        adam_lr=1e-5,
        device="cuda",
        layout="sharded",
        recompute=True,
        workers=8,
        lossy_fraction=0.0,
        inexactness=0.0,
        phases=(Phase(steps=3000, crop=320, frames=45, samples=8, frames_learned=45),),
    )


def adapt() -> DistillConfig:
    """A trained student, adapted to measured videos of which no clean one exists."""
    return DistillConfig(
        initial_weights="tiny",
        method=SelfSupervised(powers=DENOISE_POWER),
        muon_lr=0.001,
        adam_lr=4e-4,
        constant_share=0.1,
        phases=(Phase(steps=300, crop=64, frames=6, samples=8, frames_learned=1),),
    )


RECIPES: dict[str, Callable[[], RunConfig]] = {
    "tiny": tiny,
    "tiny-card": tiny_card,
    "enlarge-card": enlarge_card,
    "refine": refine,
    "enlarge": enlarge,
    "calibrate": calibrate,
    "tiny-teacher": tiny_teacher,
    "tiny-self-supervised": tiny_self_supervised,
    "tiny-amortised": tiny_amortised,
    "tiny-by-task": tiny_by_task,
    "tiny-posterior": tiny_posterior,
    "sharpen": sharpen,
    "adapt": adapt,
    "wan-1.3b-lean": wan_lean,
    "wan-1.3b": wan,
}
"""What `instantvir distill --recipe` knows."""
