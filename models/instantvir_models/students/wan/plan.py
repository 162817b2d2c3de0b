"""What a full-size student costs before it runs: memory by part."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from instantvir_models.autoencoders.base import SPATIAL_FACTOR, TEMPORAL_FACTOR, CausalMemory
from instantvir_models.autoencoders.lean import LeanConfig, LeanVAE
from instantvir_models.autoencoders.tiled import TiledAutoencoder
from instantvir_models.autoencoders.wan import WanVAE, WanVaeConfig
from instantvir_models.errors import UsageError
from instantvir_models.students.wan.student import TOKEN_PIXELS, Footprint, WanSettings
from instantvir_models.students.wan.transformer import WanConfig, WanTransformer

AutoencoderConfig = LeanConfig | WanVaeConfig

LIVE_HIDDEN_TENSORS = 2
"""Feed-forward activations alive at once; the rest of a layer is smaller."""

LIVE_STREAM_TENSORS = 8
"""Tensors of the model's width alive at once: residual stream, q, k, v, float32 copies."""


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Bytes on the device that holds the student, by part."""

    weights: int
    cache: int
    """Keys and values of self-attention and of the prompt, when the window is full."""
    autoencoder_state: int
    activations: int
    """The larger of one transformer layer and the decoder at full size; an estimate."""
    footprint: Footprint
    """What it was made for."""

    @property
    def total(self) -> int:
        """All parts together."""
        return self.weights + self.cache + self.autoencoder_state + self.activations

    def __str__(self) -> str:
        parts = {
            "weights": self.weights,
            f"cache of {self.footprint.window_latents} latents": self.cache,
            "autoencoder state": self.autoencoder_state,
            "activations": self.activations,
        }
        listed = ", ".join(f"{name} {count / 1e9:.2f}" for name, count in parts.items())
        return f"{self.total / 1e9:.2f} GB ({listed})"


def plan_memory(
    transformer: WanConfig,
    autoencoder: AutoencoderConfig,
    settings: WanSettings,
    footprint: Footprint,
    *,
    height: int,
    width: int,
    dtype: torch.dtype,
    tile_pixels: int = 0,
) -> MemoryPlan:
    """The memory that restoring frames of `height` x `width` pixels (of the output) takes.

    Args:
        tile_pixels: side of the tiles of the autoencoder, 0 for whole frames.
    """
    size = dtype.itemsize
    tokens = tokens_per_latent(height, width)
    kept = footprint.window_latents + settings.sink_latents
    keys = kept * tokens + transformer.text_len
    per_token = LIVE_HIDDEN_TENSORS * transformer.ffn_dim + LIVE_STREAM_TENSORS * transformer.dim
    layer = settings.latents_per_block * tokens * per_token
    latents = -(-tile_pixels // SPATIAL_FACTOR)
    h, w = (side // SPATIAL_FACTOR for side in _padded(height, width))
    if tile_pixels:
        reach = latents + 2 * _network(autoencoder).decode_halo
        area = min(reach, h) * min(reach, w)
    else:
        area = h * w
    decoder = _decoder_elements(autoencoder, footprint.chunk_latents, area)
    return MemoryPlan(
        weights=(_count(WanTransformer, transformer) + _count_autoencoder(autoencoder)) * size,
        cache=2 * transformer.num_layers * keys * transformer.dim * size,
        autoencoder_state=_state_elements(autoencoder, *_padded(height, width), latents) * size,
        activations=max(layer, decoder) * size,
        footprint=footprint,
    )


def plan_that_fits(
    transformer: WanConfig,
    autoencoder: AutoencoderConfig,
    settings: WanSettings,
    *,
    height: int,
    width: int,
    dtype: torch.dtype,
    budget_bytes: float,
    tile_pixels: int = 0,
) -> MemoryPlan:
    """The plan within the budget that gives up least.

    What changes nothing but time goes first (smaller chunks in the autoencoder), then history.

    Raises:
        UsageError: if not even one block fits.
    """
    step = settings.latents_per_block
    whole = Footprint(settings.window_latents, step)
    windows = range(settings.window_latents, step - 1, -step)
    shorter = [Footprint(window, 1) for window in windows]
    for footprint in (whole, *shorter):
        plan = plan_memory(
            transformer, autoencoder, settings, footprint, height=height, width=width,
            dtype=dtype, tile_pixels=tile_pixels,
        )  # fmt: skip
        if plan.total <= budget_bytes:
            return plan
    raise UsageError(
        f"{width}x{height} needs at least {plan}, more than the {budget_bytes / 1e9:.1f} GB allowed",
        hint="run the autoencoder in tiles (`--tile 256`), or restore smaller frames",
    )


def tokens_per_latent(height: int, width: int) -> int:
    """Tokens of one latent frame, padding included."""
    return -(-height // TOKEN_PIXELS) * -(-width // TOKEN_PIXELS)


def _padded(height: int, width: int) -> tuple[int, int]:
    return (-(-height // TOKEN_PIXELS) * TOKEN_PIXELS, -(-width // TOKEN_PIXELS) * TOKEN_PIXELS)


@lru_cache(maxsize=8)
def _network(config: AutoencoderConfig) -> LeanVAE | WanVAE:
    """An autoencoder without weights, to measure shapes with."""
    with torch.device("meta"):
        return LeanVAE(config) if isinstance(config, LeanConfig) else WanVAE(config)


@lru_cache(maxsize=8)  # building the network on the meta device takes a second
def _count(kind: Any, config: Any) -> int:
    with torch.device("meta"):
        return _parameters(kind(config))


def _count_autoencoder(config: AutoencoderConfig) -> int:
    return _parameters(_network(config))


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@lru_cache(maxsize=8)
def _state_elements(config: AutoencoderConfig, height: int, width: int, tile_latents: int) -> int:
    """Numbers that encoder and decoder remember between blocks, found by running them on nothing."""
    inner, memory = _network(config), CausalMemory()
    network = TiledAutoencoder(inner, tile_latents=tile_latents) if tile_latents else inner
    h, w = height // SPATIAL_FACTOR, width // SPATIAL_FACTOR
    with torch.inference_mode():
        network.encode(torch.empty(1, 5, 3, height, width, device="meta"), memory)
        network.decode(torch.empty(1, 2, config.latent_channels, h, w, device="meta"), memory)
    return memory.num_bytes() // torch.float32.itemsize


def _decoder_elements(config: AutoencoderConfig, latents: int, area: int) -> int:
    """Numbers alive at once where the decoder is widest, over `area` latent pixels of a frame."""
    if isinstance(config, WanVaeConfig):  # input, padded input, output and normed copy of a layer
        pixels = TEMPORAL_FACTOR * latents * area * SPATIAL_FACTOR**2
        return 4 * 2 * config.base_channels * pixels
    hidden = 2 * int(config.channels * 8 / 3)
    return latents * area * (2 * hidden + 4 * config.channels)
