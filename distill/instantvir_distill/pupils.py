"""Kinds of students under training: what is learned of them, how methods ask them, how they are kept."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from instantvir_distill.config import DistillConfig, WanSize
from instantvir_distill.methods.base import Restore
from instantvir_distill.restorers import FusedRestorer, SequenceRestorer
from instantvir_models.checkpoints.config import WanCheckpoint
from instantvir_models.checkpoints.folder import PROMPT_NAME, save_folder, save_prompt
from instantvir_models.checkpoints.load import load_student, save_student
from instantvir_models.checkpoints.prompt import text_of
from instantvir_models.errors import UsageError
from instantvir_models.outputs.claim import new_file
from instantvir_models.students.fused import FusedConfig, FusedStudent
from instantvir_models.students.wan.student import WanStudent
from instantvir_models.students.wan.transformer import WanTransformer

FULL_SIZE_NAME = "student"
"""Folder inside that of a run where a full-size student is written."""


class Pupil(Protocol):
    """A student under training."""

    @property
    def network(self) -> nn.Module:
        """What is learned of it."""

    @property
    def entries(self) -> tuple[str, ...]:
        """Methods of the network that losses ask, where weights are sharded."""

    @property
    def restore(self) -> Restore:
        """The student as methods know it."""

    def to(self, device: torch.device) -> None:
        """Bring all of it there."""

    def frozen(self) -> Restore:
        """The student as it is now, for ever."""

    def write(self, average: Mapping[str, Tensor], folder: Path) -> None:
        """Write the student with these weights into `folder`, complete or not at all."""


@dataclass(frozen=True)
class FusedPupil:
    """The embedded student."""

    student: FusedStudent
    dtype: torch.dtype
    """Of products; weights stay float32."""

    @property
    def network(self) -> nn.Module:
        return self.student

    @property
    def entries(self) -> tuple[str, ...]:
        return ("refine",)

    @property
    def restore(self) -> FusedRestorer:
        return FusedRestorer(self.student, dtype=self.dtype)

    def to(self, device: torch.device) -> None:
        self.student.to(device)

    def frozen(self) -> FusedRestorer:
        still = copy.deepcopy(self.student).eval().requires_grad_(False)
        return FusedRestorer(still, dtype=self.dtype)

    def write(self, average: Mapping[str, Tensor], folder: Path) -> None:
        """`student.safetensors`."""
        averaged = FusedStudent(self.student.config, seen=self.student.seen)
        averaged.load_state_dict(average)
        weights = folder / f"{FULL_SIZE_NAME}.safetensors"
        with new_file(weights, may_replace=True) as unfinished:
            save_student(averaged, unfinished, dtype=torch.float32)


@dataclass(frozen=True)
class WanPupil:
    """A full-size student: its transformer learns, its autoencoder passes gradients through."""

    student: WanStudent
    checkpoint: WanCheckpoint
    """What the folder it came from says."""
    words: str = ""
    """Of its prompt, as far as they are known."""

    @property
    def network(self) -> nn.Module:
        return self.student.transformer

    @property
    def entries(self) -> tuple[str, ...]:
        return ("velocity_of_sequence",)

    @property
    def restore(self) -> SequenceRestorer:
        return SequenceRestorer(self.student)

    def to(self, device: torch.device) -> None:
        self.student.transformer.to(device)
        assert isinstance(self.student.autoencoder, nn.Module)
        self.student.autoencoder.to(device)

    def frozen(self) -> SequenceRestorer:
        still = copy.deepcopy(self.student.transformer).eval().requires_grad_(False)
        return SequenceRestorer(replace(self.student, transformer=still))

    def write(self, average: Mapping[str, Tensor], folder: Path) -> None:
        """The folder `student`, which `--model` takes."""
        with torch.device("meta"):
            averaged = WanTransformer(self.student.transformer.config)
        averaged.load_state_dict(average, assign=True)
        to = folder / FULL_SIZE_NAME
        written = save_folder(replace(self.student, transformer=averaged), to, self.checkpoint)
        if PROMPT_NAME in self.checkpoint.sha256 or self.student.text.rows.shape[1]:
            save_prompt(to, written, self.student.text.rows, text=self.words)


def first_pupil(config: DistillConfig, dtype: torch.dtype) -> Pupil:
    """The student at step 0.

    Raises:
        CheckpointError: if there is no student where one is to start from.
        UsageError: if it is of a kind that is not trained here.
    """
    if config.initial_weights is None:
        if isinstance(config.student, WanSize):
            raise UsageError(
                "a full-size student starts from weights",
                hint="`--init DIR`; `instantvir convert` makes such a folder",
            )
        fresh: FusedStudent = FusedStudent(config.student).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return FusedPupil(fresh, dtype)
    loaded = load_student(config.initial_weights)
    if isinstance(loaded.student, FusedStudent) and isinstance(config.student, FusedConfig):
        grown = _with_branches(loaded.student, config.student)
        return FusedPupil(grown.train().requires_grad_(True), dtype)
    if isinstance(loaded.student, WanStudent) and isinstance(config.student, WanSize):
        assert loaded.checkpoint is not None
        student = loaded.student
        student.transformer.train().requires_grad_(True)
        student.transformer.recomputes_layers = config.recompute
        student.autoencoder.recomputes_layers = config.recompute
        return WanPupil(student, loaded.checkpoint, _words(Path(config.initial_weights)))
    wanted = "a fused student" if isinstance(config.student, FusedConfig) else "a full-size student"
    raise UsageError(
        f"`{config.initial_weights}` is not {wanted}, which this recipe trains",
        hint="start from what `instantvir distill` wrote, or take another recipe",
    )


def _words(folder: Path) -> str:
    """Of the prompt in a checkpoint's folder, if that is one."""
    path = folder / PROMPT_NAME
    return text_of(path) if path.is_file() else ""


def _with_branches(given: FusedStudent, wanted: FusedConfig) -> FusedStudent:
    """`given`, with a new branch for enlargement if one is wanted and it has none."""
    if given.config.enlarger_layers or not wanted.enlarger_layers:
        return given
    size = replace(
        given.config,
        enlarger_layers=wanted.enlarger_layers,
        enlarger_channels=wanted.enlarger_channels,
    )
    grown: FusedStudent = FusedStudent(size).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    grown.load_state_dict(given.state_dict(), strict=False)
    return grown
