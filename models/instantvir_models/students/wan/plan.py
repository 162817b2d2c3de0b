"""What a full-size student costs before it runs: memory by part, and the plan that fits a budget."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import torch
from torch import nn

from instantvir_models.autoencoders.base import SPATIAL_FACTOR, TEMPORAL_FACTOR
from instantvir_models.errors import UsageError
from instantvir_models.students.wan.cost import (
    AutoencoderConfig,
    autoencoder_memory,
    network_of,
)
from instantvir_models.students.wan.offload import SLOTS
from instantvir_models.students.wan.settings import (
    TILE_LATENTS,
    TOKEN_PIXELS,
    Footprint,
    Resting,
    WanSettings,
)
from instantvir_models.students.wan.transformer import WanConfig, WanTransformer

LIVE_HIDDEN_TENSORS = 2
"""Feed-forward activations alive at once; the rest of a layer is smaller."""

LIVE_STREAM_TENSORS = 8
"""Tensors of the model's width alive at once: residual stream, q, k, v, float32 copies."""

FRAME_BYTES = 68
"""Per pixel of a block and of the frames beside it that its operator looks at, in float32:
measurement and its modes, initial estimate, view, mask, and the estimate twice."""

CONSISTENCY_BYTES = 160
"""Per pixel of the same frames at most beside these, for the initial estimate and the correction
towards the measurement; blur and enlargement together take most."""


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Bytes on the device that a student computes on, by part."""

    weights: int
    """Those on the device at once."""
    cache: int
    """Keys and values of self-attention and of the prompt, when the window is full."""
    autoencoder_state: int
    """Past frames that the autoencoder's layers remember."""
    frames: int
    """Of a block, as pixels, and of those beside it that its operator looks at."""
    activations: int
    """The largest of encoder, transformer layer, decoder and data consistency. Past frames count a
    second time in it: those from before a block are kept until it is done. An estimate."""
    footprint: Footprint
    """What it was made for."""
    dtype: torch.dtype
    """Of the weights."""

    @property
    def total(self) -> int:
        """All parts together."""
        return self.weights + self.cache + self.autoencoder_state + self.frames + self.activations

    def given_up(self, whole: "MemoryPlan") -> list[str]:
        """What is different from `whole`, in words with their price, the cheapest first."""
        mine, theirs = self.footprint, whole.footprint
        words = []
        if mine.chunk_latents != theirs.chunk_latents:
            words.append(
                f"the autoencoder takes {_counted(mine.chunk_latents, 'latent')} at once "
                "(same result, a little slower)"
            )
        if mine.tile_latents != theirs.tile_latents:
            side = mine.tile_latents * SPATIAL_FACTOR
            words.append(f"it works in tiles of {side} pixels (same result, slower)")
        if self.dtype != whole.dtype:
            names = [str(dtype).removeprefix("torch.") for dtype in (self.dtype, whole.dtype)]
            words.append(f"weights are {names[0]}, not {names[1]} (rounds more)")
        if mine.resting >= Resting.WEIGHTS > theirs.resting:
            words.append("weights rest in CPU memory (same result, slower)")
        if mine.resting >= Resting.PAST_FRAMES > theirs.resting:
            words.append("so do the autoencoder's past frames (same result, much slower)")
        if mine.window_latents != theirs.window_latents:
            words.append(
                f"the history is {mine.window_latents} latents, not {theirs.window_latents} "
                "(restores from less)"
            )
        return words

    def __str__(self) -> str:
        parts = {
            "weights": self.weights,
            f"cache of {self.footprint.window_latents} latents": self.cache,
            "autoencoder state": self.autoencoder_state,
            "frames": self.frames,
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
    text_rows: int | None = None,
    temporal_radius: int = 0,
) -> MemoryPlan:
    """The memory that restoring frames of `height` x `width` pixels (of the output) takes.

    Args:
        text_rows: rows of the prompt that are attended to, padding being one of them; None for the
            longest prompt.
        temporal_radius: frames on each side of a block that its operator looks at.
    """
    tokens = tokens_per_latent(height, width)
    kept = footprint.window_latents + settings.sink_latents
    keys = kept * tokens + (transformer.text_len if text_rows is None else text_rows)
    per_token = LIVE_HIDDEN_TENSORS * transformer.ffn_dim + LIVE_STREAM_TENSORS * transformer.dim
    layer = settings.latents_per_block * tokens * per_token * dtype.itemsize
    h, w = (-(-side // TOKEN_PIXELS) * TOKEN_PIXELS // SPATIAL_FACTOR for side in (height, width))
    parts = autoencoder_memory(
        autoencoder, latent_size=(h, w), chunk_latents=footprint.chunk_latents,
        tile_latents=footprint.tile_latents, dtype=dtype,
    )  # fmt: skip
    frames = TEMPORAL_FACTOR * settings.latents_per_block + 2 * temporal_radius
    pixels = frames * height * width
    is_past_here = footprint.resting < Resting.PAST_FRAMES
    encoder_past, decoder_past = (
        phase.past * is_past_here for phase in (parts.encode, parts.decode)
    )
    return MemoryPlan(
        weights=_weights(transformer, autoencoder, footprint.resting) * dtype.itemsize,
        cache=2 * transformer.num_layers * keys * transformer.dim * dtype.itemsize,
        autoencoder_state=encoder_past + decoder_past,
        frames=FRAME_BYTES * pixels,
        activations=max(
            encoder_past + max(parts.encode.passing, layer),
            encoder_past + decoder_past + parts.decode.passing,
            CONSISTENCY_BYTES * pixels,
        ),
        footprint=footprint,
        dtype=dtype,
    )


def plan_that_fits(
    transformer: WanConfig,
    autoencoder: AutoencoderConfig,
    settings: WanSettings,
    *,
    height: int,
    width: int,
    dtypes: Sequence[torch.dtype],
    budget_bytes: float,
    budget_source: str = "allowed",
    tile_latents: int | None = None,
    can_rest: bool = False,
    text_rows: int | None = None,
    temporal_radius: int = 0,
) -> MemoryPlan:
    """The plan within the budget that gives up least.

    What changes nothing but time goes first (smaller chunks in the autoencoder, then tiles), then
    rounding, then the way over the bus, and last history. Nothing is given up that need not be.

    Args:
        dtypes: of the weights, the preferred first.
        budget_source: what the budget is, for people: `allowed` or `free`.
        tile_latents: side of the autoencoder's tiles in latent pixels, 0 for whole frames; None to
            choose.
        can_rest: whether weights may rest in CPU memory, because that is not the device's.
        text_rows, temporal_radius: see `plan_memory`.

    Raises:
        UsageError: if not even one block fits.
    """

    smallest: MemoryPlan | None = None
    sides = [tile for tile in TILE_LATENTS if tile * SPATIAL_FACTOR < max(height, width)]
    tile_sides = [0, *sides] if tile_latents is None else [tile_latents]
    resting = list(Resting) if can_rest else [Resting.NOTHING]
    for footprint, dtype in _from_most_to_least(settings, tile_sides, resting, dtypes):
        plan = plan_memory(
            transformer, autoencoder, settings, footprint, height=height, width=width,
            dtype=dtype, text_rows=text_rows, temporal_radius=temporal_radius,
        )  # fmt: skip
        if plan.total <= budget_bytes:
            return plan
        if smallest is None or plan.total < smallest.total:
            smallest = plan
    raise UsageError(
        f"{width}x{height} needs at least {smallest}, more than the "
        f"{budget_bytes / 1e9:.2f} GB {budget_source}",
        hint="restore smaller frames, or say with `--vram GB` that more may be taken",
    )


def tokens_per_latent(height: int, width: int) -> int:
    """Tokens of one latent frame, padding included."""
    return -(-height // TOKEN_PIXELS) * -(-width // TOKEN_PIXELS)


def _from_most_to_least(
    settings: WanSettings,
    tile_sides: Sequence[int],
    resting: Sequence[Resting],
    dtypes: Sequence[torch.dtype],
) -> Iterator[tuple[Footprint, torch.dtype]]:
    """Footprints and dtypes; the later a choice comes, the dearer is what it gives up last."""
    step = settings.latents_per_block
    windows = range(settings.window_latents, step - 1, -step)
    for window, rests, dtype, tile, chunk in product(
        windows, resting, dtypes, tile_sides, dict.fromkeys((step, 1))
    ):
        yield Footprint(window, chunk, tile, rests), dtype


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


@lru_cache(maxsize=8)  # building the network on the meta device takes a second
def _weights(transformer: WanConfig, autoencoder: AutoencoderConfig, resting: Resting) -> int:
    """Weights on the device at once; where they rest, those that stay and those whose turn it is."""
    with torch.device("meta"):
        network = WanTransformer(transformer)
    total = _count(network) + _count(network_of(autoencoder))
    if not resting:
        return total
    layer = network.blocks[0]
    coming = sum(_count(part) for part in layer.children())
    slots = min(SLOTS, len(network.blocks)) * _count(layer)
    return total - coming * len(network.blocks) + slots


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
