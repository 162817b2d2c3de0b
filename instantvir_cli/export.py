"""`instantvir export`: what a training run made, as a folder for the Hub."""

import json
import shutil
from pathlib import Path
from typing import Any

from instantvir_cli import console
from instantvir_models.checkpoints.card import CARD_NAME, RECIPE_NAME, Training, write_card
from instantvir_models.checkpoints.config import CONFIG_NAME, read_config
from instantvir_models.checkpoints.folder import written_at_once
from instantvir_models.checkpoints.hub import upload
from instantvir_models.checkpoints.load import load_student
from instantvir_models.checkpoints.small import WEIGHTS_NAME, save_small
from instantvir_models.errors import CheckpointError, UsageError
from instantvir_models.outputs.rule import refuse
from instantvir_models.run.asked import FOLDERS

TEACHER_NAME = "teacher.safetensors"

NAMES_OF_FILES = ("initial_weights", "teacher")
"""Settings of a run that may be the path of a file or a folder."""

VALIDATION_NAME = "validation.jsonl"
"""Where `python -m instantvir_distill.evaluate ... --log` of a run is looked for."""


def export_student(source: Path, output: Path, *, push: str | None, overwrite: bool) -> None:
    """Make `output` a complete checkpoint of what is in `source`, and upload it if wanted.

    Raises:
        UsageError: if they are the same folder, or `output` holds one that may not be replaced.
        CheckpointError: if there is no student, or the Hub refuses it.
        VideoWriteError: if it cannot be written.
    """
    if source.exists() and output.exists() and source.samefile(output):
        raise UsageError("a student is not exported onto itself", hint="give another `-o`")
    if output.exists() and not output.is_dir():
        raise UsageError(f"`{output}` is a file", hint="a student is exported into a folder")
    made = _found(source)
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        refuse(output / name, may_replace=overwrite)
    if made.is_dir():
        _copy_folder(made, output, run=source)
    else:
        load_student(str(made))  # what is none is refused
        measured = _measured(source)
        save_small(made, output, recipe=_recipe(source), measured=measured)
        if not measured and source.is_dir():
            console.say(
                f"the card says of no quality: `python -m instantvir_distill.evaluate {made} --clips "
                f"HELD_OUT --cache DIR --log {source / VALIDATION_NAME}` before this measures it"
            )
    console.say(f"{output}: `instantvir restore IN --model {output}`")
    if push is not None:
        console.say(f"uploaded: {upload(output, push)}; `--model {push}` takes it from there")


def _found(source: Path) -> Path:
    """A file with an embedded student, or the folder of a full-size one."""
    if source.is_file():
        return source
    if (source / WEIGHTS_NAME).is_file():
        return source / WEIGHTS_NAME
    if (source / TEACHER_NAME).is_file():
        raise CheckpointError(
            f"`{source}` holds a teacher, which no `--model` takes",
            hint=f"students learn from it: `--set teacher={source / TEACHER_NAME}`",
        )
    is_run = (source / CONFIG_NAME).is_file() and (source / "lock").is_file()
    if is_run and not (source / "student").exists():
        raise CheckpointError(
            f"the run in `{source}` has made no student so far",
            hint="it makes one with its first checkpoint, after two minutes or at its end",
        )
    for folder in (source / "student", source):
        if (folder / CONFIG_NAME).is_file():
            read_config(folder)
            return folder
    raise CheckpointError(
        f"`{source}` holds no student",
        hint="give the folder of a run of `instantvir distill`, or a .safetensors file it wrote",
    )


def _copy_folder(made: Path, output: Path, *, run: Path) -> None:
    config = read_config(made)
    recipe = _recipe(run) if made != run else None
    with written_at_once(output, CONFIG_NAME) as unfinished:
        for name in (CONFIG_NAME, CARD_NAME, *config.sha256):
            if (made / name).is_file():
                shutil.copyfile(made / name, unfinished / name)
        if recipe is not None:
            (unfinished / RECIPE_NAME).write_text(json.dumps(recipe, indent=2), encoding="utf-8")
            training = Training(recipe, _measured(run))
            write_card(unfinished, config, instead_of=made, training=training)
        elif (made / RECIPE_NAME).is_file():
            shutil.copyfile(made / RECIPE_NAME, unfinished / RECIPE_NAME)
    if not (recipe or (made / RECIPE_NAME).is_file()):
        (output / RECIPE_NAME).unlink(missing_ok=True)  # of one that was here before
    load_student(str(output))  # complete, or an error that says what is missing


def _recipe(run: Path) -> dict[str, Any] | None:
    """The configuration of the run, if `run` is one."""
    path = run / CONFIG_NAME
    if not run.is_dir() or not path.is_file():
        return None
    recipe: dict[str, Any] = _parsed(path, path.read_text(encoding="utf-8"))
    return {name: _without_folders(name, value) for name, value in recipe.items()}


def _without_folders(setting: str, value: Any) -> Any:
    """A setting as strangers may read it: of files of this machine their names alone."""
    if not isinstance(value, str):
        return value
    if setting == "measured_by":
        return FOLDERS.sub("path=", value)
    path = Path(value)
    is_of_a_file = setting in NAMES_OF_FILES and (path.is_absolute() or path.exists())
    return path.name if is_of_a_file else value


def _measured(run: Path) -> dict[str, float]:
    """PSNR by column, of the last validation of the run, if there was one.

    Raises:
        CheckpointError: if something else wrote it.
    """
    path = run / VALIDATION_NAME
    if not run.is_dir() or not path.is_file():
        return {}
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    if not lines:
        return {}
    row = _parsed(path, lines[-1])
    try:
        return {str(name): float(value) for name, value in row["psnr"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _strange(path) from None


def _parsed(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise _strange(path) from None


def _strange(path: Path) -> CheckpointError:
    return CheckpointError(
        f"`{path}` is not as a run or its validation writes it",
        hint="take it away, and what it says is not on the card",
    )
