"""The full-size student: encode the measurement, one pass of the transformer, decode."""

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instantvir_models.autoencoders.base import (
    SPATIAL_FACTOR,
    TEMPORAL_FACTOR,
    Autoencoder,
    CausalMemory,
)
from instantvir_models.autoencoders.tiled import LocalAutoencoder, TiledAutoencoder
from instantvir_models.students.base import Conditioning, Estimate
from instantvir_models.students.text import TextRows
from instantvir_models.students.wan.offload import HOME, Offload
from instantvir_models.students.wan.schedule import clean_from_velocity, sigma_at
from instantvir_models.students.wan.transformer import PATCH, WanMemory, WanTransformer

logger = logging.getLogger(__name__)

TOKEN_PIXELS = PATCH * SPATIAL_FACTOR
"""Pixels along each side of a token; frames are padded to a multiple of it."""


class SrInput(StrEnum):
    """What a student is shown of a video that was made smaller."""

    LATENT = "latent"
    """The small video is encoded and its latent enlarged: how the published students were trained."""
    PIXELS = "pixels"
    """The initial estimate at full size."""


@dataclass(frozen=True, kw_only=True)
class WanSettings:
    """How a student is run; kept in its checkpoint."""

    timestep: int = 522
    shift: float = 8.0
    """Of the noise schedule."""
    latents_per_block: int = 3
    window_latents: int = 21
    """Latest latents attended to, those of the current block included."""
    sink_latents: int = 0
    """First latents of a video attended to for ever."""
    sr_input: SrInput = SrInput.LATENT
    estimate_std: float = 0.05
    """How far the student is off, in the [-1, 1] range; weighs it against the measurement."""

    def __post_init__(self) -> None:
        if self.latents_per_block < 1 or self.window_latents < self.latents_per_block:
            raise ValueError(
                f"a window of {self.window_latents} latents does not hold a block of "
                f"{self.latents_per_block}"
            )
        if self.sink_latents < 0 or self.estimate_std <= 0:
            raise ValueError("sink_latents is 0 or more, estimate_std above 0")
        sigma_at(self.timestep, shift=self.shift)


class Resting(IntEnum):
    """What rests in CPU memory and comes to the device for its turn; each holds the ones before."""

    NOTHING = 0
    WEIGHTS = 1
    """Of the layers and of the autoencoder."""
    PAST_FRAMES = 2
    """What the autoencoder remembers of the video, too."""


TILE_LATENTS = (64, 32)
"""Sides of the tiles that an autoencoder may be cut into, in latent pixels."""


@dataclass(frozen=True)
class Footprint:
    """How much a student keeps on its device and does at once: what may give way to memory."""

    window_latents: int
    """Latest latents attended to, those of the current block included."""
    chunk_latents: int
    """Latents the autoencoder takes at once; changes nothing but time and memory."""
    tile_latents: int = 0
    """Side of the autoencoder's tiles in latent pixels, 0 for whole frames; seams are exact."""
    resting: Resting = Resting.NOTHING

    def smaller(
        self, latents_per_block: int, *, may_tile: bool = False, may_rest: bool = False
    ) -> "Footprint | None":
        """The next step down, those first that give up nothing but time.

        Smaller chunks, weights and then past frames in CPU memory, tiles, half the window in whole
        blocks. Tiles remember more than they save as long as past frames are on the device.
        """
        if self.chunk_latents > 1:
            return replace(self, chunk_latents=1)
        if may_rest and self.resting < Resting.PAST_FRAMES:
            return replace(self, resting=Resting(self.resting + 1))
        if may_tile and not self.tile_latents and self.resting is Resting.PAST_FRAMES:
            return replace(self, tile_latents=TILE_LATENTS[-1])
        half = self.window_latents // 2 // latents_per_block * latents_per_block
        window = max(latents_per_block, half)
        if window > self.window_latents - latents_per_block:
            return None
        return replace(self, window_latents=window)

    def __str__(self) -> str:
        parts = [f"a history of {self.window_latents} latents"]
        parts.append(f"{self.chunk_latents} at a time in the autoencoder")
        if self.tile_latents:
            parts.append(f"in tiles of {self.tile_latents * SPATIAL_FACTOR} pixels")
        if self.resting >= Resting.WEIGHTS:
            parts.append("weights in CPU memory")
        if self.resting >= Resting.PAST_FRAMES:
            parts.append("past frames in CPU memory")
        return ", ".join(parts)


@dataclass
class WanState:
    """The memory of one video."""

    footprint: Footprint
    transformer: WanMemory = field(default_factory=WanMemory)
    autoencoder: CausalMemory = field(default_factory=CausalMemory)
    has_started: bool = False


@dataclass(frozen=True)
class WanStudent:
    """A causal Wan transformer between the halves of an autoencoder; implements `Student`.

    The measurement takes the place of the noisy latent at one fixed timestep; no noise is added.
    """

    transformer: WanTransformer
    autoencoder: LocalAutoencoder
    settings: WanSettings
    text: TextRows
    memory_limit: Footprint | None = None
    """A footprint smaller than the settings ask for; None for all of it."""
    may_tile: bool = True
    """Whether the autoencoder may be cut into tiles when memory runs out."""
    offload: Offload | None = None
    """Who lets weights rest in CPU memory; None where nobody may."""

    @property
    def footprint(self) -> Footprint:
        """What a video starts with."""
        settings = self.settings
        return self.memory_limit or Footprint(settings.window_latents, settings.latents_per_block)

    @property
    def frames_per_block(self) -> int:
        return TEMPORAL_FACTOR * self.settings.latents_per_block

    @property
    def first_block_frames(self) -> int:
        return self.frames_per_block - (TEMPORAL_FACTOR - 1)

    @property
    def tile_above_pixels(self) -> int | None:
        return None

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and of what passes between the networks."""
        return self.transformer.patch_embedding.weight.dtype

    def with_text(self, text: TextRows) -> "WanStudent":
        """The same student (weights shared) for another prompt."""
        return replace(self, text=text)

    def no_larger_than(self, state: WanState) -> "WanStudent":
        """This student, to begin with what memory has sufficed for so far."""
        return replace(self, memory_limit=state.footprint)

    def in_tiles(self, tile_pixels: int) -> "WanStudent":
        """The autoencoder in tiles with exact seams; the transformer still sees whole frames."""
        tile = max(1, tile_pixels // SPATIAL_FACTOR)
        return replace(self, memory_limit=replace(self.footprint, tile_latents=tile))

    def for_device(self, device: torch.device) -> "WanStudent":
        """This student with an owner of where its weights are; `placed` then moves them."""
        autoencoder = self.autoencoder
        assert isinstance(autoencoder, nn.Module)
        blocks = self.transformer.blocks
        return replace(self, offload=Offload(self.transformer, blocks, autoencoder, device))

    def placed(
        self, footprint: Footprint, *, dtype: torch.dtype | None = None, may_tile: bool = True
    ) -> "WanStudent":
        """This student with no more on its device than `footprint` says; after `for_device`.

        The weights are moved, not copied: all students that share them go along.

        Args:
            dtype: of the weights from now on; None leaves it.
            may_tile: whether the autoencoder may be cut into tiles when memory runs out.
        """
        assert self.offload is not None
        assert isinstance(self.autoencoder, nn.Module)
        if dtype is not None:
            self.transformer.to(dtype)
            self.autoencoder.to(dtype)
        if footprint.resting:
            self.offload.rest()
        else:
            self.offload.wake()
        return replace(self, memory_limit=footprint, may_tile=may_tile)

    def new_state(self) -> WanState:
        past_frames = CausalMemory(HOME if self.footprint.resting is Resting.PAST_FRAMES else None)
        return WanState(self.footprint, autoencoder=past_frames)

    def restore_block(self, block: Conditioning, state: WanState) -> Estimate:
        """The estimate of one block; where memory runs out, tried again with a smaller footprint.

        Raises:
            torch.OutOfMemoryError: if not even one block without history fits.
        """
        is_smaller = False
        while True:
            try:
                if is_smaller:
                    self._shrink(state)
                return self._restore_or_rewind(block, state)
            except torch.OutOfMemoryError:
                smaller = self._smaller(state.footprint, block.size)
                if smaller is None:
                    raise
            state.footprint, is_smaller = smaller, True
            logger.warning("out of memory: going on with %s", smaller)

    def _smaller(self, footprint: Footprint, size: tuple[int, int]) -> Footprint | None:
        return footprint.smaller(
            self.settings.latents_per_block,
            may_tile=self.may_tile and max(size) > TILE_LATENTS[-1] * SPATIAL_FACTOR,
            may_rest=self.offload is not None,
        )

    def _shrink(self, state: WanState) -> None:
        """Let a state that is between two blocks take no more than its footprint says."""
        footprint = state.footprint
        if footprint.resting and self.offload is not None:
            self.offload.rest()
        if footprint.resting is Resting.PAST_FRAMES:
            state.autoencoder.move(HOME)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        state.transformer.shrink(footprint.window_latents)

    def _restore_or_rewind(self, block: Conditioning, state: WanState) -> Estimate:
        """The estimate of one block; where memory runs out, `state` is as it was before."""
        autoencoder, mark = state.autoencoder.copy(), state.transformer.mark()
        has_started = state.has_started
        try:
            return self._restore(block, state)
        except torch.OutOfMemoryError:
            state.autoencoder, state.has_started = autoencoder, has_started
            state.transformer.rewind(mark)
            raise

    def _restore(self, block: Conditioning, state: WanState) -> Estimate:
        y, enlargement = self._shown(block)
        frames = y.shape[1]
        multiple = SPATIAL_FACTOR if enlargement % PATCH == 0 else TOKEN_PIXELS
        y = _padded(y, multiple, is_first=not state.has_started)
        with torch.autocast(y.device.type, enabled=False):
            z_y = self._encoded(y, state)
            z = self._clean(enlarged(z_y, enlargement), state)
            x_hat = self._decoded(z, state)
        height, width = block.size
        x_hat = x_hat[:, :frames, :, :height, :width].float().clamp(-1, 1)
        std = x_hat.new_full((len(x_hat),), self.settings.estimate_std)
        return Estimate(x_hat=x_hat, std=std)

    def _encoded(self, y: Tensor, state: WanState) -> Tensor:
        autoencoder = self._autoencoder(state)
        chunk = TEMPORAL_FACTOR * state.footprint.chunk_latents
        first = chunk if state.has_started else chunk - (TEMPORAL_FACTOR - 1)
        state.has_started = True
        parts = [y[:, :first], *y[:, first:].split(chunk, 1)]
        with self._autoencoder_on_device():
            encoded = [
                autoencoder.encode(part.to(self.dtype), state.autoencoder)
                for part in parts
                if part.shape[1]
            ]
        return torch.cat(encoded, 1)

    def _decoded(self, z: Tensor, state: WanState) -> Tensor:
        autoencoder = self._autoencoder(state)
        parts = z.to(self.dtype).split(state.footprint.chunk_latents, 1)
        with self._autoencoder_on_device():
            return torch.cat([autoencoder.decode(part, state.autoencoder) for part in parts], 1)

    def _autoencoder(self, state: WanState) -> Autoencoder:
        tile = state.footprint.tile_latents
        return TiledAutoencoder(self.autoencoder, tile_latents=tile) if tile else self.autoencoder

    def _autoencoder_on_device(self) -> AbstractContextManager[None]:
        return nullcontext() if self.offload is None else self.offload.autoencoder_on_device()

    def _shown(self, block: Conditioning) -> tuple[Tensor, int]:
        """The frames to encode, and the factor by which their latent is enlarged."""
        if block.y_small is None:
            return block.y_view, 1
        if self.settings.sr_input is SrInput.PIXELS:
            return block.x_init, 1
        return block.y_small, block.size[1] // block.y_small.shape[-1]

    def _clean(self, z_y: Tensor, state: WanState) -> Tensor:
        """The clean latent of one block, float32."""
        settings = self.settings
        offload = self.offload
        # another session of this student may have sent the weights away
        if offload is not None and offload.is_resting and state.transformer.layers is None:
            state.transformer.layers = offload.new_turns()
        velocity = self.transformer.velocity_of_block(
            z_y,
            timestep=settings.timestep,
            text=self.text,
            memory=state.transformer,
            window_latents=state.footprint.window_latents,
            sink_latents=settings.sink_latents,
        )
        sigma = sigma_at(settings.timestep, shift=settings.shift)
        return clean_from_velocity(z_y, velocity, sigma=sigma)


def enlarged(z: Tensor, factor: int) -> Tensor:
    """Latents [B, L, c, h, w] -> [B, L, c, factor h, factor w], bilinear, corners not aligned."""
    if factor == 1:
        return z
    flat = F.interpolate(z.flatten(0, 1), scale_factor=factor, mode="bilinear")
    return flat.unflatten(0, z.shape[:2])


def _padded(y: Tensor, multiple: int, *, is_first: bool) -> Tensor:
    """Frames [B, T, 3, H, W] with the last one, row and column repeated to whole latents."""
    _, frames, _, height, width = y.shape
    missing = -(frames - 1 if is_first else frames) % TEMPORAL_FACTOR
    if missing:
        y = torch.cat([y, y[:, -1:].expand(-1, missing, -1, -1, -1)], 1)
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return y
    flat = F.pad(y.flatten(0, 1), (0, right, 0, below), mode="replicate")
    return flat.unflatten(0, y.shape[:2])
