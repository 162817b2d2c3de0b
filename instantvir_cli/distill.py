"""`instantvir distill`: a recipe, clips and a folder become a student."""

import difflib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from instantvir_cli import console
from instantvir_models.errors import UsageError

if TYPE_CHECKING:
    from instantvir_distill.config import RunConfig

FROM_CLIPS, FROM_MEASUREMENTS = "refine", "adapt"
"""Recipes where none is named."""


def distill_recipe(
    name: str | None,
    *,
    clips: Path | None,
    measurements: Path | None,
    operator: str | None,
    photos: Path | None,
    targets: Path | None,
    folder: Path,
    initial_weights: str | None,
    workers: int | None,
    settings: Sequence[str],
    only_plan: bool,
    tensorboard: bool = False,
) -> None:
    """Train by the recipe `name`, or continue the run in `folder`."""
    from instantvir_cli.training_board import check_installed
    from instantvir_distill.launch import distill

    is_of_nothing = only_plan and clips is None and measurements is None
    material = Path() if is_of_nothing else _material(clips, measurements, operator)
    config = _configured(
        (FROM_CLIPS if measurements is None else FROM_MEASUREMENTS) if name is None else name,
        initial_weights=initial_weights,
        workers=workers,
        settings=settings,
        measured_by=operator,
    )
    if only_plan:
        _show_plan(config)
        return
    if tensorboard:
        check_installed()
    shown = _shown(folder, steps=config.steps, tensorboard=tensorboard)
    made = distill(
        config, clips=material, photos=photos, targets=targets, folder=folder, beside=shown
    )
    if os.environ.get("RANK", "0") == "0":  # of the workers that `torchrun` started, one says it
        console.say(f"wrote {made}")


@contextmanager
def _shown(folder: Path, *, steps: int, tensorboard: bool) -> Iterator[None]:
    """While inside, what the run in `folder` logs is shown."""
    from instantvir_cli.training_board import boarded
    from instantvir_cli.training_view import watched
    from instantvir_distill.saved import last_step

    board = boarded(folder, last_step=last_step(folder)) if tensorboard else nullcontext()
    with board, watched(folder, steps=steps):
        yield


def _material(clips: Path | None, measurements: Path | None, operator: str | None) -> Path:
    """The folder to learn from."""
    if clips is not None and measurements is not None:
        raise UsageError("`--clips` are clean and `--measurements` are not: give one of them")
    if measurements is not None:
        if operator is None:
            raise UsageError(
                "of measurements it has to be said how they came about",
                hint="`--operator blur:sigma=2+noise:std=5`; `instantvir info VIDEO` estimates noise",
            )
        return measurements
    if operator is not None:
        raise UsageError("`--operator` says how `--measurements` came about, and there are none")
    if clips is None:
        raise UsageError(
            "there is nothing to learn from",
            hint="`--clips DIR` of clean videos, or `--measurements DIR --operator SPEC`",
        )
    return clips


def _configured(
    name: str,
    *,
    initial_weights: str | None,
    workers: int | None,
    settings: Sequence[str],
    measured_by: str | None,
) -> "RunConfig":
    from instantvir_distill.config import DistillConfig
    from instantvir_distill.launch import launched_workers
    from instantvir_distill.recipes import RECIPES
    from instantvir_distill.settings import with_settings
    from instantvir_models.checkpoints.load import locate

    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPES, 1)
        hint = f"did you mean `{close[0]}`?" if close else f"there is {', '.join(RECIPES)}"
        raise UsageError(f"there is no recipe called `{name}`", hint=hint)
    if workers is not None and not 1 <= workers <= 64:
        raise UsageError(f"`--workers` is {workers}; it is a number from 1 to 64")
    recipe = RECIPES[name]()
    asked = list(settings)  # all at once: some fit together only
    if workers is None and not any(s.partition("=")[0].strip() == "workers" for s in asked):
        workers = launched_workers()
    if workers is not None:
        asked.append(f"workers={workers}")
    if measured_by is not None:
        asked.append(f"measured_by={measured_by}")
    if initial_weights is not None:
        asked.append(f"initial_weights={initial_weights}")
        if isinstance(recipe, DistillConfig):
            locate(initial_weights)  # says now what is wrong with it
    config = with_settings(recipe, asked)
    _check_sizes(config, settings)
    return config


def _check_sizes(config: "RunConfig", settings: Sequence[str]) -> None:
    """UsageError if one says how large a network is that the weights it starts from decide."""
    start = getattr(config, "initial_weights", None)
    for setting in settings if start is not None else ():
        name = setting.partition("=")[0].strip()
        if name.startswith(("student.", "network.")) and ".enlarger" not in name:
            raise UsageError(
                f"the run starts from `{start}`, which decides how large it is, so `{name}` would have "
                "no effect",
                hint="`--set initial_weights=none` starts from random weights",
            )


def _show_plan(config: "RunConfig") -> None:
    from instantvir_distill.plan import planned
    from instantvir_distill.sizes import sized, teacher_size

    config = sized(config)
    for line in planned(config, teacher=teacher_size(config)).lines():
        console.say(line)
    console.say("how long that takes here a run says when it has made 50 steps")
