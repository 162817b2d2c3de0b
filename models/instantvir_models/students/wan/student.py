"""The full-size student: encode the measurement, one pass of the transformer, decode."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instantvir_kernels.graphs import Recorder, recorder_for
from instantvir_models.autoencoders.base import (
    SPATIAL_FACTOR,
    TEMPORAL_FACTOR,
    Autoencoder,
    CausalMemory,
)
from instantvir_models.autoencoders.lean import LeanVAE
from instantvir_models.autoencoders.tiled import LocalAutoencoder, TiledAutoencoder
from instantvir_models.autoencoders.wan import WanVAE
from instantvir_models.students.base import Conditioning, Estimate
from instantvir_models.students.capabilities import Capabilities
from instantvir_models.students.fitting import FitRequest, Fitted
from instantvir_models.students.text import TextFormat, TextRows
from instantvir_models.students.wan.fit import Networks, fitted
from instantvir_models.students.wan.offload import HOME, Offload
from instantvir_models.students.wan.schedule import clean_from_velocity, sigma_at
from instantvir_models.students.wan.settings import (
    TILE_LATENTS,
    TOKEN_PIXELS,
    Footprint,
    Resting,
    SrInput,
    WanSettings,
)
from instantvir_models.students.wan.transformer import PATCH, WanMemory, WanTransformer

logger = logging.getLogger(__name__)


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
    new_recorder: Callable[[], Recorder] | None = None
    """Records the steady block of each video, such as `CudaRecorder`; None launches every step."""

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
    def capabilities(self) -> Capabilities:
        config = self.transformer.config
        return Capabilities(
            devices=("cuda", "cpu"),
            text=TextFormat(config.text_dim, config.text_len),
            has_words=self.text.rows.shape[1] > 0,
            weights_dtype=self.dtype,
            can_be_fitted=True,
        )

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
        return replace(
            self,
            offload=Offload(self.transformer, blocks, autoencoder, device),
            new_recorder=recorder_for(device.type),
        )

    def fitted(self, request: FitRequest) -> "Fitted[WanStudent]":
        """This student on its device, keeping to the memory there is; after `for_device`."""
        autoencoder = self.autoencoder
        assert isinstance(autoencoder, (LeanVAE, WanVAE))
        networks = Networks(
            self.transformer.config, autoencoder.config, self.settings, self.text.attended_rows
        )
        return fitted(networks, self.dtype, request, place=self.placed)

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
        recorder = None if self.new_recorder is None else self.new_recorder()
        return WanState(self.footprint, WanMemory(recorder=recorder), past_frames)

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

    def restore_sequence(self, sequence: Conditioning) -> Estimate:
        """The estimate of a whole video at once under the block-causal mask: how it is trained.

        Equals `restore_block` block after block while the video is no longer than the window.
        """
        return self._restore(sequence, self.new_state(), is_sequence=True)

    def _restore(
        self, block: Conditioning, state: WanState, *, is_sequence: bool = False
    ) -> Estimate:
        y, enlargement = self._shown(block)
        frames = y.shape[1]
        multiple = SPATIAL_FACTOR if enlargement % PATCH == 0 else TOKEN_PIXELS
        y = _padded(y, multiple, is_first=not state.has_started)
        with _as_stored(y.device):
            z_y = self._encoded(y, state)
            z_y = enlarged(z_y, enlargement)
            velocity = (self._velocity_of_sequence if is_sequence else self._velocity)(z_y, state)
            sigma = sigma_at(self.settings.timestep, shift=self.settings.shift)
            z = clean_from_velocity(z_y, velocity, sigma=sigma)
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

    def _velocity_of_sequence(self, z_y: Tensor, state: WanState) -> Tensor:
        return self.transformer.velocity_of_sequence(
            z_y,
            timestep=self.settings.timestep,
            text=self.text,
            latents_per_block=self.settings.latents_per_block,
        )

    def _velocity(self, z_y: Tensor, state: WanState) -> Tensor:
        settings = self.settings
        offload = self.offload
        # another session of this student may have sent the weights away
        if offload is not None and offload.is_resting and state.transformer.layers is None:
            state.transformer.layers = offload.new_turns()
        return self.transformer.velocity_of_block(
            z_y,
            timestep=settings.timestep,
            text=self.text,
            memory=state.transformer,
            window_latents=state.footprint.window_latents,
            sink_latents=settings.sink_latents,
        )


def _as_stored(device: torch.device) -> AbstractContextManager[None]:
    """Multiplies in the types that things are in, whatever mixed precision surrounds it."""
    if device.type == "meta":  # knows no mixed precision
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


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
