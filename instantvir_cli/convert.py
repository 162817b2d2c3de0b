"""`instantvir convert`: other people's weights become a checkpoint of ours."""

from pathlib import Path

import torch

from instantvir_cli import console
from instantvir_cli.options import ConversionOptions
from instantvir_models.checkpoints.config import CONFIG_NAME, WanCheckpoint, read_config
from instantvir_models.checkpoints.convert import found_in, save_found
from instantvir_models.checkpoints.folder import PROMPT_NAME, save_prompt
from instantvir_models.checkpoints.prompt import (
    ENCODER_VARIABLE,
    check_replaceable,
    cleaned,
    is_file_of_rows,
    read_prompt,
    save_rows,
    text_of,
)
from instantvir_models.checkpoints.text_encoder import TextEncoderConfig, has_tokenizer
from instantvir_models.errors import CheckpointError, UsageError
from instantvir_models.outputs.rule import refuse
from instantvir_models.students.wan.transformer import WanConfig
from instantvir_models.tasks import parse_task

DTYPES = {
    "keep": None,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def run_convert(
    source: Path | None, output: Path, about: ConversionOptions, *, overwrite: bool
) -> None:
    """Add a network, a prompt or both to a checkpoint and say what is still missing.

    Raises:
        UsageError: if the options do not go together, or what is to be made is there already.
        CheckpointError: if the source is not usable, a prompt does not fit the student, or it would
            replace a file that is none.
        VideoWriteError: if the output cannot be written.
    """
    if about.task is not None:
        parse_task(about.task)
    if about.dtype not in DTYPES:
        raise UsageError(f"`--dtype` is `{about.dtype}`; it is {', '.join(DTYPES)}")
    if source is None and about.prompt is None:
        raise UsageError("nothing to convert", hint="give a file of weights, `--prompt`, or both")
    if output.suffix == ".safetensors":
        if source is not None or about.prompt is None:
            raise UsageError(
                f"`{output}` is a file, and only a prompt is kept in one",
                hint=f"weights go into a folder: `-o {output.with_suffix('')}`",
            )
        _refuse_options_of_weights(about)
        _write_prompt(about.prompt, output, overwrite=overwrite)
        return
    if source is None:
        _refuse_options_of_weights(about)
    if about.prompt is not None:
        refuse(output / PROMPT_NAME, may_replace=overwrite)
    if source is not None and not _add_network(source, output, about, overwrite=overwrite):
        return
    if about.prompt is not None:
        _add_prompt(about.prompt, output)
    if (output / CONFIG_NAME).exists():
        _say_what_is_missing(output, read_config(output))


def _add_network(source: Path, output: Path, about: ConversionOptions, *, overwrite: bool) -> bool:
    """Whether it became a part of a checkpoint; a text encoder serves all of them instead."""
    found = found_in(source, use_average=about.average)
    if isinstance(found.config, TextEncoderConfig):
        _refuse(
            about.given_for_student,
            "has no effect on a text encoder",
            "it serves all students; give what a student reads and knows with the student's weights",
        )
    config = save_found(
        found,
        output,
        source=source,
        task=about.task,
        operators=about.operators,
        dtype=DTYPES[about.dtype],
        may_replace=overwrite,
    )
    weights = sum(tensor.numel() for tensor in found.tensors.values())
    console.say(
        f"{source}: {found.layout}, {len(found.tensors)} tensors, {weights / 1e6:.1f} M weights"
    )
    if found.dropped:
        console.say(f"left out, only training uses it: {', '.join(found.dropped)}")
    if config is None:
        _say_how_to_use_encoder(output)
    return config is not None


def _refuse_options_of_weights(about: ConversionOptions) -> None:
    _refuse(
        about.given_for_weights,
        "has no effect on a prompt",
        "it says something of weights: give their file, too, or leave it out",
    )


def _refuse(options: list[str], why: str, hint: str) -> None:
    if options:
        raise UsageError(f"`{options[0]}` {why}", hint=hint)


def _say_how_to_use_encoder(folder: Path) -> None:
    if not has_tokenizer(folder):
        console.say(
            f"{folder} still needs its tokenizer: copy spiece.model and the .json files of "
            "google/umt5-xxl into it"
        )
    console.say(f"`export {ENCODER_VARIABLE}={folder}`, then `--prompt` takes words")


def _add_prompt(prompt: str, folder: Path) -> None:
    config = read_config(folder)
    if config.transformer is None:
        raise CheckpointError(
            f"`{folder}` has no student that could read a prompt",
            hint=f"add it first: `instantvir convert model.pt -o {folder}`",
        )
    student = config.transformer
    text = read_prompt(prompt, text_dim=student.text_dim, text_len=student.text_len)
    config = read_config(folder)  # encoding takes minutes, in which others may add a part
    save_prompt(folder, config, text.rows, text=_words(prompt))
    console.say(f"{folder}: its prompt has {text.rows.shape[1]} rows")


def _write_prompt(prompt: str, path: Path, *, overwrite: bool) -> None:
    check_replaceable(path)
    refuse(path, may_replace=overwrite)
    wan = WanConfig()
    text = read_prompt(prompt, text_dim=wan.text_dim, text_len=wan.text_len)
    save_rows(text.rows, path, text=_words(prompt))
    console.say(f"{path}: {text.rows.shape[1]} rows; `--prompt {path}` needs no text encoder")


def _words(prompt: str) -> str:
    return text_of(Path(prompt)) if is_file_of_rows(prompt) else cleaned(prompt)


def _say_what_is_missing(folder: Path, config: WanCheckpoint) -> None:
    if config.transformer is None:
        console.say(f"{folder} still needs the student: `instantvir convert model.pt -o {folder}`")
    elif config.autoencoder is None:
        console.say(
            f"{folder} still needs an autoencoder: `instantvir convert LeanVAE-dim16.ckpt -o {folder}` "
            f"or `instantvir convert Wan2.1_VAE.pth -o {folder}`"
        )
    else:
        console.say(f"{folder} is complete: `instantvir restore IN --model {folder}`")
