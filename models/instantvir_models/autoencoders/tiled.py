"""An autoencoder in tiles with exact seams: less memory at once, the same result.

What sees only its surroundings runs tile by tile, with a halo as wide as it sees; what sees the
whole frame (the attention of the Wan autoencoder, at an eighth of the size) runs on the whole.
Each tile remembers its own past, halo included, so the state of a stream grows with smaller tiles.
A stream may be cut into tiles when it has begun: each tile then takes its part of the past.
"""

from typing import Protocol

from torch import Tensor

from instantvir_models.autoencoders.base import SPATIAL_FACTOR, Autoencoder, CausalMemory, Region
from instantvir_models.tiles import scaled, tiles


class LocalAutoencoder(Autoencoder, Protocol):
    """An autoencoder whose parts next to the pixels see no further than a halo."""

    recomputes_layers: bool
    """Whether training that goes through it keeps little of its layers, and computes them again."""

    @property
    def encode_halo(self) -> int:
        """Latent pixels that one latent pixel of `encode_locally` sees to each side."""

    @property
    def decode_halo(self) -> int:
        """Latent pixels that a pixel of `decode_locally` sees to each side."""

    def encode_locally(self, x: Tensor, memory: CausalMemory) -> Tensor:
        """Features [..., h, w] of frames [B, T, 3, H, W]; then comes `encode_rest`."""

    def encode_rest(self, features: Tensor, memory: CausalMemory) -> Tensor:
        """Latents of the features of whole frames."""

    def decode_first(self, z: Tensor, memory: CausalMemory) -> Tensor:
        """Features [..., h, w] of whole latents; then comes `decode_locally`."""

    def decode_locally(self, features: Tensor, memory: CausalMemory) -> Tensor:
        """Frames [B, T, 3, H, W]."""


class TiledAutoencoder:
    """Runs `inner` tile by tile; implements `Autoencoder`.

    Args:
        tile_latents: side of the kept part of a tile in latent pixels, of 8 pixels each.
    """

    def __init__(self, inner: LocalAutoencoder, *, tile_latents: int) -> None:
        if tile_latents < 1:
            raise ValueError(f"tile_latents is 1 or more, got {tile_latents}")
        self.inner = inner
        self.tile_latents = tile_latents

    def encode(self, x: Tensor, memory: CausalMemory) -> Tensor:
        height, width = x.shape[-2] // SPATIAL_FACTOR, x.shape[-1] // SPATIAL_FACTOR
        out: Tensor | None = None
        grid = tiles(height, width, side=self.tile_latents, halo=self.inner.encode_halo)
        for index, tile in enumerate(grid):
            seen = x[(..., *scaled(tile.read, SPATIAL_FACTOR))]
            past = memory.part(index, Region(*tile.read, height))
            part = self.inner.encode_locally(seen, past)
            if out is None:
                out = part.new_empty(*part.shape[:-2], height, width)
            out[(..., *tile.write)] = part[(..., *tile.keep)]
        assert out is not None
        memory.hand_over()
        return self.inner.encode_rest(out, memory)

    def decode(self, z: Tensor, memory: CausalMemory) -> Tensor:
        features = self.inner.decode_first(z, memory)
        height, width = features.shape[-2:]
        out: Tensor | None = None
        grid = tiles(height, width, side=self.tile_latents, halo=self.inner.decode_halo)
        for index, tile in enumerate(grid):
            past = memory.part(index, Region(*tile.read, height))
            part = self.inner.decode_locally(features[(..., *tile.read)], past)
            if out is None:
                size = height * SPATIAL_FACTOR, width * SPATIAL_FACTOR
                out = part.new_empty(*part.shape[:-2], *size)
            kept = part[(..., *scaled(tile.keep, SPATIAL_FACTOR))]
            out[(..., *scaled(tile.write, SPATIAL_FACTOR))] = kept
        assert out is not None
        memory.hand_over()
        return out
