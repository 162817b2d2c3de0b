"""`instantvir info`: what a checkpoint is."""

import json
import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from instantvir_cli import console
from instantvir_cli.exit_status import ExitStatus
from instantvir_cli.standard_streams import put
from instantvir_models.checkpoints.config import CONFIG_NAME, WanCheckpoint
from instantvir_models.checkpoints.folder import (
    AUTOENCODER,
    PROMPT_NAME,
    TRANSFORMER,
    damaged_files,
    files_of,
)
from instantvir_models.checkpoints.load import EMBEDDED, Located, load_student, locate
from instantvir_models.checkpoints.prompt import load_rows, text_of
from instantvir_models.checkpoints.small import (
    WEIGHTS_NAME,
    SmallCheckpoint,
    described,
    read_any_config,
)
from instantvir_models.checkpoints.tensors import read_tensors, sha256_of
from instantvir_models.errors import UsageError
from instantvir_models.media.names import is_picture
from instantvir_models.run.jobs import VIDEO_SUFFIXES


def show_info(model: str, *, as_json: bool) -> None:
    """Print what `model` is; exit with NO_CHECKPOINT if its files differ from their digests."""
    _refuse_videos(model)
    located = locate(model)
    summary = _of_folder(located) if located.path.is_dir() else _of_file(model, located)
    if as_json:
        put(json.dumps(summary, indent=2))
    else:
        for name, value in summary.items():
            put(f"{name:<18}{_plain(value)}")
    if damaged := summary.get("damaged"):
        missing = [name for name in damaged if not (located.path / name).is_file()]
        differing = [name for name in damaged if name not in missing]
        faults = [
            f"{', '.join(names)} {fault}"
            for names, fault in ((missing, "is missing"), (differing, "differs from its sha256"))
            if names
        ]
        console.fail("; ".join(faults), "convert it again")
        raise typer.Exit(ExitStatus.NO_CHECKPOINT)


def _refuse_videos(model: str) -> None:
    path = Path(model)
    looks_like_one = path.suffix.lower() in VIDEO_SUFFIXES or is_picture(path)
    if looks_like_one and os.path.isfile(path):
        raise UsageError(
            f"`{model}` is no checkpoint, it looks like a video or a picture",
            hint=f"`instantvir restore {shlex.quote(model)} --dry-run` says what is wrong with it",
        )


def _of_folder(located: Located) -> dict[str, Any]:
    config = read_any_config(located.path)
    if isinstance(config, SmallCheckpoint):
        return _of_small(located, config)
    tensors = [
        tensor
        for part in (TRANSFORMER, AUTOENCODER)
        for name in files_of(config, part)
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
        "prompt": _prompt(located.path, config),
        "source": config.source or None,
        "config_sha256": sha256_of(located.path / CONFIG_NAME),
        "files": config.sha256,
        "damaged": damaged_files(located.path, config.sha256),
    }


def _of_small(located: Located, config: SmallCheckpoint) -> dict[str, Any]:
    about = described(config)
    damaged = damaged_files(located.path, config.sha256)
    return {
        "kind": "embedded student, made ready for the Hub",
        "folder": str(located.path),
        "revision": located.revision,
        "weights": sum(t.numel() for t in read_tensors(located.path / WEIGHTS_NAME)[0].values()),
        "recipe": about["recipe"],
        "measured_psnr": about["measured"] or None,
        "config_sha256": sha256_of(located.path / CONFIG_NAME),
        "files": config.sha256,
        "damaged": damaged,
    }


def _prompt(folder: Path, config: WanCheckpoint) -> str | None:
    """The words of the prompt that comes with the checkpoint, and how many rows they are."""
    path = folder / PROMPT_NAME
    if not path.is_file() or config.transformer is None:
        return None
    student = config.transformer
    rows = load_rows(path, text_dim=student.text_dim, text_len=student.text_len).rows
    return f"{text_of(path) or 'words unknown'} ({rows.shape[1]} rows)"


def _of_file(model: str, located: Located) -> dict[str, Any]:
    loaded = load_student(model)
    tensors = read_tensors(located.path)[0].values()
    return {
        "kind": f"{model} student" if model == EMBEDDED else type(loaded.student).__name__,
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
