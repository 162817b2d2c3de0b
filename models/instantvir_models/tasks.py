"""What people want done to a video: the one table of tasks, and what they may say about it.

Light to import: the command reads its help and its completion here.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from instantvir_models.errors import UsageError

if TYPE_CHECKING:
    from instantvir_models.operators.base import OperatorTraits
    from instantvir_models.operators.measurement import Degradation


@dataclass(frozen=True, kw_only=True)
class Task:
    """A name for what was done to a video, in the user's words."""

    name: str
    about: str
    """What restoring does, in a few words."""
    benchmark_spec: str
    """The degradation that stands for the task where methods and speeds are compared."""
    shows_in: Callable[[OperatorTraits], bool]
    """Whether an operator with these traits calls for the task."""
    own_option: str | None = None
    """The field of `TaskOptions` that has no effect without the task."""

    def __str__(self) -> str:
        return self.name


DENOISE = Task(
    name="denoise",
    about="remove noise",
    benchmark_spec="identity+noise:std=25",
    shows_in=lambda traits: False,  # noise is no part of the operator: see `tasks_in`
)
DEBLUR = Task(
    name="deblur",
    about="remove blur, in space or over time",
    benchmark_spec="blur:sigma=3+noise:std=2.55",
    shows_in=lambda traits: traits.blur_sigma > 0 or traits.temporal_sigma > 0,
    own_option="blur_sigma",
)
SR = Task(
    name="sr",
    about="enlarge (super-resolution)",
    benchmark_spec="down:factor=4,kernel=area",
    shows_in=lambda traits: traits.scale > 1,
    own_option="scale",
)
INPAINT = Task(
    name="inpaint",
    about="fill missing pixels",
    benchmark_spec="mask:keep=0.5,seed=0",
    shows_in=lambda traits: traits.known_fraction < 1,
    own_option="mask",
)

MOST_SHARPNESS = 1.5

TASKS = {task.name: task for task in (DENOISE, DEBLUR, SR, INPAINT)}
"""Every task by its name. Samplers, benchmarks, help texts and completion follow this table."""


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """What the user wants and knows about the degradation; None is to be estimated.

    Raises:
        UsageError: for a number out of range.
    """

    tasks: tuple[Task, ...] = ()
    blur_sigma: float | None = None
    """Pixels, 0 to 50."""
    noise_levels: float | None = None
    """8-bit levels, 0 to 255."""
    scale: int | None = None
    """2 to 8."""
    mask: Path | None = None
    dust: bool = False
    """Whether dust and scratches, which one frame has and its neighbours do not, are filled."""
    operator: str | Degradation | None = None
    """What says it all: a specification, or the degradation itself, noise included."""
    keep_detail: float | None = None
    """Part of the fine contrast that stays everywhere, 0 to 1; None keeps what a video that is looked at
    asks for, else nothing."""
    sharpness: float = 0.0
    """Part of the fine contrast, that the expected error says is missing, to be given back, 0 to 1.5; 0 is the
    least error."""

    def __post_init__(self) -> None:
        for flag, value, low, high in (
            ("--blur-sigma", self.blur_sigma, 0, 50),
            ("--noise", self.noise_levels, 0, 255),
            ("--scale", self.scale, 2, 8),
            ("--keep-detail", self.keep_detail, 0, 1),
            ("--sharpness", self.sharpness, 0, MOST_SHARPNESS),
        ):
            if value is not None and not low <= value <= high:
                raise UsageError(f"`{flag}` is {value:g}; it is a number from {low} to {high}")

    @property
    def knows_nothing(self) -> bool:
        """Whether the user says at most which tasks there are."""
        return self == TaskOptions(
            tasks=self.tasks, keep_detail=self.keep_detail, sharpness=self.sharpness
        )

    @property
    def tells_nothing(self) -> bool:
        """Whether the user does not even say which tasks there are."""
        return self.knows_nothing and not self.tasks


def parse_tasks(names: Sequence[str]) -> tuple[Task, ...]:
    """The tasks called `names`.

    Raises:
        UsageError: if there is none called so, with the nearest name.
    """
    return tuple(parse_task(name) for name in names)


def parse_task(name: str) -> Task:
    """The task called `name`.

    Raises:
        UsageError: if there is none called so, with the nearest name.
    """
    if name not in TASKS:
        close = difflib.get_close_matches(name, TASKS, 1)
        hint = f"did you mean `{close[0]}`?" if close else f"use {', '.join(TASKS)}"
        raise UsageError(f"there is no task called `{name}`", hint=hint)
    return TASKS[name]


def tasks_in(traits: OperatorTraits) -> tuple[Task, ...]:
    """The tasks that an operator with these traits calls for; `denoise` where it is the only one."""
    return tuple(task for task in TASKS.values() if task.shows_in(traits)) or (DENOISE,)


def either(names: Sequence[str]) -> str:
    """The names as a sentence lists them: `a, b or c`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
