"""Memory that an autoencoder takes, found by running it on the `meta` device, where nothing is computed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from instantvir_models.autoencoders.base import SPATIAL_FACTOR, TEMPORAL_FACTOR, CausalMemory
from instantvir_models.autoencoders.lean import LeanConfig, LeanVAE
from instantvir_models.autoencoders.wan import WanVAE, WanVaeConfig
from instantvir_models.peak_memory import PeakMemory
from instantvir_models.tiles import tiles

AutoencoderConfig = LeanConfig | WanVaeConfig

PROBE_LATENTS = 16
"""Side of the frames it is run with; memory grows with their area."""


@dataclass(frozen=True)
class PhaseMemory:
    """Bytes on the device while frames are encoded, or decoded."""

    past: int
    """Past frames that the layers remember, exactly."""
    passing: int
    """At most alive at once beside them."""


@dataclass(frozen=True)
class AutoencoderMemory:
    """Bytes that both halves of an autoencoder take."""

    encode: PhaseMemory
    decode: PhaseMemory


@dataclass(frozen=True)
class _Stage:
    """Bytes per latent pixel of a frame."""

    past: float
    passing: float
    result: float


@dataclass(frozen=True)
class _Stages:
    encode_locally: _Stage
    encode_rest: _Stage
    decode_first: _Stage
    decode_locally: _Stage


def autoencoder_memory(
    config: AutoencoderConfig,
    *,
    latent_size: tuple[int, int],
    chunk_latents: int,
    tile_latents: int,
    dtype: torch.dtype,
) -> AutoencoderMemory:
    """What chunks of `chunk_latents` latents [h, w] take, in tiles of `tile_latents` a side (0: whole)."""
    stages = _stages(config, chunk_latents, dtype)
    network, area = network_of(config), latent_size[0] * latent_size[1]
    read = [
        _areas(latent_size, tile_latents, halo)
        for halo in (network.encode_halo, network.decode_halo)
    ]
    local, rest = stages.encode_locally, stages.encode_rest
    features = local.result * area
    encode = PhaseMemory(
        past=round(local.past * sum(read[0]) + rest.past * area),
        passing=round(
            max(
                local.passing * max(read[0]) + features * (tile_latents > 0),
                features + rest.passing * area,
            )
        ),
    )
    first, local = stages.decode_first, stages.decode_locally
    features, frames = first.result * area, local.result * area * (tile_latents > 0)
    decode = PhaseMemory(
        past=round(first.past * area + local.past * sum(read[1])),
        passing=round(max(first.passing * area, features + frames + local.passing * max(read[1]))),
    )
    return AutoencoderMemory(encode, decode)


@lru_cache(maxsize=8)
def network_of(config: AutoencoderConfig) -> LeanVAE | WanVAE:
    """An autoencoder without weights, to measure with."""
    with torch.device("meta"):
        network = LeanVAE(config) if isinstance(config, LeanConfig) else WanVAE(config)
    return network.requires_grad_(False)


class _Passing(CausalMemory):
    """Adds up what a stream in full flow would remember, and lets go of it."""

    def __init__(self) -> None:
        super().__init__()
        self.past_bytes = 0

    def has_met(self, layer: nn.Module) -> bool:
        return True

    def exchanged(self, layer: nn.Module, x: Tensor, *, frames: int, dim: int) -> Tensor:
        tail = super().exchanged(layer, x, frames=frames, dim=dim)
        self.past_bytes += self._tails.pop(layer).nbytes
        return tail


@lru_cache(maxsize=16)  # a second each
def _stages(config: AutoencoderConfig, chunk_latents: int, dtype: torch.dtype) -> _Stages:
    with torch.device("meta"):
        kind = LeanVAE if isinstance(config, LeanConfig) else WanVAE
        network = kind(config).requires_grad_(False).to(dtype)  # type: ignore[arg-type]
        side = PROBE_LATENTS
        pixels = (side * SPATIAL_FACTOR,) * 2
        frames = torch.empty(1, TEMPORAL_FACTOR * chunk_latents, 3, *pixels, dtype=dtype)
        z = torch.empty(1, chunk_latents, config.latent_channels, side, side, dtype=dtype)
    measured = []
    with torch.inference_mode():
        for start, steps in (
            (frames, (network.encode_locally, network.encode_rest)),
            (z, (network.decode_first, network.decode_locally)),
        ):
            value = start
            for step in steps:
                memory = _Passing()
                with PeakMemory() as counted:
                    value = step(value, memory)
                numbers = (memory.past_bytes, counted.peak_bytes, value.nbytes)
                measured.append(_Stage(*(number / side**2 for number in numbers)))
    return _Stages(*measured)


def _areas(latent_size: tuple[int, int], tile_latents: int, halo: int) -> Sequence[int]:
    """Latent pixels that each tile reads, halo included."""
    if not tile_latents:
        return [latent_size[0] * latent_size[1]]
    return [
        (tile.read[0].stop - tile.read[0].start) * (tile.read[1].stop - tile.read[1].start)
        for tile in tiles(*latent_size, side=tile_latents, halo=halo)
    ]
