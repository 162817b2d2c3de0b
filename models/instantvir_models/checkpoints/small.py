"""A folder with an embedded student, for the Hub: config.json, the weights, and a card."""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from instantvir_models.checkpoints.card import (
    CARD_NAME,
    FRONT_MATTER,
    measured_table,
    trained_by,
)
from instantvir_models.checkpoints.config import (
    CONFIG_NAME,
    WanCheckpoint,
    from_json,
    read_config,
    read_object,
    write_config,
)
from instantvir_models.checkpoints.folder import written_at_once
from instantvir_models.checkpoints.tensors import sha256_of
from instantvir_models.errors import CheckpointError

FORMAT = "instantvir-small"
WEIGHTS_NAME = "student.safetensors"


@dataclass(frozen=True, kw_only=True)
class SmallCheckpoint:
    """What a folder with an embedded student says of itself."""

    format: str = FORMAT
    format_version: int = 1
    recipe: str = ""
    """How it was trained, as JSON, for people."""
    measured: dict[str, float] = field(default_factory=dict)
    """PSNR in dB by column of the validation that was run, if one was."""
    sha256: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.format != FORMAT or self.format_version != 1:
            raise ValueError(f"the format is {self.format} version {self.format_version}")
        if list(self.sha256) != [WEIGHTS_NAME]:
            raise ValueError(f"its one file of weights is {WEIGHTS_NAME}")


def read_any_config(folder: Path) -> WanCheckpoint | SmallCheckpoint:
    """The configuration of the checkpoint in `folder`, whatever its kind.

    Raises:
        CheckpointError: as `read_config`.
    """
    path = folder / CONFIG_NAME
    values = read_object(path, folder)
    if values.get("format") != FORMAT:
        return read_config(folder)
    try:
        return from_json(SmallCheckpoint, values)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"`{path}` is not usable: {error}") from error


def save_small(
    weights: Path, folder: Path, *, recipe: dict[str, Any] | None, measured: dict[str, float]
) -> SmallCheckpoint:
    """Make `folder` ready for the Hub: a copy of `weights`, what they are, and a card.

    Raises:
        VideoWriteError: if it cannot be written.
    """
    with written_at_once(folder, WEIGHTS_NAME) as unfinished:
        shutil.copyfile(weights, unfinished / WEIGHTS_NAME)
        config = SmallCheckpoint(
            recipe=json.dumps(recipe) if recipe else "",
            measured=measured,
            sha256={WEIGHTS_NAME: sha256_of(unfinished / WEIGHTS_NAME)},
        )
        write_config(unfinished, config)
        old = folder / CARD_NAME
        if not old.exists() or old.read_bytes().startswith(FRONT_MATTER.encode()):
            (unfinished / CARD_NAME).write_text(card(config), encoding="utf-8")
    return config


def card(config: SmallCheckpoint) -> str:
    """The card as Markdown."""
    recipe = json.loads(config.recipe) if config.recipe else {}
    return (
        f"{FRONT_MATTER}\n"
        "# An embedded video restoration student for instantvir\n\n"
        "```\ninstantvir restore IN.mp4 --model FOLDER_OR_REPO\n```\n\n"
        f"* trained by: {trained_by(recipe, CONFIG_NAME)}\n"
        f"* sha256 of {WEIGHTS_NAME}: `{config.sha256[WEIGHTS_NAME]}`\n\n"
        f"{measured_table(config.measured)}\n"
    )


def described(config: SmallCheckpoint) -> dict[str, Any]:
    """For `info`."""
    values = asdict(config)
    values["recipe"] = json.loads(config.recipe) if config.recipe else None
    return values
