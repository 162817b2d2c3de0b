"""config.json of a checkpoint folder: what the networks are, and how they are to be run."""

import json
import math
import re
import types
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from instantvir_models.autoencoders.lean import LeanConfig
from instantvir_models.autoencoders.wan import WanVaeConfig
from instantvir_models.errors import CheckpointError
from instantvir_models.students.wan.settings import WanSettings
from instantvir_models.students.wan.transformer import WanConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FORMAT = "instantvir-wan"
FORMAT_VERSION = 1
CONFIG_NAME = "config.json"
LARGEST_CONFIG_BYTES = 2**20

BOUNDS: dict[str, tuple[float, float]] = {
    # how it is run
    "timestep": (0, 1000), "shift": (0.01, 1000), "latents_per_block": (1, 64),
    "window_latents": (1, 512), "sink_latents": (0, 512), "estimate_std": (1e-6, 2),
    # the transformer
    "dim": (2, 2**14), "ffn_dim": (1, 2**16), "num_heads": (1, 2**10), "num_layers": (1, 2**8),
    "text_dim": (1, 2**14), "text_len": (1, 2**13), "freq_dim": (2, 2**12), "eps": (1e-12, 0.01),
    # the autoencoders
    "latent_channels": (1, 2**10), "low_channels": (1, 2**12), "high_channels": (1, 2**12),
    "separate_layers": (0, 64), "fusion_layers": (0, 64), "ista_steps": (1, 64),
    "ista_layers": (0, 64), "base_channels": (1, 2**11), "level_multiples": (1, 64),
    "residuals_per_level": (1, 64),
    # the text encoder
    "vocab_size": (1, 2**20), "attention_dim": (1, 2**14), "num_buckets": (2, 2**10),
}  # fmt: skip
"""Least and most of each number, by field: far beyond any student, and still harmless to build."""

FILE_NAME = re.compile(r"[\w-][\w.-]*\.safetensors")
"""Of a weight file; it lies in the folder itself."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class WanCheckpoint:
    """What a folder holds. A part that is None has not been converted yet."""

    format: str = FORMAT
    format_version: int = FORMAT_VERSION
    task: str | None = None
    """The one task the student was trained for, by its name in `tasks.TASKS`; None if unknown."""
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
        student, autoencoder = self.transformer, self.autoencoder
        if student and autoencoder and student.latent_channels != autoencoder.latent_channels:
            raise ValueError(
                f"the student restores latents of {student.latent_channels} channels, "
                f"the autoencoder makes {autoencoder.latent_channels}: they do not belong together"
            )
        for name in self.sha256:
            if not FILE_NAME.fullmatch(name):
                raise ValueError(f"`{name}` is no weight file (NAME.safetensors in the folder)")


def read_config(folder: Path) -> WanCheckpoint:
    """The configuration of the checkpoint in `folder`.

    Raises:
        CheckpointError: if there is none or it says something this program does not understand.
    """
    path = folder / CONFIG_NAME
    values = read_object(path, folder)
    try:
        return from_json(WanCheckpoint, values)
    except (ValueError, TypeError, RecursionError) as error:
        raise _unusable(path, error) from error


def read_object(path: Path, folder: Path) -> dict[str, Any]:
    """What the config.json of `folder` says, if it is one of ours.

    Raises:
        CheckpointError: likewise.
    """
    try:
        if path.stat().st_size > LARGEST_CONFIG_BYTES:
            raise ValueError("it is larger than a megabyte")
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError(f"a configuration is an object, got {_short(values)}")
        if "format" not in values:
            raise ValueError("it does not say `format`, so it is not a configuration of instantvir")
        return values
    except PermissionError as error:
        raise CheckpointError(f"`{path}` cannot be read: {error.strerror}") from error
    except OSError as error:
        raise CheckpointError(
            f"`{folder}` holds no checkpoint: there is no {CONFIG_NAME}",
            hint="`instantvir convert SRC -o DIR` makes one of published weights",
        ) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> CheckpointError:
    made = path.parent / "student.safetensors"
    if made.is_file():  # the folder of a run of training
        return CheckpointError(
            f"`{path}` is not usable: {error}",
            hint=f"of a run it is `{made}`; `instantvir export {path.parent} -o DIR` makes a folder of it",
        )
    return CheckpointError(
        f"`{path}` is not usable: {error}",
        hint="`instantvir convert SRC -o DIR` writes one into a folder of its own",
    )


def write_config(folder: Path, config: "DataclassInstance") -> None:
    """Write `config` as the config.json of `folder`."""
    text = json.dumps(asdict(config), indent=2) + "\n"
    (folder / CONFIG_NAME).write_text(text, encoding="utf-8")


def from_json(kind: type[T], values: Any) -> T:
    """A dataclass from parsed JSON; nothing is guessed.

    Raises:
        ValueError: if a field is unknown, has another type or is out of bounds, or the dataclass
            refuses a value.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{kind.__name__} is an object, got {_short(values)}")
    hints = get_type_hints(kind)
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(values.keys() - known):
        raise ValueError(f"{kind.__name__} has no `{_short(', '.join(unknown))[1:-1]}`")
    return kind(**{name: _value(hints[name], value, name) for name, value in values.items()})


def printable(text: str) -> str:
    """`text` with a question mark for each letter that cannot be printed or could steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


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
    if type(value) is not hint and not (hint is float and type(value) is int):
        raise ValueError(f"`{name}` is {_short(value)}, expected {getattr(hint, '__name__', hint)}")
    if hint is str and not value.isprintable():
        raise ValueError(f"`{name}` is {_short(value)}, which cannot be printed")
    if hint in (int, float):
        least, most = BOUNDS.get(name, (-math.inf, math.inf))
        if not least <= value <= most:  # NaN, too
            raise ValueError(f"`{name}` is {_short(value)}, it is from {least:g} to {most:g}")
        return hint(value)
    return value


def _short(value: Any) -> str:
    """`value` as Python writes it, cut to what fits a message."""
    text = repr(value) if type(value) is not int or abs(value) < 10**30 else "a huge number"
    return text if len(text) <= 80 else f"{text[:80]}..."
