"""README.md of a checkpoint folder: what a person (and the Hub) should know of it."""

from pathlib import Path

from instantvir_models.checkpoints.config import WanCheckpoint

CARD_NAME = "README.md"

FRONT_MATTER = "---\nlibrary_name: instantvir\npipeline_tag: video-to-video\n---\n"
"""How a card of ours begins; one that begins otherwise is somebody's own."""


def write_card(folder: Path, config: WanCheckpoint, *, instead_of: Path) -> None:
    """Write the card of `config` into `folder`, unless the one in `instead_of` is somebody's own."""
    old = instead_of / CARD_NAME
    if not old.exists() or old.read_bytes().startswith(FRONT_MATTER.encode()):
        (folder / CARD_NAME).write_text(card(config), encoding="utf-8")


def card(config: WanCheckpoint) -> str:
    """The card as Markdown."""
    settings = config.settings
    task = config.task or "unknown; see where it came from"
    autoencoder = "LeanVAE" if config.lean else "Wan2.1" if config.wan_vae else "missing"
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
        f"* made from: {config.source or 'not noted'}\n\n"
        "It restores what it was trained for and invents detail where the measurement has none; "
        "instantvir corrects its estimate towards the measurement afterwards. The licence of the "
        "weights is their authors' (Wan2.1: Apache-2.0, LeanVAE: MIT; ask the authors of the "
        "student).\n\n"
        f"| file | sha256 |\n|---|---|\n{files}"
    )
