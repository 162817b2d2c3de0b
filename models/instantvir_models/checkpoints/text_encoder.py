"""umT5, the text encoder of Wan2.1: from its own file to the folder that `transformers` loads.

Published as `models_t5_umt5-xxl-enc-bf16.pth`. It is no part of a checkpoint: one serves all students.
"""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from instantvir_models.checkpoints.config import CONFIG_NAME
from instantvir_models.checkpoints.folder import SHARD_BYTES, write_shards, written_at_once
from instantvir_models.checkpoints.tensors import read_tensors
from instantvir_models.errors import CheckpointError
from instantvir_models.outputs.rule import refuse

STEM = "model"
FILE_NAME = re.compile(rf"{STEM}(-\d{{5}}-of-\d{{5}})?\.safetensors(\.index\.json)?")
"""Of the files that transformers would load as one encoder."""

TOKENIZER_FILES = (
    "spiece.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
)  # fmt: skip
TOKENIZER_FOLDER = Path("google", "umt5-xxl")
"""Where Wan2.1 keeps the tokenizer, beside the weights."""

LARGEST_DISTANCE = 128
"""Beyond which two words have one relative position; shapes do not tell."""

_RULES = (
    (r"^token_embedding\.", "shared."),
    (r"^norm\.", "encoder.final_layer_norm."),
    (r"^blocks\.", "encoder.block."),
    (r"\.norm1\.", ".layer.0.layer_norm."),
    (r"\.attn\.([qkvo])\.", r".layer.0.SelfAttention.\1."),
    (r"\.pos_embedding\.embedding\.", ".layer.0.SelfAttention.relative_attention_bias."),
    (r"\.norm2\.", ".layer.1.layer_norm."),
    (r"\.ffn\.gate\.0\.", ".layer.1.DenseReluDense.wi_0."),
    (r"\.ffn\.fc1\.", ".layer.1.DenseReluDense.wi_1."),
    (r"\.ffn\.fc2\.", ".layer.1.DenseReluDense.wo."),
)


@dataclass(frozen=True, kw_only=True)
class TextEncoderConfig:
    """Size of a umT5 encoder; the defaults are umT5-xxl."""

    vocab_size: int = 256_384
    text_dim: int = 4096
    attention_dim: int = 4096
    """Of all heads together."""
    ffn_dim: int = 10_240
    num_heads: int = 64
    num_layers: int = 24
    num_buckets: int = 32
    """Relative positions told apart."""

    def __post_init__(self) -> None:
        if self.attention_dim % self.num_heads:
            raise ValueError(f"{self.num_heads} heads do not divide {self.attention_dim} channels")


def text_encoder_to_transformers(name: str) -> str:
    """transformers' name, in `UMT5EncoderModel`, of a tensor of Wan's text encoder."""
    for pattern, replacement in _RULES:
        name = re.sub(pattern, replacement, name)
    return name


def text_encoder_tensors(config: TextEncoderConfig) -> dict[str, Tensor]:
    """Every tensor of an encoder of this size under its official name, on the meta device."""
    model, inner, hidden = config.text_dim, config.attention_dim, config.ffn_dim
    layer = {
        "norm1": (model,), "attn.q": (inner, model), "attn.k": (inner, model),
        "attn.v": (inner, model), "attn.o": (model, inner), "norm2": (model,),
        "ffn.gate.0": (hidden, model), "ffn.fc1": (hidden, model), "ffn.fc2": (model, hidden),
        "pos_embedding.embedding": (config.num_buckets, config.num_heads),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {"token_embedding": (config.vocab_size, model)}
    for index in range(config.num_layers):
        shapes |= {f"blocks.{index}.{name}": shape for name, shape in layer.items()}
    shapes["norm"] = (model,)
    return {
        f"{name}.weight": torch.empty(shape, device="meta") for name, shape in shapes.items()
    }  # fmt: skip


def save_text_encoder(
    folder: Path,
    config: TextEncoderConfig,
    tensors: dict[str, Tensor],
    *,
    source: Path,
    may_replace: bool = True,
) -> None:
    """Write a folder for `UMT5EncoderModel.from_pretrained`, with the tokenizer if it is found.

    Args:
        tensors: under official names.
        source: where the weights come from; the tokenizer is looked for beside it, as in Wan2.1.
        may_replace: whether a text encoder that is there is replaced.

    Raises:
        UsageError: if one is there, and may not be replaced.
        CheckpointError: if `folder` holds something else, or `source` itself would be replaced.
        VideoWriteError: if it cannot be written.
    """
    _refuse_other_folder(folder)
    _refuse_to_replace(source, folder)
    named = {text_encoder_to_transformers(name): tensor for name, tensor in tensors.items()}
    stale = _encoder_files(folder)
    for path in stale:
        refuse(path, may_replace=may_replace)
    with written_at_once(folder, f"{STEM}.safetensors") as unfinished:
        names = list(write_shards(unfinished, STEM, named, shard_bytes=SHARD_BYTES))
        if len(names) > 1:
            _write_index(unfinished, names)
        settings = _settings(config, next(iter(tensors.values())).dtype)
        (unfinished / CONFIG_NAME).write_text(json.dumps(settings, indent=2) + "\n")
        for path in _tokenizer_near(source):
            shutil.copyfile(path, unfinished / path.name)
        written = {path.name for path in unfinished.iterdir()}
    for path in stale:
        if path.name not in written:
            path.unlink(missing_ok=True)


def has_tokenizer(folder: Path) -> bool:
    """Whether words can be cut into tokens with what lies in `folder`."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES[:2])


def _encoder_files(folder: Path) -> list[Path]:
    found = folder.glob(f"{STEM}*")
    return [path for path in found if FILE_NAME.fullmatch(path.name) and path.is_file()]


def _refuse_other_folder(folder: Path) -> None:
    path = folder / CONFIG_NAME
    try:
        is_ours = (
            json.loads(path.read_bytes()).get("model_type") == "umt5"
            if path.exists()
            else not _encoder_files(folder)
        )
    except (OSError, ValueError, AttributeError, RecursionError):
        is_ours = False
    if not is_ours:
        raise CheckpointError(
            f"`{folder}` holds something else than a text encoder",
            hint="one text encoder serves all students: give it a folder of its own",
        )


def _refuse_to_replace(source: Path, folder: Path) -> None:
    own = _encoder_files(folder)
    if own and any(source.exists() and path.samefile(source) for path in (folder, *own)):
        raise CheckpointError(
            f"`{source}` would be replaced by what is made of it",
            hint="give another folder with `-o`",
        )


def _tokenizer_near(source: Path) -> list[Path]:
    beside = source if source.is_dir() else source.parent
    for place in (beside, beside / TOKENIZER_FOLDER):
        found = [place / name for name in TOKENIZER_FILES if (place / name).is_file()]
        if found:
            return found
    return []


def _write_index(folder: Path, names: list[str]) -> None:
    shards = {name: read_tensors(folder / name)[0] for name in names}
    weight_map = {key: name for name, shard in shards.items() for key in shard}
    size = sum(tensor.nbytes for shard in shards.values() for tensor in shard.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / f"{STEM}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _settings(config: TextEncoderConfig, dtype: torch.dtype) -> dict[str, object]:
    """config.json as transformers reads it."""
    return {
        "architectures": ["UMT5EncoderModel"],
        "model_type": "umt5",
        "vocab_size": config.vocab_size,
        "d_model": config.text_dim,
        "d_kv": config.attention_dim // config.num_heads,
        "d_ff": config.ffn_dim,
        "num_layers": config.num_layers,
        "num_heads": config.num_heads,
        "relative_attention_num_buckets": config.num_buckets,
        "relative_attention_max_distance": LARGEST_DISTANCE,
        "layer_norm_epsilon": 1e-6,
        "feed_forward_proj": "gated-gelu",
        "is_encoder_decoder": False,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "dtype": str(dtype).removeprefix("torch."),
    }
