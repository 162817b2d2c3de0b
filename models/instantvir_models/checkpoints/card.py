"""README.md of a checkpoint folder: what a person (and the Hub) should know of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instantvir_models.checkpoints.config import WanCheckpoint

CARD_NAME = "README.md"

RECIPE_NAME = "recipe.json"
"""All settings of the run that made a full-size student, for people."""

FRONT_MATTER = "---\nlibrary_name: instantvir\npipeline_tag: video-to-video\n---\n"
"""How a card of ours begins; one that begins otherwise is somebody's own."""


@dataclass(frozen=True)
class Training:
    """How a student came about."""

    recipe: Mapping[str, Any]
    """All settings of the run."""
    measured: Mapping[str, float]
    """PSNR in dB by column of its validation; empty if there was none."""


def write_card(
    folder: Path, config: WanCheckpoint, *, instead_of: Path, training: Training | None = None
) -> None:
    """Write the card of `config` into `folder`, unless the one in `instead_of` is somebody's own."""
    old = instead_of / CARD_NAME
    if not old.exists() or old.read_bytes().startswith(FRONT_MATTER.encode()):
        (folder / CARD_NAME).write_text(card(config, training), encoding="utf-8")


def measured_table(measured: Mapping[str, float]) -> str:
    """PSNR by column of a validation as Markdown, or that there was none."""
    if not measured:
        return "Its quality was not measured.\n"
    rows = "".join(f"| {name} | {psnr:.2f} |\n" for name, psnr in measured.items())
    return f"PSNR in dB on clips it was not trained on:\n\n| | |\n|---|---|\n{rows}\n"


def trained_by(recipe: Mapping[str, Any], file: str) -> str:
    """The method of a run, whose settings are in `file`."""
    method = recipe.get("method", {}).get("name", "")
    return f"`{method}`, all settings in {file}" if method else "not noted"


def card(config: WanCheckpoint, training: Training | None = None) -> str:
    """The card as Markdown; the settings of a training lie beside it as `RECIPE_NAME`."""
    settings = config.settings
    task = config.task or "unknown; see where it came from"
    autoencoder = "LeanVAE" if config.lean else "Wan2.1" if config.wan_vae else "missing"
    by = f"* trained by: {trained_by(training.recipe, RECIPE_NAME)}\n" if training else ""
    quality = f"{measured_table(training.measured)}\n" if training else ""
    files = "".join(f"| `{name}` | `{digest}` |\n" for name, digest in config.sha256.items())
    return (
        f"{FRONT_MATTER}\n"
        "# A causal video restoration student for instantvir\n\n"
        "```\ninstantvir restore IN.mp4 --model FOLDER_OR_REPO\n```\n\n"
        f"* trained for: {task}\n"
        f"* degradations seen in training: {config.operators or 'not noted'}\n"
        f"* autoencoder: {autoencoder}\n"
        f"* one pass at timestep {settings.timestep} (shift {settings.shift:g}) for each block of "
        f"{settings.latents_per_block} latents, history of {settings.window_latents} latents"
        f" and the first {settings.sink_latents}\n"
        f"* made from: {config.source or 'not noted'}\n"
        f"{by}\n"
        "It restores what it was trained for and invents detail where the measurement has none; "
        "instantvir corrects its estimate towards the measurement afterwards. The licence of the "
        "weights is their authors' (Wan2.1: Apache-2.0, LeanVAE: MIT; ask the authors of the "
        "student).\n\n"
        f"{quality}"
        f"| file | sha256 |\n|---|---|\n{files}"
    )
