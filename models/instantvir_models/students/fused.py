"""The fused student: neighbouring frames averaged by arithmetic, then one network per frame.

What it is given is brought to a common footing first: the local mean of each frame is taken away
and added back at the end, so that f(y + c) = f(y) + c whatever the colours, and what is left is
divided by how far it is expected to be off (the preconditioning of Karras et al., 2022). The network
then only says what is picture and what is error:

    initial estimate and its variance -> average over time (`fusion`) -> Haar latent (half size)
    -> convolutions at 1/2, 1/4 and 1/8 -> gates on the Haar bands, and a residual
    -> how large the error is that remains

Nothing learned is carried from frame to frame; the past is one mean and one variance.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instantvir_models.autoencoders.haar import haar, inverse_haar
from instantvir_models.operators.measurement import LEVEL, ROUNDING_STD
from instantvir_models.students.base import NUM_TRAITS, Conditioning, Estimate
from instantvir_models.students.enlarge import FACTOR, Enlarger
from instantvir_models.students.fusion import (
    CORRELATED_FLOOR,
    Belief,
    beliefs,
    fused_block,
    local_mean,
    pictures,
)
from instantvir_models.students.layers import Film, Residual, padded
from instantvir_models.students.tiled import TiledStudent

SIZE_MULTIPLE = 8
"""Frames are padded to a multiple of this: three halvings."""

TILE_ABOVE_PIXELS = 1_400_000
"""Larger frames than this (such as 1440x960) are restored in tiles."""

BAND_STD = (0.25, 0.106, 0.104, 0.033)
"""Standard deviation of the Haar bands of natural frames less their local mean, [-1, 1] range."""

PICTURE_STD = 0.25
"""What the network's input and output are scaled by where there is little error."""

LOSSY_STD = 3 * LEVEL
"""What a codec is taken to have added to the noise it was told of."""

OPEN_GATE = 4.0
"""Logit of a gate that lets everything pass: where a linear inverse has weighed the bands already."""

INPUT_CHANNELS = 53
NUM_CODES = NUM_TRAITS + 3


@dataclass(frozen=True, kw_only=True)
class FusedConfig:
    """Size of a fused student."""

    frames_per_block: int = 3
    fine_channels: int = 48
    coarse_channels: int = 64
    bottom_channels: int = 96
    fine_layers: int = 1
    coarse_layers: int = 2
    bottom_layers: int = 1
    enlarger_layers: int = 0
    """Of the branch that enlarges by four at the small size; 0 leaves it to the network."""
    enlarger_channels: int = 64


@dataclass
class FusedState:
    """The memory of one video: what its past has come to, for each member of the batch."""

    past: list[Belief] = field(default_factory=list)


@dataclass(frozen=True)
class Start:
    """Frames before the network: what is known, and how well. n frames, sizes padded."""

    x_init: Tensor
    """[n, 3, H, W]."""
    x_bar: Tensor
    """[n, 3, H, W] averaged over time."""
    variance_init: Tensor
    """[n, 1, H, W] of the error of x_init."""
    variance: Tensor
    """[n, 1, H, W] of the error of x_bar."""
    y_view: Tensor
    known: Tensor
    traits: Tensor
    """[n, NUM_TRAITS]."""
    y_small: Tensor | None = None
    """[n, 3, h, w] where the branch for enlargement is to do it; then nothing was averaged."""


@dataclass(frozen=True)
class Refined:
    """Frames after the network."""

    x_hat: Tensor
    """[n, 3, H, W]."""
    variance: Tensor
    """[n, 1, H/4, W/4] of the error of x_hat, as the network expects it."""


class FusedStudent(nn.Module):
    """The embedded student; implements `Student`."""

    def __init__(self, config: FusedConfig) -> None:
        super().__init__()
        self.config = config
        fine, coarse, bottom = config.fine_channels, config.coarse_channels, config.bottom_channels
        self.enter = nn.Conv2d(INPUT_CHANNELS, fine, 3, padding=1)
        self.fine_in = _layers(fine, config.fine_layers, is_normed=False)
        self.to_coarse = nn.Conv2d(fine, coarse, 2, stride=2)
        self.coarse_in = _layers(coarse, config.coarse_layers, is_normed=True)
        self.to_bottom = nn.Conv2d(coarse, bottom, 2, stride=2)
        self.bottom = _layers(bottom, config.bottom_layers, is_normed=True)
        self.from_bottom = nn.ConvTranspose2d(bottom, coarse, 2, stride=2)
        self.coarse_out = _layers(coarse, config.coarse_layers, is_normed=True)
        self.from_coarse = nn.ConvTranspose2d(coarse, fine, 2, stride=2)
        self.fine_out = _layers(fine, config.fine_layers, is_normed=False)
        self.head = nn.Conv2d(fine, 24, 3, padding=1)
        self.head_error = nn.Sequential(nn.Conv2d(coarse, 16, 1), nn.ReLU(), nn.Conv2d(16, 1, 1))
        self.film = Film([layer.width for layer in self._in_order()], num_codes=NUM_CODES)
        self.enlarger = (
            Enlarger(config.enlarger_channels, config.enlarger_layers, num_codes=NUM_CODES)
            if config.enlarger_layers
            else None
        )
        with torch.no_grad():
            self.head.weight *= 0.1
            for last in (self.head, self.head_error[-1]):
                assert isinstance(last.bias, nn.Parameter)
                last.bias.zero_()
            self.head_error[-1].weight.zero_()  # type: ignore[operator]

    def _in_order(self) -> list[Residual]:
        order = self.fine_in, self.coarse_in, self.bottom, self.coarse_out, self.fine_out
        return [layer for layers in order for layer in layers if isinstance(layer, Residual)]

    @property
    def frames_per_block(self) -> int:
        return self.config.frames_per_block

    @property
    def first_block_frames(self) -> int:
        return self.config.frames_per_block

    @property
    def tile_above_pixels(self) -> int | None:
        return TILE_ABOVE_PIXELS

    def in_tiles(self, tile_pixels: int) -> "TiledStudent[FusedState]":
        return TiledStudent(self, tile_pixels=tile_pixels)

    def new_state(self) -> FusedState:
        return FusedState()

    def restore_block(self, block: Conditioning, state: FusedState) -> Estimate:
        return self._estimate(self.start(block, state), block)

    def restore_sequence(self, sequence: Conditioning) -> Estimate:
        """Whole sequence at once; equals `restore_block` block after block."""
        return self._estimate(self.start(sequence, self.new_state()), sequence)

    def _estimate(self, start: Start, block: Conditioning) -> Estimate:
        batch, frames = block.x_init.shape[:2]
        height, width = block.size
        # frame by frame: a frame's features fit in the cache of a CPU
        each = [self.refine(_frame(start, i)) for i in range(batch * frames)]
        x_hat = torch.cat([one.x_hat for one in each])[..., :height, :width]
        variance = torch.cat([one.variance for one in each]).unflatten(0, (batch, frames))
        return Estimate(
            x_hat=x_hat.unflatten(0, (batch, frames)).to(block.x_init.device),
            std=variance.mean((1, 2, 3, 4)).sqrt(),
        )

    @torch.no_grad()
    def start(self, sequence: Conditioning, state: FusedState) -> Start:
        """The frames of `sequence` averaged over time; `state` then also holds them."""
        batch, frames = sequence.x_init.shape[:2]
        x_init, y_view, known = (
            padded(t.flatten(0, 1), SIZE_MULTIPLE)
            for t in (sequence.x_init, sequence.y_view, sequence.known)
        )
        traits = sequence.traits.repeat_interleave(frames, 0)
        variance_init = initial_variance(x_init, known, traits)
        y_small = self._enlarged_from(sequence)
        if y_small is not None:
            return Start(
                x_init, x_init, variance_init, variance_init, y_view, known, traits, y_small
            )
        floors = CORRELATED_FLOOR * _is_inverse(sequence.traits).float()
        x_bar, variance = [], []
        for b in range(batch):
            mine = slice(b * frames, (b + 1) * frames)
            past = state.past[b] if state.past else None
            found = beliefs(x_init[mine], variance_init[mine])
            fused: list[Belief] = []
            for first in range(0, frames, self.frames_per_block):
                part, past = fused_block(
                    found[first : first + self.frames_per_block], past, floor=float(floors[b])
                )
                fused += part
            assert past is not None
            state.past[b : b + 1] = [past]
            means, variances = pictures(fused)
            x_bar.append(means)
            variance.append(variances)
        return Start(
            x_init=x_init,
            x_bar=torch.cat(x_bar).to(x_init),
            variance_init=variance_init,
            variance=torch.cat(variance).to(x_init),
            y_view=y_view,
            known=known,
            traits=traits,
        )

    def _enlarged_from(self, sequence: Conditioning) -> Tensor | None:
        """The small frames [n, 3, h, w] if the branch for enlargement is to restore them."""
        y_small = sequence.y_small
        if self.enlarger is None or y_small is None:
            return None
        is_by_four = y_small.shape[-1] * FACTOR == sequence.x_init.shape[-1]
        return y_small.flatten(0, 1) if is_by_four else None

    def refine(self, start: Start) -> Refined:
        """What the network makes of frames that were averaged over time."""
        if start.y_small is not None:
            return self._enlarged(start, start.y_small)
        mu = local_mean(start.x_bar)
        bands = haar(start.x_bar - mu)
        s = start.variance_init.mean((1, 2, 3), keepdim=True).sqrt()
        variance = F.avg_pool2d(start.variance, 2)
        s_bar = variance.sqrt()
        scale = (variance + PICTURE_STD**2).rsqrt()
        seen = torch.cat(
            [
                bands * scale,
                2 * torch.tanh(bands / (4 * s_bar)),
                2 * torch.tanh(haar(start.x_init - start.x_bar) / (4 * s)),
                haar((start.y_view - mu) * start.known) * (s.square() + PICTURE_STD**2).rsqrt(),
                haar(start.known),
                0.5 * torch.log(variance / s.square()).clamp_min(-8),
            ],
            1,
        )
        codes = iter(self.film(self._codes(start.traits, s, start.variance)))
        x = self.enter(seen.contiguous(memory_format=torch.channels_last))
        x = _through(self.fine_in, x, codes)
        y = _through(self.coarse_in, self.to_coarse(x), codes)
        z = _through(self.bottom, self.to_bottom(y), codes)
        y = _through(self.coarse_out, self.from_bottom(z).add_(y), codes)
        x = _through(self.fine_out, self.from_coarse(y).add_(x), codes)
        residual, gate = self.head(x).float().split(12, 1)

        gates = torch.sigmoid(2 * gate + _first_gate(variance, start.traits))
        x_hat = mu + inverse_haar(bands * gates + residual * (PICTURE_STD * s_bar * scale))
        log_ratio = self.head_error(y.detach()).float().clamp(-4, 3)
        expected = F.avg_pool2d(start.variance, 4) * torch.exp(2 * log_ratio - 1)
        return Refined(x_hat=x_hat, variance=expected)

    def _enlarged(self, start: Start, y_small: Tensor) -> Refined:
        assert self.enlarger is not None
        s = start.variance_init.mean((1, 2, 3), keepdim=True).sqrt()
        added, log_ratio = self.enlarger(
            y_small,
            noise=_noise_variance(start.traits).sqrt(),
            codes=self._codes(start.traits, s, start.variance_init),
        )
        height, width = added.shape[-2:]
        scale = PICTURE_STD * s * (s.square() + PICTURE_STD**2).rsqrt()
        return Refined(
            x_hat=start.x_init[..., :height, :width] + scale * added,
            variance=s.square() * torch.exp(2 * log_ratio - 1),
        )

    def _codes(self, traits: Tensor, s: Tensor, variance: Tensor) -> Tensor:
        """[n, NUM_CODES] what every layer is told."""
        log_s = s.flatten(1).log10()
        log_s_bar = 0.5 * variance.mean((1, 2, 3))[:, None].log10()
        return torch.cat([traits, log_s + 1.5, log_s_bar + 1.5, 2 * (log_s_bar - log_s)], 1)


def _layers(channels: int, count: int, *, is_normed: bool) -> nn.ModuleList:
    return nn.ModuleList(Residual(channels, is_normed=is_normed) for _ in range(count))


def _through(layers: nn.ModuleList, x: Tensor, codes: Iterator[Tensor]) -> Tensor:
    for layer in layers:
        x = layer(x, next(codes))
    return x


def _frame(start: Start, i: int) -> Start:
    """Frame i of `start`."""
    present = {name: value for name, value in vars(start).items() if value is not None}
    return Start(**{name: value[i : i + 1] for name, value in present.items()})


def _first_gate(variance: Tensor, traits: Tensor) -> Tensor:
    """Logits [n, 12, h, w] a gate starts from: a Wiener filter against what white noise is left."""
    noise = torch.minimum(variance, _noise_variance(traits))
    powers = variance.new_tensor(BAND_STD).square().repeat_interleave(3)[:, None, None]
    wiener = (powers / noise).log().clamp_max(OPEN_GATE)
    return torch.where(_is_inverse(traits)[:, None, None, None], OPEN_GATE, wiener)


def _is_inverse(traits: Tensor) -> Tensor:
    """[n], whether the initial estimate inverts a blur or a down-sampling."""
    return (traits[:, [0, 3, 4, 5, 9]] > 0).any(1)


def _noise_variance(traits: Tensor) -> Tensor:
    """[n, 1, 1, 1] of what was measured, as far as it was told."""
    told = (traits[:, 10] / 10).square() + traits[:, 12] * LOSSY_STD**2
    return (told + ROUNDING_STD**2)[:, None, None, None]


def initial_variance(x_init: Tensor, known: Tensor, traits: Tensor) -> Tensor:
    """[n, 1, H, W] how far x_init [n, 3, H, W] is expected to be off, squared.

    What was measured directly is off by its noise. Where something was inverted or filled in, an
    exponential of a linear fit to how much fine detail the estimate has and to what it was told
    (`FILLED`, `INVERTED`).
    """
    noise = _noise_variance(traits)
    detail = haar(x_init)[:, 3:].square().mean((1, 2, 3))
    log_detail = (detail + 1e-6).log()
    log_noise = noise.flatten().log()
    told = torch.stack(
        [
            torch.ones_like(log_detail), log_detail, log_noise, log_detail * log_noise,
            traits[:, 0], traits[:, 1], traits[:, 3], traits[:, 4], traits[:, 5], traits[:, 6],
            traits[:, 7],
        ],
        1,
    )  # fmt: skip
    filled = noise + _fitted(told, FILLED)
    variance = torch.where(known > 0, noise, filled)
    inverse = _is_inverse(traits)[:, None, None, None]
    return torch.where(inverse, _fitted(told, INVERTED).expand_as(variance), variance)


def _fitted(told: Tensor, weights: tuple[float, ...]) -> Tensor:
    fit = (told @ told.new_tensor(weights)).clamp(2 * math.log(LEVEL / 4), 0)
    return fit.exp()[:, None, None, None]


FILLED = (-0.977, 0.627, -0.122, -0.034, 0, 0, 0, 0, 0, 0, -0.927)
"""Logarithm of the squared error of filled holes, fitted to training samples (within 3.5 dB)."""

INVERTED = (-1.858, 0.307, -0.11, -0.047, 3.159, -0.729, 1.049, 1.8, 2.544, 0.05, -1.858)
"""The same of sharpened or enlarged frames (within 3.9 dB); enlargement by 3 between 2 and 4."""
