"""A checkpoint folder: config.json, and one network per safetensors file or row of shards."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from instantvir_models.autoencoders.lean import LeanVAE
from instantvir_models.autoencoders.tiled import TiledAutoencoder
from instantvir_models.autoencoders.wan import WanVAE
from instantvir_models.checkpoints.config import WanCheckpoint, read_config, write_config
from instantvir_models.checkpoints.tensors import check_tensors, joined, read_tensors, sha256_of
from instantvir_models.errors import CheckpointError
from instantvir_models.students.wan.student import WanStudent
from instantvir_models.students.wan.transformer import TextRows, WanTransformer

SHARD_BYTES = 2_000_000_000
TRANSFORMER, AUTOENCODER = "transformer", "autoencoder"


def load_folder(
    folder: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[WanStudent, WanCheckpoint]:
    """The student in `folder`, without a prompt, and its configuration.

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
    no_text = torch.empty(1, 0, config.transformer.text_dim)
    text = TextRows(no_text, config.transformer.text_len)
    return WanStudent(transformer, autoencoder, config.settings, text), config


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
    """
    folder.mkdir(parents=True, exist_ok=True)
    old = files_of(config, part)
    shards = _sharded(tensors, shard_bytes)
    digests = {name: digest for name, digest in config.sha256.items() if name not in old}
    for index, shard in enumerate(shards, 1):
        suffix = "" if len(shards) == 1 else f"-{index:05}-of-{len(shards):05}"
        path = folder / f"{part}{suffix}.safetensors"
        save_file({k: v.contiguous() for k, v in shard.items()}, path, {"format": "pt"})
        digests[path.name] = sha256_of(path)
    for name in old:
        if name not in digests:
            (folder / name).unlink(missing_ok=True)
    config = replace(config, sha256=digests)
    write_config(folder, config)
    return config


def save_folder(student: WanStudent, folder: Path, config: WanCheckpoint) -> WanCheckpoint:
    """Write a whole student; `config` says what it was trained for."""
    autoencoder = student.autoencoder
    if isinstance(autoencoder, TiledAutoencoder):
        autoencoder = autoencoder.inner
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


def damaged_files(folder: Path, config: WanCheckpoint) -> list[str]:
    """Names of the weight files that are missing or differ from their digest."""
    return [
        name
        for name, digest in config.sha256.items()
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
    with torch.device("meta"):
        network = kind(config)
    check_tensors(tensors, network.state_dict(), what)
    placed = {name: tensor.to(device, dtype) for name, tensor in tensors.items()}
    network.load_state_dict(placed, assign=True)
    return network.eval().requires_grad_(False)


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
