"""From the options that every restoring command shares to a degradation."""

import difflib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from instantvir_cli import console
from instantvir_models.errors import UsageError
from instantvir_models.media.frame import Pixels
from instantvir_models.operators.measurement import Degradation
from instantvir_models.operators.sidecar import read_sidecar, sidecar_path
from instantvir_models.tasks import Resolved, Task, TaskOptions, needs_sample, resolve


def parse_tasks(names: Sequence[str]) -> tuple[Task, ...]:
    """The tasks called `names`, or UsageError with the nearest name."""
    tasks = []
    for name in names:
        if name not in list(Task):
            close = difflib.get_close_matches(name, list(Task), 1)
            hint = f"did you mean `{close[0]}`?" if close else f"use {', '.join(Task)}"
            raise UsageError(f"there is no task called `{name}`", hint=hint)
        tasks.append(Task(name))
    return tuple(tasks)


def check_task_options(options: TaskOptions) -> None:
    """UsageError for a number out of range."""
    for name, value, low, high in (
        ("--blur-sigma", options.blur_sigma, 0, 50),
        ("--noise", options.noise_levels, 0, 255),
        ("--scale", options.scale, 2, 8),
    ):
        if value is not None and not low <= value <= high:
            raise UsageError(f"`{name}` is {value:g}; it is a number from {low} to {high}")


def check_tile(tile: int | None) -> None:
    """UsageError for a side that tiles cannot have."""
    if tile is not None and (tile < 0 or tile % 64):
        raise UsageError(f"`--tile` is {tile}; it is a multiple of 64")


def needs_first_frames(source: str, tasks: Sequence[str], options: TaskOptions) -> bool:
    """Whether `resolved_degradation` has to see the beginning of the video."""
    if _note_that_counts(source, options) is not None or not (options.operator or tasks):
        return False
    return needs_sample(parse_tasks(tasks), options)


def resolved_degradation(
    source: str,
    tasks: Sequence[str],
    options: TaskOptions,
    *,
    sample: Sequence[Pixels],
    is_lossy: bool,
) -> Resolved:
    """The degradation: from options, from the note beside the video, or estimated.

    Args:
        sample: the first frames, [H, W, 3] each; may be empty unless `needs_first_frames`.
        is_lossy: True when the video comes from a lossy codec.
    """
    noted = _note_that_counts(source, options)
    if noted is not None:
        console.say(f"operator from {sidecar_path(Path(source)).name}: {noted.spec}")
        known = Degradation(operator=noted.operator, noise_std=noted.noise_std, is_lossy=is_lossy)
        return Resolved(degradation=known, is_operator_known=True)
    frames: Pixels = np.stack(sample) if sample else np.empty(0, np.uint8)  # type: ignore[assignment]
    return resolve(parse_tasks(tasks), options, sample=frames, is_lossy=is_lossy)


def _note_that_counts(source: str, options: TaskOptions) -> Degradation | None:
    """The note beside the video, unless it has none or the user says otherwise."""
    if source == "-" or options != TaskOptions():
        return None
    return read_sidecar(Path(source))


def describe_estimates(resolved: Resolved) -> None:
    """Say what was read off the video, and how sure it is."""
    for estimate in resolved.estimates:
        console.say(
            f"estimated {estimate.name}: {estimate.value:.2f} +- {estimate.std:.2f} {estimate.unit} "
            f"(confidence {estimate.confidence})"
        )
        if estimate.confidence == "low":
            console.warn(f"the estimate of the {estimate.name} is unsure; better say it yourself")
