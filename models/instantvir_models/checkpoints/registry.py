"""Short names of published students: where each is, pinned to a commit."""

import json
from dataclasses import dataclass
from pathlib import Path

from instantvir_models.checkpoints.config import from_json

REGISTRY_PATH = Path(__file__).with_name("registry.json")


@dataclass(frozen=True, kw_only=True)
class Published:
    """One entry of registry.json."""

    about: str
    repo: str | None
    """On the Hugging Face Hub; None while nobody has published such weights."""
    revision: str | None
    """Full commit hash."""
    config_sha256: str | None
    """Of config.json, which in turn lists the digests of the weights."""
    autoencoder_source: str
    """The published file that `instantvir convert` takes the autoencoder from."""


def registry() -> dict[str, Published]:
    """Entries by name."""
    entries = json.loads(REGISTRY_PATH.read_text(encoding="utf-8"))
    return {name: from_json(Published, entry) for name, entry in entries.items()}
