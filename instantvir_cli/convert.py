"""`instantvir convert`: other people's weights become a checkpoint of ours."""

from pathlib import Path

import torch

from instantvir_cli import console
from instantvir_models.checkpoints.convert import convert
from instantvir_models.errors import UsageError
from instantvir_models.tasks import Task

DTYPES = {
    "keep": None,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def convert_file(
    source: Path, folder: Path, *, task: str | None, operators: str | None, use_average: bool,
    dtype: str, quiet: bool,
) -> None:  # fmt: skip
    """Add the network in `source` to the checkpoint in `folder` and say what is still missing."""
    console.set_up(quiet=quiet)
    if task is not None and task not in list(Task):
        raise UsageError(f"there is no task called `{task}`", hint=f"use {', '.join(Task)}")
    if dtype not in DTYPES:
        raise UsageError(f"`--dtype` is `{dtype}`; it is {', '.join(DTYPES)}")
    found, config = convert(
        source, folder, task=task, operators=operators, use_average=use_average, dtype=DTYPES[dtype]
    )
    weights = sum(tensor.numel() for tensor in found.tensors.values())
    console.say(
        f"{source}: {found.layout}, {len(found.tensors)} tensors, {weights / 1e6:.1f} M weights"
    )
    if found.dropped:
        console.say(f"left out, only training uses it: {', '.join(found.dropped)}")
    if config.transformer is None:
        console.say(f"{folder} still needs the student: `instantvir convert model.pt -o {folder}`")
    elif config.autoencoder is None:
        console.say(
            f"{folder} still needs an autoencoder: `instantvir convert LeanVAE-dim16.ckpt -o {folder}` "
            f"or `instantvir convert Wan2.1_VAE.pth -o {folder}`"
        )
    else:
        console.say(f"{folder} is complete: `instantvir restore IN --model {folder}`")
