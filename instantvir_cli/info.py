"""`instantvir info`: what a checkpoint is."""

import json
from dataclasses import asdict
from typing import Any

import typer

from instantvir_cli import console
from instantvir_cli.exit_status import ExitStatus
from instantvir_models.checkpoints.config import CONFIG_NAME, read_config
from instantvir_models.checkpoints.folder import damaged_files
from instantvir_models.checkpoints.load import Located, load_student, locate
from instantvir_models.checkpoints.tensors import read_tensors, sha256_of


def show_info(model: str, *, json_summary: bool, quiet: bool) -> None:
    """Print what `model` is; exit with NO_CHECKPOINT if its files differ from their digests."""
    console.set_up(quiet=quiet)
    located = locate(model)
    summary = _of_folder(located) if located.path.is_dir() else _of_file(model, located)
    if json_summary:
        typer.echo(json.dumps(summary, indent=2))
    else:
        for name, value in summary.items():
            typer.echo(f"{name:<18}{_plain(value)}")
    if summary.get("damaged"):
        console.fail(f"{', '.join(summary['damaged'])} differs from its sha256", "convert it again")
        raise typer.Exit(ExitStatus.NO_CHECKPOINT)


def _of_folder(located: Located) -> dict[str, Any]:
    config = read_config(located.path)
    tensors = [
        tensor
        for name in config.sha256
        if (located.path / name).is_file()
        for tensor in read_tensors(located.path / name)[0].values()
    ]
    return {
        "kind": "Wan student",
        "folder": str(located.path),
        "revision": located.revision,
        "task": config.task,
        "operators": config.operators or None,
        "autoencoder": {True: "LeanVAE", False: "Wan"}[config.lean is not None]
        if config.autoencoder
        else None,
        "weights": sum(tensor.numel() for tensor in tensors),
        "dtypes": sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors}),
        "settings": asdict(config.settings),
        "transformer": None if config.transformer is None else asdict(config.transformer),
        "source": config.source or None,
        "config_sha256": sha256_of(located.path / CONFIG_NAME),
        "files": config.sha256,
        "damaged": damaged_files(located.path, config),
    }


def _of_file(model: str, located: Located) -> dict[str, Any]:
    loaded = load_student(model)
    tensors = read_tensors(located.path)[0].values()
    return {
        "kind": "tiny student",
        "file": str(located.path),
        "weights": sum(tensor.numel() for tensor in tensors),
        "dtypes": sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors}),
        "frames_per_block": loaded.student.frames_per_block,
        "sha256": loaded.sha256,
    }


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "-" if value is None else str(value)
