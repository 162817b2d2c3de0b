"""The tensors in other people's files: which files make up one set of weights, and what is in them."""

import json
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from instantvir_models.checkpoints.tensors import LISTED_KEYS, joined, read_tensors
from instantvir_models.errors import CheckpointError

PICKLE_SUFFIXES = {".pt", ".pth", ".ckpt", ".bin"}
WEIGHT_SUFFIXES = {".safetensors", *PICKLE_SUFFIXES}
INDEX_SUFFIX = ".index.json"
LARGEST_INDEX_BYTES = 2**24

SHARD_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)")

OUTER_KEYS = ("generator", "state_dict", "model")
"""Where a training keeps the student's tensors, first match wins."""

AVERAGED_KEY = "generator_ema"


def read_any(source: Path, *, use_average: bool = False) -> dict[str, Tensor]:
    """The tensors in `source`: a safetensors file, a pickle, or all shards of either.

    Args:
        source: a file; one shard, or the index of shards, which stands for all of them; or a folder
            with one of these and no other weights.
        use_average: take the moving average of the weights where a pickle holds one.

    Raises:
        CheckpointError: if there is none, a shard is missing, the folder holds several sets of
            weights, or a pickle holds anything but tensors and plain values.
    """
    try:
        files = weight_files(source)
    except OSError as error:
        raise CheckpointError(f"`{source}` cannot be read: {error.strerror or error}") from error
    return joined(
        (path.name, _read_file(path, use_average=use_average)) for path in files
    )  # fmt: skip


def weight_files(source: Path) -> list[Path]:
    """The files, one or the shards in order, that make up the weights `source` names.

    Raises:
        CheckpointError, OSError: likewise.
    """
    if source.is_dir():
        sets = _sets_in(source)
        if not sets:
            raise CheckpointError(f"`{source}` holds no weights", hint="give the file itself")
        if len(sets) > 1:
            some = ", ".join(f"`{path.name}`" for path in sets[:LISTED_KEYS])
            more = ", ..." if len(sets) > LISTED_KEYS else ""
            raise CheckpointError(
                f"`{source}` holds {len(sets)} sets of weights: {some}{more}",
                hint=f"give the one you mean, such as `{sets[0]}`",
            )
        return weight_files(sets[0])
    if not source.is_file():
        raise CheckpointError(f"there is no file `{source}`")
    if source.name.endswith(INDEX_SUFFIX):
        return _complete(source, [source.with_name(name) for name in _indexed(source)])
    if shard := SHARD_NAME.fullmatch(source.name):
        return _complete(source, _row(source, shard))
    return [source]


def _sets_in(folder: Path) -> list[Path]:
    """One file for each set of weights: an index, the first shard of a row, or a whole file."""
    names = sorted(path.name for path in folder.iterdir() if not path.is_dir())
    indices = [folder / name for name in names if name.endswith(INDEX_SUFFIX)]
    indexed = {name for index in indices for name in _indexed(index)}
    sets: dict[str, Path] = {}
    for name in names:
        if Path(name).suffix in WEIGHT_SUFFIXES and name not in indexed:
            shard = SHARD_NAME.fullmatch(name)
            same_set = f"{shard['stem']} {shard['count']} {shard['suffix']}" if shard else name
            sets.setdefault(same_set, folder / name)
    return [*indices, *sets.values()]


def _indexed(index: Path) -> list[str]:
    """Names of the shards that an index lists, sorted."""
    try:
        if index.stat().st_size > LARGEST_INDEX_BYTES:
            raise ValueError("it is too large")
        names = set(json.loads(index.read_bytes())["weight_map"].values())
        if not names or any(not name or Path(name).name != name for name in names):
            raise ValueError("it does not list files beside itself")
        return sorted(names)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"`{index}` is no index of shards: {error}") from error


def _row(first: Path, shard: re.Match[str]) -> list[Path]:
    count = shard["count"]
    numbers = range(1, int(count) + 1)
    return [
        first.with_name(f"{shard['stem']}-{number:05}-of-{count}{shard['suffix']}")
        for number in numbers
    ]


def _complete(source: Path, files: list[Path]) -> list[Path]:
    missing = [f"`{path.name}`" for path in files if not path.is_file()]
    if missing:
        more = ", ..." if len(missing) > LISTED_KEYS else ""
        raise CheckpointError(
            f"`{source}` is one of {len(files)} shards, and {len(missing)} are missing: "
            f"{', '.join(missing[:LISTED_KEYS])}{more}",
            hint="download them into the same folder",
        )
    return files


def _read_file(path: Path, *, use_average: bool) -> dict[str, Tensor]:
    if path.suffix not in PICKLE_SUFFIXES:
        return read_tensors(path)[0]
    tensors = _unwrapped(_read_pickle(path), use_average=use_average)
    for name, tensor in tensors.items():
        is_real = tensor.layout is torch.strided and tensor.device.type == "cpu"
        if not is_real or tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
            raise CheckpointError(
                f"`{path}`: `{name}` has shape {tuple(tensor.shape)}, and the file does not hold "
                "that many values"
            )
    return tensors


def _read_pickle(path: Path) -> Any:
    """What a pickle holds, without running any code in it."""
    try:
        if not path.stat().st_size:
            raise CheckpointError(f"`{path}` is empty", hint="download it again")
        is_archive = zipfile.is_zipfile(path)
        if is_archive:
            _refuse_compressed(path)
        if is_archive and _is_text(str(path)):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        # older files are no archives, and only what has a readable name is mapped into memory
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"`{path}` holds more than tensors, and opening it could run code: refused",
            hint="ask its author for safetensors, or save its state dict alone where you trust it",
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # the bytes decide what fails in the reader
        first_line = (str(error).splitlines() or [""])[0][:120]
        raise CheckpointError(
            f"`{path}` is damaged, or no file of weights ({type(error).__name__}: {first_line})",
            hint="download it again",
        ) from error


def _is_text(name: str) -> bool:
    """Whether a file name is UTF-8, as PyTorch and safetensors want it to open a file by name."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_compressed(path: Path) -> None:
    """PyTorch stores without compression; what is compressed could grow to any size."""
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise CheckpointError(
                f"`{path}` is a compressed archive, which PyTorch does not write: refused",
                hint="unpack it, and give the file with the weights",
            )


def _unwrapped(stored: Any, *, use_average: bool) -> dict[str, Tensor]:
    keys = (AVERAGED_KEY,) if use_average else OUTER_KEYS
    if isinstance(stored, dict):
        for key in keys:
            if isinstance(stored.get(key), dict):
                return _unwrapped_tensors(stored[key])
        if use_average:
            raise CheckpointError(f"the file holds no averaged weights (`{AVERAGED_KEY}`)")
    return _unwrapped_tensors(stored)


def _unwrapped_tensors(stored: Any) -> dict[str, Tensor]:
    tensors = stored if isinstance(stored, dict) else {}
    if not tensors or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in tensors.items()
    ):
        raise CheckpointError(
            "the file holds no dictionary of tensors", hint=f"known outer keys: {OUTER_KEYS}"
        )
    return tensors
