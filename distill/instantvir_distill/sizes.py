"""How large the networks of a run are, from the files they come from; nothing of them is loaded."""

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from instantvir_distill.config import DistillConfig, RunConfig, WanSize
from instantvir_distill.plan import WanTeacherSize
from instantvir_distill.teachers import place_of
from instantvir_models.checkpoints.config import read_config
from instantvir_models.checkpoints.load import load_student
from instantvir_models.checkpoints.prior import load_prior
from instantvir_models.priors.flow import FlowConfig
from instantvir_models.students.fused import FusedStudent

ConfigT = TypeVar("ConfigT", bound=RunConfig)


def sized(config: ConfigT) -> ConfigT:
    """`config` with the size of the student it starts from, where that is there.

    A full-size student that is not there is counted as the recipe says.
    """
    if not isinstance(config, DistillConfig) or config.initial_weights is None:
        return config
    if isinstance(config.student, WanSize):
        return replace(config, student=_full_size(config.student, Path(config.initial_weights)))
    student = load_student(config.initial_weights).student
    if not isinstance(student, FusedStudent):
        return config
    branch = student.config.enlarger_layers or config.student.enlarger_layers
    return replace(config, student=replace(student.config, enlarger_layers=branch))


def _full_size(size: WanSize, folder: Path) -> WanSize:
    if not folder.is_dir():
        return size
    found = read_config(folder)
    return WanSize(
        transformer=found.transformer or size.transformer,
        autoencoder="wan" if found.wan_vae is not None else "lean",
        latents_per_block=found.settings.latents_per_block,
    )


def teacher_size(config: RunConfig) -> FlowConfig | WanTeacherSize | None:
    """Of the prior that teaches; a published one that is not there is Wan2.1-T2V-1.3B."""
    if not isinstance(config, DistillConfig) or config.teacher is None:
        return None
    if not isinstance(config.student, WanSize):
        return load_prior(place_of(config.teacher)).network.config
    path = Path(config.teacher)
    if not path.is_dir():
        return WanTeacherSize()
    found = read_config(path)
    usual = WanTeacherSize()
    return WanTeacherSize(
        transformer=found.transformer or usual.transformer,
        autoencoder=found.autoencoder or usual.autoencoder,
    )
