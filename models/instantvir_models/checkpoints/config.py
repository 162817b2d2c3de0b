"""config.json of a checkpoint folder: what the networks are, and how they are to be run."""

import json
import types
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from instantvir_models.autoencoders.lean import LeanConfig
from instantvir_models.autoencoders.wan import WanVaeConfig
from instantvir_models.errors import CheckpointError
from instantvir_models.students.wan.student import WanSettings
from instantvir_models.students.wan.transformer import WanConfig

FORMAT = "instantvir-wan"
FORMAT_VERSION = 1
CONFIG_NAME = "config.json"
LARGEST_CONFIG_BYTES = 2**20

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class WanCheckpoint:
    """What a folder holds. A part that is None has not been converted yet."""

    format: str = FORMAT
    format_version: int = FORMAT_VERSION
    task: str | None = None
    """The one task the student was trained for: deblur, sr, inpaint or denoise; None if unknown."""
    operators: str = ""
    """Which degradations it saw in training, for people."""
    settings: WanSettings = field(default_factory=WanSettings)
    transformer: WanConfig | None = None
    lean: LeanConfig | None = None
    wan_vae: WanVaeConfig | None = None
    """The autoencoder is one of the two."""
    sha256: dict[str, str] = field(default_factory=dict)
    """Digest of each weight file by name; a network in several shards has several files."""
    source: str = ""
    """Where the weights came from, for people."""

    @property
    def autoencoder(self) -> LeanConfig | WanVaeConfig | None:
        """Whichever is there."""
        return self.lean or self.wan_vae

    def __post_init__(self) -> None:
        if self.format != FORMAT or self.format_version != FORMAT_VERSION:
            raise ValueError(
                f"the format is {self.format} version {self.format_version}, "
                f"this program reads {FORMAT} version {FORMAT_VERSION}"
            )
        if self.lean is not None and self.wan_vae is not None:
            raise ValueError("a checkpoint has one autoencoder, this one has two")
        if any("/" in name or name.startswith(".") for name in self.sha256):
            raise ValueError("weight files lie in the folder itself")


def read_config(folder: Path) -> WanCheckpoint:
    """The configuration of the checkpoint in `folder`.

    Raises:
        CheckpointError: if there is none or it says something this program does not understand.
    """
    path = folder / CONFIG_NAME
    try:
        if path.stat().st_size > LARGEST_CONFIG_BYTES:
            raise ValueError("it is larger than a megabyte")
        values = json.loads(path.read_text(encoding="utf-8"))
        return from_json(WanCheckpoint, values)
    except OSError as error:
        raise CheckpointError(
            f"`{folder}` holds no checkpoint: there is no {CONFIG_NAME}",
            hint="`instantvir convert SRC -o DIR` makes one of published weights",
        ) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"`{path}` is not usable: {error}") from error


def write_config(folder: Path, config: WanCheckpoint) -> None:
    """Write `config` as the config.json of `folder`."""
    text = json.dumps(asdict(config), indent=2) + "\n"
    (folder / CONFIG_NAME).write_text(text, encoding="utf-8")


def from_json(kind: type[T], values: Any) -> T:
    """A dataclass from parsed JSON; nothing is guessed.

    Raises:
        ValueError: if a field is unknown or has another type, or the dataclass refuses a value.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{kind.__name__} is an object, got {values!r}")
    hints = get_type_hints(kind)
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(values.keys() - known):
        raise ValueError(f"{kind.__name__} has no `{', '.join(unknown)}`")
    return kind(**{name: _value(hints[name], value, name) for name, value in values.items()})


def _value(hint: Any, value: Any, name: str) -> Any:
    if get_origin(hint) is types.UnionType:
        if value is None:
            return None
        hint = next(arg for arg in get_args(hint) if arg is not type(None))
    if is_dataclass(hint) and isinstance(hint, type):
        return from_json(hint, value)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint(value)
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_value(get_args(hint)[0], item, name) for item in value)
    if get_origin(hint) is dict and isinstance(value, dict):
        return {str(key): _value(get_args(hint)[1], item, name) for key, item in value.items()}
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise ValueError(f"`{name}` is {value!r}, expected {getattr(hint, '__name__', hint)}")
    return value
