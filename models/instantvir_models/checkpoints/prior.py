"""Tiny video priors on disk: one safetensors file with size and measured errors inside."""

import json
from dataclasses import asdict
from pathlib import Path

import torch

from instantvir_models.checkpoints.tensors import check_tensors, read_tensors, write_tensors
from instantvir_models.errors import CheckpointError
from instantvir_models.priors.base import ErrorTable
from instantvir_models.priors.flow import FlowConfig, FlowNetwork, FlowPrior

FORMAT = "instantvir-flow-prior"

MOST = 4096
"""Channels, or layers, of a prior that somebody else may ask for."""


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


def _described(metadata: dict[str, str], path: Path) -> tuple[FlowConfig, ErrorTable]:
    try:
        size = json.loads(metadata["config"])
        if not all(isinstance(value, int) and 0 <= value < MOST for value in size.values()):
            raise ValueError(f"unexpected {size}")
        errors = json.loads(metadata["errors"])
        table = ErrorTable(
            tuple(float(v) for v in errors["noise_std"]),
            tuple(float(v) for v in errors["error_std"]),
        )
        return FlowConfig(**size), table
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"`{path}` does not say properly what it is: {error}") from error
