"""The frozen prior of a run: a tiny one from its file, or a published transformer from its folder."""

from pathlib import Path

import torch

from instantvir_distill.config import DistillConfig
from instantvir_models.checkpoints.config import read_config
from instantvir_models.checkpoints.folder import load_folder
from instantvir_models.checkpoints.prior import SHIPPED_PRIOR, load_errors, load_prior
from instantvir_models.errors import CheckpointError
from instantvir_models.priors.base import Prior
from instantvir_models.priors.wan import WanPrior
from instantvir_models.students.text import TextRows

SHIPPED = "tiny-teacher"
"""What the tiny prior in the package is called."""


def place_of(name: str) -> Path:
    """Where the teacher called `name` is, a file or a folder, or should be.

    Raises:
        CheckpointError: if nothing is there.
    """
    path = SHIPPED_PRIOR if name == SHIPPED else Path(name)
    if not path.exists():
        raise CheckpointError(
            f"there is no teacher `{name}`",
            hint=f"`--set teacher={SHIPPED}` is the one in the package; a file, or the folder of a "
            "Wan checkpoint",
        )
    return path


def load_teacher(config: DistillConfig) -> Prior | None:
    """The teacher of `config`, frozen; None where its method asks none.

    Raises:
        CheckpointError: if there is no such teacher, or it is damaged.
    """
    if config.teacher is None:
        return None
    path = place_of(config.teacher)
    if not path.is_dir():
        return load_prior(path)
    prior = wan_teacher(path, device=config.own_device, guidance=config.teacher_guidance)
    prior.transformer.blocks.to(config.products)  # its velocity stays float32
    prior.autoencoder.recomputes_layers = config.recompute  # gradients go through it to the student
    return prior


def locate_teacher(name: str) -> None:
    """CheckpointError if nothing that can teach is called `name`; reads no more than it has to."""
    path = place_of(name)
    if path.is_dir():
        read_config(path)
    else:
        load_prior(path)


def wan_teacher(
    folder: Path, *, device: torch.device | str = "cpu", guidance: float = 1.0
) -> WanPrior:
    """The transformer and autoencoder in `folder` as a prior, told the prompt that lies there.

    Guidance leads away from a prompt without words.
    """
    student, _ = load_folder(folder, device=device)
    text = student.text
    return WanPrior(
        transformer=student.transformer,
        autoencoder=student.autoencoder,
        text=text,
        without=TextRows(torch.empty(1, 0, text.rows.shape[2]), text.length),
        errors=load_errors(folder),
        guidance=guidance,
    )
