"""A checkpoint folder: config.json, and one network per safetensors file or row of shards."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from instantvir_models.autoencoders.lean import LeanConfig, LeanVAE
from instantvir_models.autoencoders.wan import WanVAE, WanVaeConfig
from instantvir_models.checkpoints.card import write_card
from instantvir_models.checkpoints.config import (
    CONFIG_NAME,
    WanCheckpoint,
    read_config,
    write_config,
)
from instantvir_models.checkpoints.prompt import load_rows, save_rows
from instantvir_models.checkpoints.tensors import (
    check_tensors,
    joined,
    read_tensors,
    sha256_of,
    write_tensors,
)
from instantvir_models.errors import CheckpointError, VideoWriteError
from instantvir_models.outputs.claim import claim
from instantvir_models.students.text import TextRows
from instantvir_models.students.wan.student import WanStudent
from instantvir_models.students.wan.transformer import WanConfig, WanTransformer

SHARD_BYTES = 2_000_000_000
TRANSFORMER, AUTOENCODER = "transformer", "autoencoder"
PROMPT_NAME = "prompt.safetensors"
"""Rows the student attends to unless it is told others."""


def load_folder(
    folder: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[WanStudent, WanCheckpoint]:
    """The student in `folder`, with the prompt that lies there if one does, and its configuration.

    Raises:
        CheckpointError: if a part is missing or damaged, or does not fit the configuration.
    """
    config = read_config(folder)
    if config.transformer is None or config.autoencoder is None:
        part = "student" if config.transformer is None else "autoencoder"
        source = "model.pt" if config.transformer is None else "LeanVAE.ckpt or Wan2.1_VAE.pth"
        raise CheckpointError(
            f"`{folder}` has no {part}", hint=f"add it: `instantvir convert {source} -o {folder}`"
        )
    transformer = _filled(
        WanTransformer, config.transformer, _read(folder, config, TRANSFORMER),
        what=f"the student in `{folder}`", device=device, dtype=dtype,
    )  # fmt: skip
    kind: Callable[[Any], LeanVAE | WanVAE] = LeanVAE if config.lean is not None else WanVAE
    autoencoder = _filled(
        kind, config.autoencoder, _read(folder, config, AUTOENCODER),
        what=f"the autoencoder in `{folder}`", device=device, dtype=dtype,
    )  # fmt: skip
    text = _prompt(folder, config, config.transformer)
    return WanStudent(transformer, autoencoder, config.settings, text), config


def _prompt(folder: Path, config: WanCheckpoint, student: WanConfig) -> TextRows:
    path = folder / PROMPT_NAME
    if PROMPT_NAME in config.sha256 and not path.exists():
        raise CheckpointError(
            f"`{folder}` lacks its {PROMPT_NAME}",
            hint=f"download it again, or do without: `instantvir convert --prompt '' -o {folder}`",
        )
    if path.exists():
        return load_rows(path, text_dim=student.text_dim, text_len=student.text_len)
    return TextRows(torch.empty(1, 0, student.text_dim), student.text_len)


def save_network(
    folder: Path,
    config: WanCheckpoint,
    part: str,
    tensors: dict[str, Tensor],
    *,
    shard_bytes: int = SHARD_BYTES,
) -> WanCheckpoint:
    """Write the tensors of `part` into `folder`, and the configuration with their digests.

    Shards of the part that were there before are removed.

    Raises:
        VideoWriteError: as `written_at_once`.
    """
    return add_network(folder, lambda: config, part, tensors, shard_bytes=shard_bytes)


def add_network(
    folder: Path,
    current_config: Callable[[], WanCheckpoint],
    part: str,
    tensors: dict[str, Tensor],
    *,
    shard_bytes: int = SHARD_BYTES,
) -> WanCheckpoint:
    """As `save_network`, to a folder that others may add to meanwhile.

    Args:
        current_config: called when the tensors are written, which takes minutes.

    Raises:
        VideoWriteError: as `written_at_once`.
    """
    with written_at_once(folder, f"{part}.safetensors") as unfinished:
        digests = write_shards(unfinished, part, tensors, shard_bytes=shard_bytes)
        config = current_config()
        old = files_of(config, part)
        kept = {name: digest for name, digest in config.sha256.items() if name not in old}
        config = replace(config, sha256=kept | digests)
        write_config(unfinished, config)
        write_card(unfinished, config, instead_of=folder)
    for name in old:
        if name not in digests:
            (folder / name).unlink(missing_ok=True)
    return config


def save_prompt(folder: Path, config: WanCheckpoint, rows: Tensor, *, text: str) -> WanCheckpoint:
    """Write rows [1, n, text_dim] as what the student in `folder` attends to unless told otherwise.

    Raises:
        VideoWriteError: as `written_at_once`.
    """
    with written_at_once(folder, PROMPT_NAME) as unfinished:
        save_rows(rows, unfinished / PROMPT_NAME, text=text)
        digest = sha256_of(unfinished / PROMPT_NAME)
        config = replace(config, sha256=config.sha256 | {PROMPT_NAME: digest})
        write_config(unfinished, config)
        write_card(unfinished, config, instead_of=folder)
    return config


@contextmanager
def written_at_once(folder: Path, part: str) -> Iterator[Path]:
    """A folder inside `folder` for the new files of a part, which take their places when all are
    complete; two runs never write one part.

    They take them one after the other, config.json last: if that stops half-way, the old
    configuration is left with digests of the old files, so `info` names those that are new.

    Raises:
        UsageError: if another run writes the part.
        VideoWriteError: if something cannot be written. What is in `folder` has then not changed,
            unless it was one of the new files that could not take its place.
    """
    was_there = os.path.lexists(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with claim(folder / part, may_replace=True) as held:
            yield held.folder
            held.commit(sorted(held.made(), key=lambda path: (path.name == CONFIG_NAME, path.name)))
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise VideoWriteError(
            f"`{folder}` cannot be written: {reason or error}",
            hint="give a folder you may write to, on a disk with room, with `-o`",
        ) from error
    finally:
        if not was_there:
            with suppress(OSError):
                folder.rmdir()


def write_shards(
    folder: Path, stem: str, tensors: dict[str, Tensor], *, shard_bytes: int
) -> dict[str, str]:
    """Write `tensors` as STEM.safetensors, in several files if they are large; digests by name."""
    digests = {}
    shards = _sharded(tensors, shard_bytes)
    for index, shard in enumerate(shards, 1):
        suffix = "" if len(shards) == 1 else f"-{index:05}-of-{len(shards):05}"
        path = folder / f"{stem}{suffix}.safetensors"
        write_tensors(path, _separate(shard), {"format": "pt"})
        digests[path.name] = sha256_of(path)
    return digests


def save_folder(student: WanStudent, folder: Path, config: WanCheckpoint) -> WanCheckpoint:
    """Write a whole student; `config` says what it was trained for."""
    autoencoder = student.autoencoder
    config = replace(
        config,
        settings=student.settings,
        transformer=student.transformer.config,
        lean=autoencoder.config if isinstance(autoencoder, LeanVAE) else None,
        wan_vae=autoencoder.config if isinstance(autoencoder, WanVAE) else None,
    )
    config = save_network(folder, config, TRANSFORMER, student.transformer.state_dict())
    assert isinstance(autoencoder, nn.Module)
    return save_network(folder, config, AUTOENCODER, autoencoder.state_dict())


def files_of(config: WanCheckpoint, part: str) -> list[str]:
    """Names of the files of `part`, in order."""
    return sorted(
        name
        for name in config.sha256
        if name == f"{part}.safetensors" or name.startswith(f"{part}-")
    )


def damaged_files(folder: Path, sha256: Mapping[str, str]) -> list[str]:
    """Names of the weight files that are missing or differ from their digest."""
    return [
        name
        for name, digest in sha256.items()
        if not (folder / name).is_file() or sha256_of(folder / name) != digest
    ]


def _read(folder: Path, config: WanCheckpoint, part: str) -> dict[str, Tensor]:
    return joined((name, read_tensors(folder / name)[0]) for name in files_of(config, part))


NetworkT = TypeVar("NetworkT", bound=nn.Module)


def _filled(
    kind: Callable[[Any], NetworkT],
    config: object,
    tensors: dict[str, Tensor],
    *,
    what: str,
    device: torch.device | str,
    dtype: torch.dtype,
) -> NetworkT:
    """The network with these weights, made without a second copy of them."""
    least = least_tensors(config)
    if len(tensors) < least:  # thousands of layers take minutes and gigabytes, even without weights
        raise CheckpointError(
            f"{what} does not fit its configuration: {len(tensors)} tensors are there, and its layers "
            f"have at least {least}"
        )
    with torch.device("meta"):
        network = kind(config)
    check_tensors(tensors, network.state_dict(), what)
    placed = {name: tensor.to(device, dtype) for name, tensor in tensors.items()}
    network.load_state_dict(placed, assign=True)
    return network.eval().requires_grad_(False)


def least_tensors(config: object) -> int:
    """How many tensors a network of that configuration has at least: one for each layer."""
    if isinstance(config, WanConfig):
        return config.num_layers
    if isinstance(config, LeanConfig):
        ista = 2 * config.ista_steps * config.ista_layers
        return 2 * config.separate_layers + config.fusion_layers + ista
    if isinstance(config, WanVaeConfig):
        return len(config.level_multiples) * config.residuals_per_level
    return 0


def _separate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, each with memory of its own, as safetensors demands."""
    owners: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        alone = tensor.contiguous()
        storage = alone.untyped_storage()
        is_view = storage.nbytes() != alone.numel() * alone.itemsize
        if is_view or storage.data_ptr() in owners:
            alone = alone.clone()
        owners.add(alone.untyped_storage().data_ptr())
        separate[name] = alone
    return separate


def _sharded(tensors: dict[str, Tensor], shard_bytes: int) -> list[dict[str, Tensor]]:
    """The tensors in their order, cut before a shard grows past `shard_bytes`."""
    shards: list[dict[str, Tensor]] = [{}]
    room = shard_bytes
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if size > room and shards[-1]:
            shards.append({})
            room = shard_bytes
        shards[-1][name] = tensor
        room -= size
    return shards
