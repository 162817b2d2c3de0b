"""Tiny video priors on disk: one safetensors file with size and measured errors inside."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from instantvir_models.checkpoints.tensors import check_tensors, read_tensors, write_tensors
from instantvir_models.errors import CheckpointError
from instantvir_models.outputs.claim import write_whole
from instantvir_models.priors.base import ErrorTable
from instantvir_models.priors.flow import FlowConfig, FlowNetwork, FlowPrior

FORMAT = "instantvir-flow-prior"

ERRORS_NAME = "errors.json"
"""What lies beside a published transformer that was measured as a teacher."""

MOST, MOST_LAYERS = 4096, 64
"""Channels, and layers, of a prior that somebody else may ask for."""


SHIPPED_PRIOR = Path(__file__).parents[1] / "weights" / "teacher.safetensors"
"""The tiny video prior in the package."""


def save_prior(prior: FlowPrior, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write `prior` to `path`, its weights in `dtype`; they are read as float32 again."""
    weights = prior.network.state_dict()
    tensors = {name: weight.detach().to(dtype).contiguous() for name, weight in weights.items()}
    metadata = {
        "format": FORMAT,
        "config": json.dumps(asdict(prior.network.config)),
        "errors": json.dumps(asdict(prior.errors)),
    }
    write_tensors(path, tensors, metadata)


def load_prior(path: Path) -> FlowPrior:
    """The prior in `path`, frozen.

    Raises:
        CheckpointError: if there is none, it is damaged, or it holds something else.
    """
    stored, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"`{path}` holds no prior",
            hint="`instantvir distill --recipe tiny-teacher` makes one",
        )
    config, errors = _described(metadata, path)
    with torch.device("meta"):  # what a stranger's configuration asks for costs nothing there
        shapes = FlowNetwork(config).state_dict()
    check_tensors(stored, shapes, f"`{path}`")
    network = FlowNetwork(config)
    network.load_state_dict({name: tensor.float() for name, tensor in stored.items()})
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return FlowPrior(network.eval().requires_grad_(False), errors)


def save_errors(errors: ErrorTable, folder: Path) -> None:
    """Write what a teacher in `folder` was measured to be off by beside it.

    Raises:
        VideoWriteError: if it cannot be written.
    """
    write_whole(folder / ERRORS_NAME, json.dumps(asdict(errors)) + "\n", may_replace=True)


def load_errors(folder: Path) -> ErrorTable | None:
    """What a teacher in `folder` was measured to be off by; None where nobody measured it.

    Raises:
        CheckpointError: if the file is damaged.
    """
    path = folder / ERRORS_NAME
    if not path.exists():
        return None
    try:
        return _table(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"`{path}` is not usable: {error}") from error


def _table(errors: Any) -> ErrorTable:
    return ErrorTable(
        tuple(float(v) for v in errors["noise_std"]),
        tuple(float(v) for v in errors["error_std"]),
    )


def _described(metadata: dict[str, str], path: Path) -> tuple[FlowConfig, ErrorTable]:
    try:
        size = json.loads(metadata["config"])
        if not all(isinstance(value, int) and 0 <= value < MOST for value in size.values()):
            raise ValueError(f"unexpected {size}")
        if any(value > MOST_LAYERS for name, value in size.items() if name.endswith("layers")):
            raise ValueError(f"more than {MOST_LAYERS} layers: {size}")
        return FlowConfig(**size), _table(json.loads(metadata["errors"]))
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"`{path}` does not say properly what it is: {error}") from error
