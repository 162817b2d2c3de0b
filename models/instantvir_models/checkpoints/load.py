"""Loading a student by name: embedded, published, from the Hub, from a folder or a file."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from instantvir_models.checkpoints.config import CONFIG_NAME, WanCheckpoint
from instantvir_models.checkpoints.folder import load_folder
from instantvir_models.checkpoints.hub import fetch
from instantvir_models.checkpoints.registry import registry
from instantvir_models.checkpoints.small import WEIGHTS_NAME, SmallCheckpoint, read_any_config
from instantvir_models.checkpoints.tensors import (
    check_tensors,
    read_tensors,
    sha256_of,
    write_tensors,
)
from instantvir_models.errors import CheckpointError
from instantvir_models.students.base import Student
from instantvir_models.students.capabilities import Seen
from instantvir_models.students.embedded import EmbeddedStudent
from instantvir_models.students.fused import SEEN as FUSED_SEEN
from instantvir_models.students.fused import FusedConfig, FusedStudent
from instantvir_models.students.tiny import SEEN, TinyConfig, TinyStudent

EMBEDDED = "tiny"
"""Name of the student inside the package."""

WEIGHTS_FOLDER = Path(__file__).parents[1] / "weights"

MOST_TRAITS = 256
MOST_PARTS = 64
"""Layers, heads, or the side of a window, of an embedded student."""


@dataclass(frozen=True)
class _Kind:
    """What a safetensors file may hold."""

    student: type[Any]
    config: type[Any]
    seen: Seen
    """What weights of that kind were trained on if they do not say it."""


FORMATS = {
    "instantvir-fused": _Kind(FusedStudent, FusedConfig, FUSED_SEEN),
    "instantvir-tiny": _Kind(TinyStudent, TinyConfig, SEEN),
}
"""Embedded students by the format that the metadata of their file names."""

REPO_PATTERN = re.compile(r"(?P<repo>\w[\w.-]*/[\w.-]+)(@(?P<revision>\w[\w./-]*))?")


@dataclass(frozen=True)
class LoadedStudent:
    """A student ready to use, and what it is."""

    student: Student[Any]
    name: str
    sha256: str
    """Of the safetensors file; of config.json, which lists those of its folder, for a folder."""
    checkpoint: WanCheckpoint | None = None
    """What a folder says about itself."""
    revision: str | None = None
    """Commit of a student from the Hub."""


@dataclass(frozen=True)
class Located:
    """Where the weights behind a name are."""

    path: Path
    """A safetensors file or a folder."""
    revision: str | None = None


def load_student(
    name: str = EMBEDDED,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> LoadedStudent:
    """The student called `name`, ready on `device`.

    Args:
        name: `tiny`, a name in the registry, ORG/REPO[@revision] on the Hub, the folder of a
            checkpoint, or a `.safetensors` file of a tiny student.
        dtype: of the weights of a full-size student; a tiny one is always float32.

    Raises:
        CheckpointError: if there is none, it is damaged, or it holds something else.
    """
    located = locate(name)
    if located.path.is_dir():
        if isinstance(read_any_config(located.path), SmallCheckpoint):
            digest = sha256_of(located.path / CONFIG_NAME)
            small = _read(located.path / WEIGHTS_NAME)
            return LoadedStudent(small, name, digest, revision=located.revision)
        student, checkpoint = load_folder(located.path, device=device, dtype=dtype)
        digest = sha256_of(located.path / CONFIG_NAME)
        return LoadedStudent(student, name, digest, checkpoint, located.revision)
    digest = sha256_of(located.path)
    if name == EMBEDDED:
        expected = (WEIGHTS_FOLDER / "tiny.sha256").read_text().split()[0]
        if digest != expected:
            raise CheckpointError(
                f"the embedded model is damaged: sha256 is {digest}, expected {expected}",
                hint="install the package again",
            )
    return LoadedStudent(_read(located.path), name, digest)


def locate(name: str) -> Located:
    """Where the weights behind `name` are; downloads them if they are on the Hub.

    Raises:
        CheckpointError: if nothing is called so, or it cannot be downloaded.
    """
    if name == EMBEDDED:
        return Located(WEIGHTS_FOLDER / "tiny.safetensors")
    published = registry().get(name)
    if published is not None:
        if published.repo is None:
            raise CheckpointError(
                f"`{name}` ({published.about}) has no public weights yet",
                hint=f"with the authors' files: `instantvir convert model.pt -o DIR --task TASK`, "
                f"`instantvir convert {published.autoencoder_source} -o DIR`, then `--model DIR`",
            )
        snapshot = fetch(published.repo, published.revision, config_sha256=published.config_sha256)
        return Located(snapshot.folder, snapshot.commit)
    path = Path(name)
    if _is_there(path):
        return Located(path)
    if match := REPO_PATTERN.fullmatch(name):
        if path.suffix == ".safetensors":
            raise CheckpointError(f"there is no file `{name}`")
        snapshot = fetch(match["repo"], match["revision"])
        return Located(snapshot.folder, snapshot.commit)
    names = ", ".join(f"`{known}`" for known in registry())
    raise CheckpointError(
        f"no model called `{name}`",
        hint=f"`--model {EMBEDDED}` is built in; others are {names}, ORG/REPO[@revision] on the Hub, "
        "a checkpoint folder, or the path of a .safetensors file",
    )


def _is_there(path: Path) -> bool:
    """Whether `path` can be a model; devices and pipes never end and are none."""
    try:
        if path.exists() and not path.is_dir() and not path.is_file():
            raise CheckpointError(f"`{path}` is no file or folder, so it holds no model")
        return path.exists()
    except OSError as error:
        raise CheckpointError(f"`{path}` cannot be read: {error.strerror}") from error


def save_student(
    student: EmbeddedStudent[Any], path: Path, *, dtype: torch.dtype = torch.float16
) -> str:
    """Write `student` to `path` in `dtype` with its configuration inside; the sha256 of the file."""
    tensors = {k: v.detach().to(dtype).contiguous() for k, v in student.state_dict().items()}
    format_name = next(name for name, kind in FORMATS.items() if isinstance(student, kind.student))
    metadata = {
        "format": format_name,
        "config": json.dumps(asdict(student.config)),
        "seen": json.dumps(asdict(student.seen)),
    }
    write_tensors(path, tensors, metadata)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(path: Path) -> Student[Any]:
    stored, metadata = read_tensors(path)
    kind = FORMATS.get(metadata.get("format", ""))
    if kind is None:
        raise CheckpointError(
            f"`{path}` holds no instantvir student",
            hint=f"an embedded student says `format: {next(iter(FORMATS))}` in its metadata; other "
            "people's weights go through `instantvir convert`",
        )
    config = _config(metadata.get("config", ""), path, kind.config)
    seen = _seen(metadata.get("seen"), path, kind.seen)
    with torch.device("meta"):  # what a stranger's configuration asks for costs nothing there
        shapes = kind.student(config, seen=seen).state_dict()
    check_tensors(stored, shapes, f"`{path}`")
    student = kind.student(config, seen=seen)
    student.load_state_dict({name: tensor.float() for name, tensor in stored.items()})
    student = student.to(memory_format=torch.channels_last)
    return student.eval().requires_grad_(False)


def _config(text: str, path: Path, kind: type[Any]) -> Any:
    usual = kind()
    least = {name: min(1, value) for name, value in asdict(usual).items() if name != "traits"}
    try:
        values: dict[str, Any] = json.loads(text)
        traits = tuple(values.pop("traits", usual.traits))
        if not all(
            isinstance(v, int) and least.get(k, 4096) <= v < _bound(k) for k, v in values.items()
        ):
            raise ValueError(f"unexpected {values}")
        if len(traits) >= MOST_TRAITS or not all(isinstance(t, str) for t in traits):
            raise ValueError(f"unexpected traits {traits}")
        return kind(**values, traits=traits)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"`{path}` has no usable configuration: {error}") from error


def _bound(name: str) -> int:
    """What a number of a configuration is below: layers, heads and windows are made one by one."""
    is_count = name.endswith("layers") or name in ("num_heads", "window")
    return MOST_PARTS if is_count else 4096


def _seen(text: str | None, path: Path, usual: Seen) -> Seen:
    """What the student in `path` was trained on; weights that do not say it saw the `usual`."""
    if text is None:
        return usual
    try:
        values: dict[str, Any] = json.loads(text)
        return Seen(
            operators=tuple(
                {name: _range(bounds) for name, bounds in ranges.items()}
                for ranges in values["operators"]
            ),
            noise_levels=_range(values["noise_levels"]),
        )
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise CheckpointError(
            f"`{path}` does not say properly what it was trained on: {error}"
        ) from error


def _range(bounds: Any) -> tuple[float, float]:
    low, high = bounds
    return float(low), float(high)
