"""From the name of a model and the wishes of a person to a session, with what to tell them as data."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch

from instantvir_models.checkpoints.load import EMBEDDED, LoadedStudent, load_student
from instantvir_models.checkpoints.prompt import read_prompt
from instantvir_models.cpu import fastest_dtype
from instantvir_models.errors import UsageError
from instantvir_models.operators.measurement import Degradation
from instantvir_models.run.session import Session
from instantvir_models.solvers.amortised import Amortised
from instantvir_models.solvers.base import Solver
from instantvir_models.solvers.registry import named_solver
from instantvir_models.students.base import Student
from instantvir_models.students.fitting import FitRequest, Notice
from instantvir_models.tasks import tasks_in

DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")

MEASURED_ON = ("cpu", "cuda")
"""Devices on which operators compute, some of it in float64; elsewhere the network alone does."""


@dataclass(frozen=True, kw_only=True)
class SessionLimits:
    """How much a session may take at once; None leaves it to the solver and to what is free.

    Raises:
        UsageError: for tiles that cannot be.
    """

    gigabytes: float | None = None
    """Memory on its device."""
    tile_pixels: int | None = None
    """Side of the tiles, a multiple of 64, 0 for whole frames."""
    frames_per_block: int | None = None
    """Frames restored together."""

    def __post_init__(self) -> None:
        if self.tile_pixels is not None and (self.tile_pixels < 0 or self.tile_pixels % 64):
            raise UsageError(f"`--tile` is {self.tile_pixels}; it is a multiple of 64")


@dataclass(frozen=True)
class NewSession:
    """A session for one video, and what a person is to be told about it."""

    session: Session
    notices: tuple[Notice, ...]


@dataclass(frozen=True)
class OpenedSolver:
    """A solver called by its name, for one device; fits itself to any number of videos."""

    name: str
    solver: Solver[Any]
    device: torch.device
    """Where it is to compute; weights are brought there by `new_session`."""
    loaded: LoadedStudent | None = None
    """The student in it, if there is one."""
    dtype: torch.dtype | None = None
    """Weights are to have this type where memory allows; None for the one they have."""
    is_dtype_fixed: bool = False
    """Whether the user said which type the weights have."""
    notices: tuple[Notice, ...] = field(default=())
    """What a person is to be told about opening it."""
    prompt: str | None = None
    """What a person said is seen, whether it reads that or not."""

    @property
    def sha256(self) -> str | None:
        """Of its weights; None without any."""
        return None if self.loaded is None else self.loaded.sha256

    def doubts(self, degradation: Degradation) -> tuple[str, ...]:
        """Sentences to a person about a degradation that it may not undo well.

        Raises:
            UsageError: if it cannot undo it at all.
        """
        self.solver.check(degradation)
        checkpoint = None if self.loaded is None else self.loaded.checkpoint
        trained_for = None if checkpoint is None else checkpoint.task
        happened = [str(task) for task in tasks_in(degradation.operator.traits)]
        if trained_for is None or trained_for in happened:
            return self.solver.doubts(degradation)
        return (
            f"`{self.name}` was trained for {trained_for}, this video needs "
            f"{' and '.join(happened)}; expect poor results",
            *self.solver.doubts(degradation),
        )

    def new_session(
        self,
        degradation: Degradation,
        *,
        height: int,
        width: int,
        limits: SessionLimits | None = None,
        keep_detail: float = 0.0,
        follow: float = 1.0,
        sharpness: float = 0.0,
    ) -> NewSession:
        """A session for measured frames of `height` x `width`, with all of the solver that fits.

        Args:
            keep_detail, follow, sharpness: as `Session` takes them.

        Raises:
            UsageError: if frames of that size do not fit, or the degradation, the blocks or the
                tiles do not suit the solver.
            DeviceMemoryError: if memory runs out while weights go to their device.
        """
        limits = limits or SessionLimits()
        self.solver.check(degradation)
        fitted = self.solver.fitted(
            FitRequest(
                size=degradation.operator.clean_size(height, width),
                device=self.device,
                dtype=self.dtype,
                is_dtype_fixed=self.is_dtype_fixed,
                temporal_radius=degradation.operator.temporal_radius,
                allowed_gigabytes=limits.gigabytes,
                tile_pixels=limits.tile_pixels,
            )
        )
        session = Session(
            fitted.value,
            degradation,
            height=height,
            width=width,
            tile_pixels=limits.tile_pixels,
            device=self.device if self.device.type in MEASURED_ON else "cpu",
            frames_per_block=limits.frames_per_block,
            keep_detail=keep_detail,
            follow=follow,
            sharpness=sharpness,
        )
        return NewSession(session, fitted.notices)


def open_student(
    model: str = EMBEDDED,
    *,
    device: str = "auto",
    prompt: str | None = None,
    dtype: torch.dtype | None = None,
) -> OpenedSolver:
    """The student called `model` as a solver, for the device the user wants, told the prompt.

    Args:
        model: as `load_student` takes it.
        device: one of `DEVICES`.
        prompt: words or a file of rows; None for that of the checkpoint.
        dtype: of the weights of a full-size student, and of the arithmetic of others; None takes
            what is fast there.

    Raises:
        UsageError: if it cannot run there.
        CheckpointError: if there is no such student.
    """
    _check_device(device)
    wanted = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    preferred = dtype or (torch.bfloat16 if wanted == "cuda" else fastest_dtype())
    # into CPU memory first: what a card holds of it depends on the size of the frames
    loaded = load_student(model, dtype=preferred)
    place = _place(device, loaded.student.capabilities.devices, "the embedded student")
    student, notices = _prompted(loaded.student.for_device(place), prompt, model)
    if loaded.revision is not None:
        notices = (*notices, Notice(f"{model} is at commit {loaded.revision}"))
    return OpenedSolver(
        model,
        Amortised(student, dtype),
        place,
        replace(loaded, student=student),
        preferred,
        is_dtype_fixed=dtype is not None,
        notices=notices,
        prompt=prompt,
    )


def open_chosen(
    *,
    model: str = EMBEDDED,
    solver: str | Solver[Any] | None = None,
    device: str = "auto",
    prompt: str | None = None,
    dtype: torch.dtype | None = None,
) -> OpenedSolver:
    """The solver if one is chosen, else the student called `model`; see `open_student`.

    Raises:
        UsageError: if there is no such solver, it cannot run there or reads no prompt, or a model
            is chosen, too.
        CheckpointError: if there is no such student.
    """
    if solver is None:
        return open_student(model, device=device, prompt=prompt, dtype=dtype)
    opened = open_solver(solver, device=device)
    if model != EMBEDDED:
        raise UsageError(
            f"`--solver {opened.name}` stands in the place of `--model {model}`",
            hint="give one of them",
        )
    if prompt is not None:
        raise UsageError(f"`--solver {opened.name}` reads no `--prompt`")
    if dtype is None:
        return opened
    text = f"`--dtype` has no effect: `{opened.name}` computes in its own"
    return replace(opened, notices=(*opened.notices, Notice(text, is_warning=True)))


def open_solver(solver: str | Solver[Any], *, device: str = "auto") -> OpenedSolver:
    """The method called so in `solvers.registry`, or one of your own, for the device the user wants.

    Raises:
        UsageError: if there is none, or it cannot run there.
    """
    _check_device(device)
    name = solver if isinstance(solver, str) else type(solver).__name__
    method = named_solver(solver) if isinstance(solver, str) else solver
    return OpenedSolver(name, method, _place(device, method.needs.devices, f"`{name}`"))


def _prompted(
    student: Student[Any], prompt: str | None, model: str
) -> tuple[Student[Any], tuple[Notice, ...]]:
    """The student told the prompt, and what a person is to be told about that."""
    able = student.capabilities
    if able.text is None:
        if prompt is None:
            return student, ()
        text = f"`--prompt` has no effect: the model `{model}` does not read text"
        return student, (Notice(text, is_warning=True),)
    if prompt is not None:
        rows = read_prompt(prompt, text_dim=able.text.text_dim, text_len=able.text.text_len)
        return student.with_text(rows), ()
    if able.has_words:
        return student, (Notice("the prompt is that of the checkpoint (`--prompt` replaces it)"),)
    return student, (
        Notice("no prompt: the student restores without words (`--prompt` says what is seen)"),
    )


def _check_device(device: str) -> None:
    if device not in DEVICES:
        raise UsageError(f"`--device` is `{device}`", hint=f"it is {', '.join(DEVICES)}")
    if device != "auto" and not _is_there(device):
        raise UsageError(
            f"cannot use `--device {device}`: no such device is available",
            hint="use `--device auto`",
        )


def _is_there(device_type: str) -> bool:
    return device_type == "cpu" or getattr(torch, device_type).is_available()


def _place(device: str, able: tuple[str, ...], what: str) -> torch.device:
    """Where `what` is to compute: where the user wants it, else on the first of the types of devices
    that it is able to use."""
    if device not in ("auto", *able):
        raise UsageError(
            f"cannot use `--device {device}`: {what} runs on {' and '.join(able)} only",
            hint="use `--device auto`",
        )
    wanted = filter(_is_there, able) if device == "auto" else iter([device])
    return torch.device(next(wanted))
