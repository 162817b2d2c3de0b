"""A prompt as the rows a Wan student attends to: from a file, from the cache, or from umT5.

The text encoder (umT5-xxl, 5.7 billion weights) is only needed the first time a prompt is used;
its rows are kept on disk as safetensors, 8 kB each.
"""

import hashlib
import html
import logging
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from instantvir_models.checkpoints.config import printable
from instantvir_models.checkpoints.tensors import LISTED_KEYS, read_tensors, write_tensors
from instantvir_models.errors import CheckpointError, UsageError, VideoWriteError
from instantvir_models.outputs.claim import new_file, told
from instantvir_models.students.text import TextRows

logger = logging.getLogger(__name__)

FORMAT = "instantvir-text"
ROWS = "rows"
ENCODER_VARIABLE = "INSTANTVIR_TEXT_ENCODER"
"""Names the text encoder: a folder or a repository on the Hub with tokenizer and weights."""

DEFAULT_ENCODER = "google/umt5-xxl"


def read_prompt(prompt: str, *, text_dim: int, text_len: int) -> TextRows:
    """The rows of `prompt`: the path of a file of rows, or a text; a blank one is no words, no rows.

    A text is looked up in the cache; if it is not there it is encoded and kept.

    Args:
        text_dim, text_len: what the student attends to.

    Raises:
        UsageError: if the text encoder is needed and not installed.
        CheckpointError: if the file or the encoder does not fit the student.
    """
    if is_file_of_rows(prompt):
        return load_rows(Path(prompt), text_dim=text_dim, text_len=text_len)
    text = cleaned(prompt)
    if not text:
        return TextRows(torch.empty(1, 0, text_dim), text_len)
    path = cache_path(text, text_dim=text_dim, text_len=text_len)
    if not path.is_file():
        rows = encode(text, text_len=text_len).to(torch.bfloat16)
        try:
            save_rows(rows, path, text=text)
        except (VideoWriteError, UsageError) as error:
            logger.warning("the prompt is encoded, but cannot be kept: %s", error)
            return _fitting(rows, f"`{text}`", text_dim=text_dim, text_len=text_len)
    return load_rows(path, text_dim=text_dim, text_len=text_len)


def is_file_of_rows(prompt: str) -> bool:
    """Whether a prompt is the path of a file of rows, not words."""
    return prompt.endswith(".safetensors")


def check_replaceable(path: Path) -> None:
    """Refuse a file to write rows to that holds something else.

    Raises:
        CheckpointError: likewise.
    """
    if not path.is_file():
        return
    try:
        is_prompt = read_tensors(path)[1].get("format") == FORMAT
    except CheckpointError:
        is_prompt = False
    if not is_prompt:
        raise CheckpointError(
            f"`{path}` is there, and it is no prompt that instantvir wrote",
            hint="give a new name with `-o`",
        )


def text_of(path: Path) -> str:
    """The words that the rows in `path` were made of, as far as the file says.

    Raises:
        CheckpointError: if it is no safetensors file.
    """
    return printable(read_tensors(path)[1].get("text", ""))


def load_rows(path: Path, *, text_dim: int, text_len: int) -> TextRows:
    """Precomputed rows [1, n, text_dim] from a safetensors file.

    Raises:
        CheckpointError: if the file holds something else or rows of another student.
    """
    tensors, _ = read_tensors(path)
    rows = tensors.get(ROWS)
    if rows is None:
        some = ", ".join(sorted(tensors)[:LISTED_KEYS]) or "nothing"
        raise CheckpointError(
            f"`{path}` holds no prompt: expected `{ROWS}`, found {some}",
            hint="`instantvir convert --prompt WORDS -o ROWS.safetensors` makes one",
        )
    return _fitting(rows, f"`{path}`", text_dim=text_dim, text_len=text_len)


def _fitting(rows: Tensor, what: str, *, text_dim: int, text_len: int) -> TextRows:
    if rows.ndim != 3 or rows.shape[::2] != (1, text_dim):
        raise CheckpointError(
            f"{what} holds no prompt for this student: expected `{ROWS}` of shape "
            f"(1, n, {text_dim}), found {tuple(rows.shape)}"
        )
    if rows.shape[1] > text_len:
        raise CheckpointError(
            f"{what} holds {rows.shape[1]} rows of a prompt, the student reads {text_len}"
        )
    if not rows.is_floating_point():
        raise CheckpointError(f"{what} holds a prompt as {rows.dtype}, expected floating point")
    if not torch.isfinite(rows.float()).all():
        raise CheckpointError(f"{what} holds a prompt with values that are not finite")
    return TextRows(rows.float(), text_len)


def save_rows(rows: Tensor, path: Path, *, text: str) -> None:
    """Write rows [1, n, text_dim] as bfloat16 with their text beside them; all or nothing.

    Raises:
        VideoWriteError: if that cannot be done.
        UsageError: if another run writes the same file.
    """
    metadata = {"format": FORMAT, "text": text}
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path, may_replace=True) as unfinished:
        try:
            write_tensors(unfinished, {ROWS: rows.to(torch.bfloat16).contiguous()}, metadata)
        except SafetensorError as error:
            raise OSError(str(error)) from error


def cache_path(text: str, *, text_dim: int, text_len: int) -> Path:
    """Where the rows of `text` are kept."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache")
    encoder = os.environ.get(ENCODER_VARIABLE, DEFAULT_ENCODER)
    key = hashlib.sha256(f"{encoder}|{text_dim}|{text_len}|{text}".encode()).hexdigest()
    return base / "instantvir" / "prompts" / f"{key}.safetensors"


def _home() -> Path:
    """The folder of the user; one for all who have none."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(tempfile.gettempdir()) / "instantvir-nobody"


def cleaned(text: str) -> str:
    """The text as the training of Wan cleaned it: HTML entities resolved, white space collapsed.

    Broken Unicode is mended where the `ftfy` package is installed, as in the training.
    """
    try:
        import ftfy

        text = ftfy.fix_text(text)
    except ImportError:
        pass
    return re.sub(r"\s+", " ", html.unescape(html.unescape(text))).strip()


def encode(text: str, *, text_len: int) -> Tensor:
    """The rows [1, n, text_dim] umT5 gives `text`, padding left off.

    Raises:
        UsageError: if transformers is not installed.
        CheckpointError: if the encoder's weights cannot be loaded.
    """
    tokenizer, encoder = _text_encoder()
    tokens = tokenizer(
        [text], max_length=text_len, truncation=True, return_tensors="pt", add_special_tokens=True
    )
    with torch.inference_mode():
        return encoder(tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state


def _text_encoder() -> tuple[Any, nn.Module]:
    try:
        from transformers import AutoTokenizer, UMT5EncoderModel
    except ImportError as error:
        raise UsageError(
            "a prompt in words needs the text encoder, which is not installed",
            hint="`pip install 'instantvir[text]'`, or give a file of precomputed rows: "
            "`--prompt ROWS.safetensors`",
        ) from error
    name = os.environ.get(ENCODER_VARIABLE, DEFAULT_ENCODER)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        encoder: nn.Module = UMT5EncoderModel.from_pretrained(name, dtype=torch.bfloat16)
    except (OSError, ValueError, ImportError) as error:
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"the text encoder `{name}` cannot be loaded: {first_line}",
            hint=f"set {ENCODER_VARIABLE} to a folder or repository with umT5-xxl and its tokenizer; "
            "`instantvir convert models_t5_umt5-xxl-enc-bf16.pth -o umt5/` makes such a folder",
        ) from error
    return tokenizer, encoder.eval()
