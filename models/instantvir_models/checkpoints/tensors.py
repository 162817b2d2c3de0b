"""Safetensors files read with care: they may come from anywhere."""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from instantvir_models.errors import CheckpointError

LARGEST_HEADER_BYTES = 16 * 2**20
"""A header lists names and shapes: 825 tensors take 0.1 MB."""

LISTED_KEYS = 5
"""Keys named in a message."""

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors by name, metadata) of a safetensors file, memory-mapped.

    Raises:
        CheckpointError: if the file is missing, cut short, no safetensors file, or has a header
            too large to be one of a network.
    """
    check_header(path)
    try:
        with safe_open(path, framework="pt") as stored:
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
            return tensors, stored.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, str(error)) from error


def write_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file that the same people may read as any other new file.

    Raises:
        OSError: if the disk does not take it.
        SafetensorError: if the tensors cannot be kept in such a file.
    """
    path.touch()
    mode = path.stat().st_mode  # of a new file; save_file keeps its own from others
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        if (system_error := _of_the_system(error)) is not None:
            raise system_error from error
        raise
    path.chmod(mode)


def _of_the_system(error: SafetensorError) -> OSError | None:
    """What the system said, where a library in another language hides it in its words."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return None if found is None else OSError(int(found[1]), os.strerror(int(found[1])))


def joined(parts: Iterable[tuple[str, dict[str, Tensor]]]) -> dict[str, Tensor]:
    """The tensors of all `parts`, (name of the file, its tensors) each.

    Raises:
        CheckpointError: if two files hold a tensor of the same name: they are no shards.
    """
    tensors: dict[str, Tensor] = {}
    for name, part in parts:
        if twice := tensors.keys() & part.keys():
            raise CheckpointError(
                f"`{name}` holds {len(twice)} tensors that another file holds too{_listed(twice)}",
                hint="the shards are not of one set of weights; download or convert them again",
            )
        tensors |= part
    return tensors


def check_header(path: Path) -> None:
    """Refuse a file that cannot be a safetensors file before anything large is allocated.

    Raises:
        CheckpointError: likewise.
    """
    try:
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    if size < 8 or header_bytes > size - 8:
        raise _unreadable(path, f"it ends after {size} bytes, within its header")
    if header_bytes > LARGEST_HEADER_BYTES:
        raise _unreadable(path, f"its header claims {header_bytes / 2**20:.0f} MiB")


def check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str) -> None:
    """Refuse tensors that are not exactly those of `expected` in name, shape and kind.

    Raises:
        CheckpointError: naming what is missing, unknown, of another shape, of a type that is no
            floating point, or not finite.
    """
    missing, extra = expected.keys() - tensors.keys(), tensors.keys() - expected.keys()
    if missing or extra:
        raise CheckpointError(
            f"{what} does not fit its configuration: {len(missing)} tensors are missing"
            f"{_listed(missing)}, {len(extra)} are unknown{_listed(extra)}"
        )
    wrong = [
        f"`{name}` has shape {tuple(tensors[name].shape)}, expected {tuple(wanted.shape)}"
        for name, wanted in expected.items()
        if tensors[name].shape != wanted.shape
    ]
    if wrong:
        raise CheckpointError(f"{what}: {'; '.join(wrong[:LISTED_KEYS])}")
    for name, tensor in tensors.items():
        if tensor.dtype not in _FLOATS:
            raise CheckpointError(
                f"{what}: `{name}` is stored as {tensor.dtype}, expected a floating point type",
                hint="quantised checkpoints are not supported; use the original weights",
            )
        if not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"{what}: `{name}` holds values that are not finite",
                hint="the file is damaged or its training diverged; use another",
            )


def sha256_of(path: Path) -> str:
    """Hexadecimal digest of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listed(keys: Iterable[str]) -> str:
    names = sorted(keys)
    if not names:
        return ""
    more = ", ..." if len(names) > LISTED_KEYS else ""
    return f" ({', '.join(names[:LISTED_KEYS])}{more})"


def _unreadable(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"`{path}` is not a readable safetensors file: {why}", hint="download or convert it again"
    )
