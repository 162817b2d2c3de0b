"""`instantvir distill`: a recipe, clips and a folder become a student."""

import difflib
from dataclasses import replace
from pathlib import Path

from instantvir_cli import console
from instantvir_models.errors import UsageError


def distill_recipe(
    name: str,
    *,
    clips: Path,
    photos: Path | None,
    folder: Path,
    initial_weights: str | None,
    workers: int | None,
) -> None:
    """Train by the recipe `name`, or continue the run in `folder`."""
    from instantvir_distill.launch import distill
    from instantvir_distill.recipes import RECIPES
    from instantvir_models.checkpoints.load import load_student

    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPES, 1)
        hint = f"did you mean `{close[0]}`?" if close else f"there is {', '.join(RECIPES)}"
        raise UsageError(f"there is no recipe called `{name}`", hint=hint)
    if workers is not None and not 1 <= workers <= 64:
        raise UsageError(f"`--workers` is {workers}; it is a number from 1 to 64")
    config = RECIPES[name]()
    if initial_weights is not None:
        load_student(initial_weights)  # says now what is wrong with it
        config = replace(config, initial_weights=initial_weights)
    if workers is not None:
        config = replace(config, workers=workers)
    console.say(
        f"{config.steps} steps, {config.workers} workers; progress in {folder / 'log.jsonl'}; "
        "stop and run again at will"
    )
    weights = distill(config, clips=clips, photos=photos, folder=folder)
    console.say(f"wrote {weights}")
