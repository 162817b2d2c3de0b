"""How a full-size student is run, and what of it may give way to memory."""

from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum

from instantvir_models.autoencoders.base import SPATIAL_FACTOR
from instantvir_models.students.wan.schedule import sigma_at
from instantvir_models.students.wan.transformer import PATCH

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
