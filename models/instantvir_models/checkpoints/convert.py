"""Other people's checkpoints to ours: recognise the layout by its keys, check every tensor.

Known layouts: the `model.pt` of InstantViR, CausVid and Self-Forcing trainings, Wan2.1's own and
diffusers' files of transformer and autoencoder, LeanVAE's `.ckpt`, Wan2.1's umT5 text encoder, bare
dictionaries of any of them, as pickle or safetensors, whole or in shards.
"""

import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from instantvir_models.autoencoders.lean import LeanConfig, LeanVAE
from instantvir_models.autoencoders.wan import WanVAE, WanVaeConfig
from instantvir_models.checkpoints.config import (
    CONFIG_NAME,
    LARGEST_CONFIG_BYTES,
    WanCheckpoint,
    from_json,
    printable,
    read_config,
)
from instantvir_models.checkpoints.folder import AUTOENCODER, TRANSFORMER, add_network, files_of
from instantvir_models.checkpoints.names import transformer_to_diffusers, wan_vae_to_diffusers
from instantvir_models.checkpoints.source import read_any
from instantvir_models.checkpoints.tensors import check_tensors
from instantvir_models.checkpoints.text_encoder import (
    TextEncoderConfig,
    save_text_encoder,
    text_encoder_tensors,
    text_encoder_to_transformers,
)
from instantvir_models.errors import CheckpointError
from instantvir_models.outputs.rule import refuse
from instantvir_models.students.wan.transformer import WanConfig, WanTransformer

WRAPPER_PREFIXES = (
    "module.", "_fsdp_wrapped_module.", "_orig_mod.", "_checkpoint_wrapped_module.",
    "model.", "autoencoder.", "vae.",
)  # fmt: skip
"""Left in key names by wrappers; taken off as often as they occur."""

TRAINING_ONLY = re.compile(r"^std_layer\.")
"""LeanVAE's tensors that inference does not use."""

PUBLISHED_HEAD_DIM = 128


@dataclass(frozen=True)
class Recognised:
    """A network found in a file."""

    layout: str
    """For people, such as `Wan transformer, diffusers names`."""
    config: WanConfig | LeanConfig | WanVaeConfig | TextEncoderConfig
    tensors: dict[str, Tensor]
    """Under the official names."""
    dropped: tuple[str, ...] = ()
    """Names of tensors that only training uses."""


def convert(
    source: Path,
    folder: Path,
    *,
    task: str | None = None,
    operators: str | None = None,
    use_average: bool = False,
    dtype: torch.dtype | None = None,
) -> tuple[Recognised, WanCheckpoint | None]:
    """Add the network in `source` to the checkpoint in `folder`, which is made if need be.

    A text encoder is no part of a checkpoint: it gets `folder` for itself, and there is none.

    Args:
        source: as `read_any` takes it.
        task: what the student was trained for, kept in the configuration.
        operators: which degradations it saw, for people.
        use_average: take the moving average of the weights where the file holds one.
        dtype: of the stored tensors; None keeps each as it is.

    Raises:
        CheckpointError: if the file is damaged, unsafe, of no known layout, does not fit it, or holds
            values beyond `dtype`.
        VideoWriteError: if the folder cannot be written.
    """
    found = found_in(source, use_average=use_average)
    return found, save_found(
        found, folder, source=source, task=task, operators=operators, dtype=dtype
    )


def found_in(source: Path, *, use_average: bool = False) -> Recognised:
    """The network in `source`, as `read_any` takes it.

    Raises:
        CheckpointError: if the file is damaged, unsafe or of no known layout.
    """
    return recognise(read_any(source, use_average=use_average), num_heads=_noted_heads(source))


def save_found(
    found: Recognised,
    folder: Path,
    *,
    source: Path,
    task: str | None = None,
    operators: str | None = None,
    dtype: torch.dtype | None = None,
    may_replace: bool = True,
) -> WanCheckpoint | None:
    """The checkpoint in `folder` with a network that was found in `source`, as `convert` adds it.

    Args:
        may_replace: whether it takes the place of a network of its kind that is there.

    Raises:
        UsageError: if there is one, and it may not be replaced.
        CheckpointError: if it does not fit the folder, or `dtype` cannot hold its values.
        VideoWriteError: if the folder cannot be written.
    """
    tensors = found.tensors if dtype is None else _cast(found.tensors, dtype)
    if isinstance(found.config, TextEncoderConfig):
        save_text_encoder(folder, found.config, tensors, source=source, may_replace=may_replace)
        return None

    def config_with_it() -> WanCheckpoint:
        config = read_config(folder) if os.path.lexists(folder / CONFIG_NAME) else WanCheckpoint()
        names = [config.source, f"{source.name} ({found.layout})"]
        config = replace(
            config,
            task=task or config.task,
            operators=printable(operators or config.operators),
            source=printable("; ".join(filter(None, names))),
        )
        try:
            match found.config:
                case WanConfig():
                    return replace(config, transformer=found.config)
                case LeanConfig():
                    return replace(config, lean=found.config, wan_vae=None)
                case WanVaeConfig():
                    return replace(config, wan_vae=found.config, lean=None)
                case _:
                    return config
        except ValueError as error:
            raise CheckpointError(f"`{source}` does not fit `{folder}`: {error}") from error

    part = TRANSFORMER if isinstance(found.config, WanConfig) else AUTOENCODER
    for name in (*files_of(config_with_it(), part), f"{part}.safetensors"):
        refuse(folder / name, may_replace=may_replace)
    return add_network(folder, config_with_it, part, tensors)


def _cast(tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    cast = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    for name, tensor in cast.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"`{name}` holds values beyond the range of {str(dtype).removeprefix('torch.')}",
                hint="use `--dtype bfloat16`, or keep the type the file has",
            )
    return cast


def recognise(tensors: dict[str, Tensor], *, num_heads: int | None = None) -> Recognised:
    """The network that `tensors` are, by their names and shapes, under official names.

    Args:
        num_heads: of a Wan transformer whose heads are not 128 wide; shapes do not tell.

    Raises:
        CheckpointError: if they are none of the known layouts, or not exactly its tensors.
    """
    tensors = {_stripped(name): tensor for name, tensor in tensors.items()}
    dropped = tuple(sorted(name for name in tensors if TRAINING_ONLY.match(name)))
    tensors = {name: tensor for name, tensor in tensors.items() if name not in dropped}
    if "latent_bottleneck.phi" in tensors:
        return _checked("LeanVAE", LeanVAE, _lean_config(tensors), tensors, dropped)
    if "encoder.conv1.weight" in tensors and "conv2.weight" in tensors:
        config = _wan_vae_config(tensors, "encoder.conv1.weight", "conv2.weight")
        return _checked("Wan autoencoder, official names", WanVAE, config, tensors)
    if "encoder.conv_in.weight" in tensors and "post_quant_conv.weight" in tensors:
        config = _wan_vae_config(tensors, "encoder.conv_in.weight", "post_quant_conv.weight")
        official = _renamed(tensors, _meta(WanVAE, config), wan_vae_to_diffusers)
        return _checked("Wan autoencoder, diffusers names", WanVAE, config, official)
    if "patch_embedding.weight" in tensors:
        is_foreign = "condition_embedder.time_proj.weight" in tensors
        transformer_config = _transformer_config(tensors, num_heads, is_foreign=is_foreign)
        layout = f"Wan transformer, {'diffusers' if is_foreign else 'official'} names"
        if is_foreign:
            network = _meta(WanTransformer, transformer_config)
            tensors = _renamed(tensors, network, transformer_to_diffusers)
        return _checked(layout, WanTransformer, transformer_config, tensors)
    if "blocks.0.attn.q.weight" in tensors and "token_embedding.weight" in tensors:
        return _text_encoder("official", tensors)
    if "encoder.block.0.layer.0.SelfAttention.q.weight" in tensors:
        return _text_encoder("transformers", tensors)
    some = ", ".join(sorted(tensors)[:5])
    raise CheckpointError(
        f"these {len(tensors)} tensors are no network known here (such as {some})",
        hint="known are Wan2.1's transformer, autoencoder and text encoder (umT5), and LeanVAE",
    )


def _stripped(name: str) -> str:
    while True:
        for prefix in WRAPPER_PREFIXES:
            if name.startswith(prefix):
                name = name.removeprefix(prefix)
                break
        else:
            return re.sub(
                r"(_fsdp_wrapped_module|_checkpoint_wrapped_module|_orig_mod)\.", "", name
            )


def _checked(
    layout: str,
    kind: type[nn.Module],
    config: WanConfig | LeanConfig | WanVaeConfig,
    tensors: dict[str, Tensor],
    dropped: tuple[str, ...] = (),
) -> Recognised:
    return _exactly(layout, _meta(kind, config), config, tensors, dropped)


def _exactly(
    layout: str,
    expected: dict[str, Tensor],
    config: WanConfig | LeanConfig | WanVaeConfig | TextEncoderConfig,
    tensors: dict[str, Tensor],
    dropped: tuple[str, ...] = (),
) -> Recognised:
    check_tensors(tensors, expected, f"this {layout}")
    return Recognised(layout, config, {name: tensors[name] for name in expected}, dropped)


def _text_encoder(names: str, tensors: dict[str, Tensor]) -> Recognised:
    """umT5; transformers' files may hold the embedding under a second name."""
    if "encoder.embed_tokens.weight" in tensors:
        embedding = tensors.pop("encoder.embed_tokens.weight")
        tensors.setdefault("shared.weight", embedding)
    foreign = names == "transformers"
    rename = text_encoder_to_transformers if foreign else str

    def shape(name: str) -> torch.Size:
        return _shape(tensors, rename(f"{name}.weight"))

    vocab_size, text_dim = shape("token_embedding")
    num_buckets, num_heads = shape("blocks.0.pos_embedding.embedding")
    config = _measured(
        TextEncoderConfig,
        vocab_size=vocab_size,
        text_dim=text_dim,
        attention_dim=shape("blocks.0.attn.q")[0],
        ffn_dim=shape("blocks.0.ffn.fc1")[0],
        num_heads=num_heads,
        num_layers=_count(tensors, r"(?:encoder\.block|blocks)\.(\d+)\."),
        num_buckets=num_buckets,
    )
    expected = text_encoder_tensors(config)
    official = _renamed(tensors, expected, text_encoder_to_transformers) if foreign else tensors
    return _exactly(f"umT5 text encoder, {names} names", expected, config, official)


def _meta(kind: type[nn.Module], config: object) -> dict[str, Tensor]:
    """The tensors of a network by name, without memory."""
    with torch.device("meta"):
        return kind(config).state_dict()


def _renamed(
    tensors: dict[str, Tensor], expected: Iterable[str], to_foreign: Callable[[str], str]
) -> dict[str, Tensor]:
    """Tensors under our names; what has none keeps its own and is reported as unknown later."""
    ours = {to_foreign(name): name for name in expected}
    return {ours.get(name, name): tensor for name, tensor in tensors.items()}


def _shape(tensors: dict[str, Tensor], name: str) -> torch.Size:
    """Of a tensor with two axes or more."""
    if name not in tensors:
        raise CheckpointError(f"the tensor `{name}` is missing, so the file is incomplete")
    shape = tensors[name].shape
    if len(shape) < 2:
        raise CheckpointError(f"`{name}` has shape {tuple(shape)}: the file is damaged")
    return shape


def _count(tensors: dict[str, Tensor], pattern: str) -> int:
    """Largest number that `pattern` captures in a name, plus one."""
    found = (re.match(pattern, name) for name in tensors)
    return max((int(match[1]) for match in found if match), default=-1) + 1


def _transformer_config(
    tensors: dict[str, Tensor], num_heads: int | None, *, is_foreign: bool
) -> WanConfig:
    if is_foreign:
        ffn, text, time = (
            "blocks.0.ffn.net.0.proj.weight",
            "condition_embedder.text_embedder.linear_1.weight",
            "condition_embedder.time_embedder.linear_1.weight",
        )
    else:
        ffn, text, time = (
            "blocks.0.ffn.0.weight",
            "text_embedding.0.weight",
            "time_embedding.0.weight",
        )
    dim, channels = _shape(tensors, "patch_embedding.weight")[:2]
    if num_heads is None and dim % PUBLISHED_HEAD_DIM:
        raise CheckpointError(
            f"a transformer of width {dim} does not have heads of {PUBLISHED_HEAD_DIM} channels",
            hint="put its config.json beside the weights; it names the number of heads",
        )
    return _measured(
        WanConfig,
        dim=dim,
        ffn_dim=_shape(tensors, ffn)[0],
        num_heads=num_heads or dim // PUBLISHED_HEAD_DIM,
        num_layers=_count(tensors, r"blocks\.(\d+)\."),
        latent_channels=channels,
        text_dim=_shape(tensors, text)[1],
        freq_dim=_shape(tensors, time)[1],
    )


def _lean_config(tensors: dict[str, Tensor]) -> LeanConfig:
    return _measured(
        LeanConfig,
        latent_channels=_shape(tensors, "latent_bottleneck.phi")[0],
        low_channels=_shape(tensors, "encoder.video_low_proj.1.weight")[0],
        high_channels=_shape(tensors, "encoder.video_high_proj.1.weight")[0],
        separate_layers=_count(tensors, r"encoder\.low_layer\.dconv_layer\.(\d+)\."),
        fusion_layers=_count(tensors, r"encoder\.fusion_layer\.dconv_layer\.(\d+)\."),
        ista_steps=_count(tensors, r"latent_bottleneck\.forward_l\.(\d+)\."),
        ista_layers=_count(tensors, r"latent_bottleneck\.forward_l\.0\.dconv_layer\.(\d+)\."),
    )


def _wan_vae_config(tensors: dict[str, Tensor], first: str, last: str) -> WanVaeConfig:
    return _measured(
        WanVaeConfig,
        base_channels=_shape(tensors, first)[0],
        latent_channels=_shape(tensors, last)[0],
    )


ConfigT = TypeVar("ConfigT")


def _measured(kind: type[ConfigT], **sizes: int) -> ConfigT:
    """A configuration from sizes that were read off a file, which may say anything."""
    try:
        return from_json(kind, sizes)
    except ValueError as error:
        raise CheckpointError(f"these weights are of no usable size: {error}") from error


def _noted_heads(source: Path) -> int | None:
    """The number of heads that a config.json beside the weights names, Wan's or diffusers'."""
    try:
        path = (source if source.is_dir() else source.parent) / CONFIG_NAME
        if path.stat().st_size > LARGEST_CONFIG_BYTES:
            return None
        noted = json.loads(path.read_text(encoding="utf-8"))
        heads = noted.get("num_attention_heads") or noted.get("num_heads")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return heads if type(heads) is int else None
