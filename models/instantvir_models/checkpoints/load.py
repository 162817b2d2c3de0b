"""Loading a student: the one embedded in the package, or one from a file."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from instantvir_models.errors import CheckpointError
from instantvir_models.students.tiny import TinyConfig, TinyStudent

EMBEDDED = "tiny"
"""Name of the student inside the package."""

WEIGHTS_FOLDER = Path(__file__).parents[1] / "weights"


@dataclass(frozen=True)
class LoadedStudent:
    """A student ready to use, and what it is."""

    student: TinyStudent
    name: str
    sha256: str
    """Of the safetensors file."""


def load_student(name: str = EMBEDDED) -> LoadedStudent:
    """The student called `name`: `tiny`, or the path of a `.safetensors` file.

    Raises:
        CheckpointError: if there is none, the file is damaged, or it holds something else.
    """
    if name == EMBEDDED:
        path = WEIGHTS_FOLDER / "tiny.safetensors"
        expected = (WEIGHTS_FOLDER / "tiny.sha256").read_text().split()[0]
    else:
        path, expected = Path(name), None
    if not path.is_file():
        raise CheckpointError(
            f"no model called `{name}`",
            hint=f"`--model {EMBEDDED}` is built in; anything else is the path of a .safetensors file",
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if expected is not None and digest != expected:
        raise CheckpointError(
            f"the embedded model is damaged: sha256 is {digest}, expected {expected}",
            hint="install the package again",
        )
    return LoadedStudent(_read(path), name, digest)


def save_student(student: TinyStudent, path: Path, *, dtype: torch.dtype = torch.float16) -> str:
    """Write `student` to `path` in `dtype` with its configuration inside; the sha256 of the file."""
    tensors = {k: v.detach().to(dtype).contiguous() for k, v in student.state_dict().items()}
    metadata = {"format": "instantvir-tiny", "config": json.dumps(asdict(student.config))}
    save_file(tensors, path, metadata=metadata)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(path: Path) -> TinyStudent:
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {key: stored.get_tensor(key).float() for key in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"`{path}` is not a readable safetensors file ({error})", hint="download it again"
        ) from error
    if metadata.get("format") != "instantvir-tiny":
        raise CheckpointError(
            f"`{path}` holds no instantvir student",
            hint="a student's file says `format: instantvir-tiny` in its metadata",
        )
    student = TinyStudent(_config(metadata.get("config", ""), path))
    _check(tensors, student, path)
    student.load_state_dict(tensors)
    student = student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return student.eval().requires_grad_(False)


def _config(text: str, path: Path) -> TinyConfig:
    known = {field.name for field in fields(TinyConfig)}
    try:
        values: dict[str, Any] = json.loads(text)
        unknown = set(values) - known
        if unknown or not all(isinstance(v, int) and 0 < v < 4096 for v in values.values()):
            raise ValueError(f"unexpected {sorted(unknown) or values}")
        return TinyConfig(**values)
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"`{path}` has no usable configuration: {error}") from error


def _check(tensors: dict[str, torch.Tensor], student: TinyStudent, path: Path) -> None:
    expected = student.state_dict()
    missing, extra = expected.keys() - tensors.keys(), tensors.keys() - expected.keys()
    if missing or extra:
        raise CheckpointError(
            f"`{path}` does not fit its configuration: {len(missing)} tensors are missing "
            f"({', '.join(sorted(missing)[:3])}), {len(extra)} are unknown "
            f"({', '.join(sorted(extra)[:3])})"
        )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"`{path}`: `{name}` has shape {tuple(tensor.shape)}, "
                f"expected {tuple(expected[name].shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"`{path}`: `{name}` holds values that are not finite",
                hint="the file is damaged or its training diverged; use another",
            )
