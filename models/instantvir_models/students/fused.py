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

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instantvir_models.autoencoders.haar import haar, inverse_haar
from instantvir_models.operators.measurement import LEVEL, LOSSY_STD, ROUNDING_STD
from instantvir_models.students.base import ERROR_CELL, Conditioning, Estimate
from instantvir_models.students.capabilities import Capabilities, Seen
from instantvir_models.students.clipping import unclipped_mean
from instantvir_models.students.embedded import (
    SIZE_MULTIPLE,
    TILE_ABOVE_PIXELS,
    EmbeddedStudent,
)
from instantvir_models.students.enlarge import FACTOR, Enlarger
from instantvir_models.students.fusion import (
    CORRELATED_FLOOR,
    MEAN_STRIDE,
    MEAN_WINDOW,
    Belief,
    beliefs,
    enlarged_mean,
    fused_block,
    mean_around,
)
from instantvir_models.students.layers import (
    Conv1x1,
    Conv3x3,
    Doubling,
    Film,
    Halving,
    Residual,
    laid_out,
    normed,
    padded,
    squashed,
)
from instantvir_models.students.pilot import ERROR_LEFT, FILLED_ERROR_LEFT, along, filled, filtered

BAND_STD = (0.25, 0.106, 0.104, 0.033)
"""Standard deviation of the Haar bands of natural frames less their local mean, [-1, 1] range."""

PICTURE_STD = 0.25
"""What the network's input and output are scaled by where there is little error."""

MOST_NOISE = 1.5
"""By how many deviations of the noise a pixel between holes may leave what was measured: .1 dB on
held-out crops at 2.5 levels, for seen at half size beside holes it is easily forgotten."""

OPEN_GATE = 4.0
"""Logit of a gate that lets everything pass: where a linear inverse has weighed the bands already."""

INPUT_CHANNELS = 53

LOW_WINDOW = 9
"""Means over 8x8 pixels from whose own mean, a square of so many of them, each is told apart."""

TRAITS = (
    "blur_sigma", "log_blur_sigma", "is_blurred", "is_scaled_by_2", "is_scaled_by_3",
    "is_scaled_by_4_or_more", "is_antialiased_cubic", "known_fraction", "has_holes",
    "temporal_sigma", "noise_std", "log_noise_std", "is_lossy", "is_identity",
)  # fmt: skip
"""What new students are told."""

NUM_LEVELS = 3
"""Numbers that each layer is told besides: how far its frame is off, before and after averaging."""

SEEN = Seen(
    operators=(
        {"blur_sigma": (0, 5), "blur_departure": (0, 0.02)},
        {"scale": (2, 4), "is_antialiased_cubic": (0, 1), "blur_sigma": (0, 2),
         "blur_departure": (0, 0.02)},
        {"known_fraction": (0.1, 1)},
    ),
    noise_levels=(0, 60),
)  # fmt: skip
"""What students are trained on by the recipes."""


@dataclass(frozen=True, kw_only=True)
class FusedConfig:
    """Size of a fused student."""

    frames_per_block: int = 3
    fine_channels: int = 48
    coarse_channels: int = 64
    bottom_channels: int = 96
    fine_layers: int = 1
    coarse_layers: int = 2
    bottom_layers: int = 2
    enlarger_layers: int = 0
    """Of the branch that enlarges by four at the small size; 0 leaves it to the network."""
    enlarger_channels: int = 64
    traits: tuple[str, ...] = TRAITS
    """Names of the numbers it is told about operator and noise."""


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
    """[n, traits] what was told."""
    y_small: Tensor | None = None
    """[n, 3, h, w] where the branch for enlargement is to do it; then nothing was averaged."""


@dataclass(frozen=True)
class Refined:
    """Frames after the network."""

    x_hat: Tensor
    """[n, 3, H, W]."""
    variance: Tensor
    """[n, 1, H/4, W/4] of the error of the result, as the network expects it."""


class FusedStudent(EmbeddedStudent[FusedState]):
    """The embedded student; implements `Student`.

    Args:
        seen: what it was, or is to be, trained on.
    """

    config: FusedConfig

    def __init__(self, config: FusedConfig, *, seen: Seen = SEEN) -> None:
        super().__init__(config, seen=seen)
        fine, coarse, bottom = config.fine_channels, config.coarse_channels, config.bottom_channels
        num_codes = len(config.traits) + NUM_LEVELS
        self.enter = Conv3x3(INPUT_CHANNELS, fine)
        self.fine_in = _layers(fine, config.fine_layers, is_normed=False)
        self.to_coarse = Halving(fine, coarse)
        self.coarse_in = _layers(coarse, config.coarse_layers, is_normed=True)
        self.to_bottom = Halving(coarse, bottom)
        self.enter_bottom = Conv3x3(2 * 3, bottom)
        self.bottom = _layers(bottom, config.bottom_layers, is_normed=True)
        self.from_bottom = Doubling(bottom, coarse)
        self.coarse_out = _layers(coarse, config.coarse_layers, is_normed=True)
        self.from_coarse = Doubling(coarse, fine)
        self.fine_out = _layers(fine, config.fine_layers, is_normed=False)
        self.head = Conv3x3(fine, 24)
        self.head_mean = Conv3x3(bottom, 3)
        self.head_error = ErrorHead(coarse, num_codes=num_codes)
        self.film = Film([layer.width for layer in self._in_order()], num_codes=num_codes)
        self.enlarger = (
            Enlarger(config.enlarger_channels, config.enlarger_layers, num_codes=num_codes)
            if config.enlarger_layers
            else None
        )
        with torch.no_grad():
            self.head.weight *= 0.1
            self.head_mean.weight *= 0.1
            for last in (self.head, self.head_mean):
                assert last.bias is not None
                last.bias.zero_()

    def _in_order(self) -> list[Residual]:
        order = self.fine_in, self.coarse_in, self.bottom, self.coarse_out, self.fine_out
        return [layer for layers in order for layer in layers if isinstance(layer, Residual)]

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            devices=("cpu", "cuda", "mps", "xpu"),
            tile_above_pixels=TILE_ABOVE_PIXELS,
            seen=self.seen,
            traits=self.config.traits,
        )

    @property
    def device(self) -> torch.device:
        """Where its network is."""
        return self.enter.weight.device

    def for_device(self, device: torch.device) -> Self:
        return self if device == self.device else copy.deepcopy(self).to(device)

    def new_state(self) -> FusedState:
        return FusedState()

    def restore_block(self, block: Conditioning, state: FusedState) -> Estimate:
        return self._estimate(self.start(block, state), block)

    def restore_sequence(self, sequence: Conditioning) -> Estimate:
        """Whole sequence at once, block after block; `std` is that over all of them."""
        state, frames = self.new_state(), sequence.x_init.shape[1]
        each = [
            self.restore_block(sequence.during(slice(i, i + self.frames_per_block)), state)
            for i in range(0, frames, self.frames_per_block)
        ]
        variances = torch.stack([estimate.std.square() for estimate in each])
        x_hat = torch.cat([one.x_hat for one in each], 1)
        maps = [one.std_map for one in each if one.std_map is not None]
        std = variances.mean(0).sqrt()
        return Estimate(x_hat, std, is_final=each[0].is_final, std_map=torch.cat(maps, 1))

    def _estimate(self, start: Start, block: Conditioning) -> Estimate:
        height, width = block.size
        is_final = self.is_final(block.traits)  # asked before the device has anything to do
        noise_stds, has_holes = self._white_noise(block.traits), self._has_exact_holes(block.traits)
        each = [self.refine(part) for part in self._parts(start)]
        shape = block.x_init.shape[:2]
        variance = torch.cat([one.variance for one in each]).unflatten(0, shape)
        x_hat = torch.cat([one.x_hat[..., :height, :width] for one in each]).unflatten(0, shape)
        for b, noise_std in enumerate(noise_stds):
            y, known = (t[b].to(x_hat) for t in (block.y_view, block.known))
            if noise_std > 0:
                x_hat[b] = filtered(x_hat[b], torch.lerp(x_hat[b], y, known), noise_std)
                variance[b] *= along(noise_std, ERROR_LEFT) ** 2
            elif has_holes[b]:
                x_hat[b] = filled(x_hat[b], y, known, variance[b].mean())
                variance[b] *= FILLED_ERROR_LEFT**2
        std = variance.mean((1, 2, 3, 4)).sqrt()
        cells = variance[..., : -(-height // ERROR_CELL), : -(-width // ERROR_CELL)].sqrt()
        x_hat, std, std_map = (t.to(block.x_init.device) for t in (x_hat, std, cells))
        return Estimate(x_hat, std, is_final=is_final, std_map=std_map)

    def _parts(self, start: Start) -> list[Start]:
        """What the network sees at once, where it is: all on a card; on a CPU frame by frame, whose
        features fit in its cache."""
        if self.device.type != "cpu":
            return [_each(start, lambda value: value.to(self.device))]
        return [_each(start, itemgetter(slice(i, i + 1))) for i in range(len(start.x_init))]

    def is_final(self, traits: Tensor) -> bool:
        """Whether, told `traits` [B, n] of one degradation, it weighs the measurement itself."""
        told = self._told(traits[:1])
        return bool(told.is_off & ~told.is_inverse)

    def _white_noise(self, traits: Tensor) -> list[float]:
        """Of each of the batch, what noise alone took of the pixels that are there, [-1, 1] range; 0 where
        there is more to it."""
        told = self._told(traits)
        is_seen = ((told["is_identity"] > 0) | (told["has_holes"] > 0)) & ~told.is_inverse
        is_alone = is_seen & (told["noise_std"] > 0) & (told["is_lossy"] == 0)
        return (told.noise_variance.flatten().sqrt() * is_alone).tolist()

    def _has_exact_holes(self, traits: Tensor) -> list[bool]:
        """Of each of the batch, whether pixels are missing beside others that are exact."""
        told = self._told(traits)
        return ((told["has_holes"] > 0) & ~told.is_off & ~told.is_inverse).tolist()

    @torch.no_grad()
    def start(self, sequence: Conditioning, state: FusedState) -> Start:
        """The frames of `sequence` averaged over time; `state` then also holds them."""
        batch, frames = sequence.x_init.shape[:2]
        x_init, y_view, known = (
            padded(t.flatten(0, 1), SIZE_MULTIPLE)
            for t in (sequence.x_init, sequence.y_view, sequence.known)
        )
        traits = sequence.traits.repeat_interleave(frames, 0)
        told = self._told(traits)
        variance_init = initial_variance(x_init, known, told)
        y_small = self._enlarged_from(sequence)
        if y_small is not None:
            return Start(
                x_init, x_init, variance_init, variance_init, y_view, known, traits, y_small
            )
        floors = CORRELATED_FLOOR * (told.is_inverse | (told["is_lossy"] > 0)).float()
        fused: list[Belief] = []
        for b in range(batch):
            mine = slice(b * frames, (b + 1) * frames)
            past = state.past[b].on(x_init.device) if b < len(state.past) else None
            found = beliefs(x_init[mine], variance_init[mine])
            for first in range(0, frames, self.frames_per_block):
                part, past = fused_block(
                    found[first : first + self.frames_per_block],
                    past,
                    floor=floors[b * frames],
                )
                fused += part
            assert past is not None
            state.past[b : b + 1] = [past]
        return Start(
            x_init=x_init,
            x_bar=torch.stack([belief.mean for belief in fused]).to(x_init),
            variance_init=variance_init,
            variance=torch.stack([belief.variance for belief in fused]).to(x_init),
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
        told = self._told(start.traits)
        small = F.avg_pool2d(start.x_bar, MEAN_STRIDE)
        mean = mean_around(small, MEAN_WINDOW)
        mu = enlarged_mean(mean)
        bands = haar(start.x_bar - mu)
        s = start.variance_init.mean((1, 2, 3), keepdim=True).sqrt()
        variance = F.avg_pool2d(start.variance, 2)
        in_cells = F.avg_pool2d(variance, ERROR_CELL // 2)
        s_bar = variance.sqrt()
        scale = (variance + PICTURE_STD**2).rsqrt()
        seen = torch.cat(
            [
                bands * scale,
                squashed(bands / s_bar),
                squashed(haar(start.x_init - start.x_bar) / s),
                haar((start.y_view - mu) * start.known) * (s.square() + PICTURE_STD**2).rsqrt(),
                haar(start.known),
                0.5 * torch.log(variance / s.square()).clamp_min(-8),
            ],
            1,
        )
        told_codes = self._codes(start.traits, s, start.variance)
        codes = iter(self.film(told_codes))
        x = self.enter(laid_out(seen))
        x = _through(self.fine_in, x, codes)
        y = _through(self.coarse_in, self.to_coarse(x), codes)
        std_small = F.avg_pool2d(in_cells, MEAN_STRIDE // ERROR_CELL).sqrt() / MEAN_STRIDE
        low = laid_out(_low_view(small, std_small), self.config.bottom_channels)
        z = self.to_bottom(y) + self.enter_bottom(low)
        z = _through(self.bottom, z, codes)
        y = _through(self.coarse_out, self.from_bottom(z, y), codes)
        x = _through(self.fine_out, self.from_coarse(y, x), codes)
        residual, gate = self.head(x).float().split(12, 1)

        gates = torch.sigmoid(2 * gate + _first_gate(variance, told))
        mean = mean + std_small * self.head_mean(z).float()
        bands = torch.addcmul(bands * gates, residual, PICTURE_STD * s_bar * scale)
        x_hat = enlarged_mean(_unclipped(mean, start.y_view, told)) + inverse_haar(bands)
        x_hat = _near_measured(x_hat, start, told)
        log_ratio = self.head_error(y.detach(), told_codes).float().clamp(-4, 3)
        return Refined(x_hat=x_hat, variance=in_cells * torch.exp(2 * log_ratio - 1))

    def _enlarged(self, start: Start, y_small: Tensor) -> Refined:
        assert self.enlarger is not None
        s = start.variance_init.mean((1, 2, 3), keepdim=True).sqrt()
        added, log_ratio = self.enlarger(
            y_small,
            noise=self._told(start.traits).noise_variance.sqrt(),
            codes=self._codes(start.traits, s, start.variance_init),
        )
        height, width = added.shape[-2:]
        scale = PICTURE_STD * s * (s.square() + PICTURE_STD**2).rsqrt()
        return Refined(
            x_hat=start.x_init[..., :height, :width] + scale * added,
            variance=s.square() * torch.exp(2 * log_ratio - 1),
        )

    def _told(self, traits: Tensor) -> "_Told":
        return _Told(dict(zip(self.config.traits, traits.unbind(1), strict=True)))

    def _codes(self, traits: Tensor, s: Tensor, variance: Tensor) -> Tensor:
        """[n, traits + NUM_LEVELS] what every layer is told."""
        log_s = s.flatten(1).log10()
        log_s_bar = 0.5 * variance.mean((1, 2, 3))[:, None].log10()
        return torch.cat([traits, log_s + 1.5, log_s_bar + 1.5, 2 * (log_s_bar - log_s)], 1)


class ErrorHead(nn.Module):
    """The logarithm of the remaining over the expected error, [n, 1, h, w]: of what is there to see
    and of what was told."""

    def __init__(self, channels: int, *, num_codes: int, hidden: int = 32) -> None:
        super().__init__()
        self.seen = Conv1x1(channels, hidden)
        self.told = nn.Sequential(
            nn.Linear(num_codes, hidden), nn.SiLU(), nn.Linear(hidden, hidden)
        )
        self.out = Conv1x1(hidden, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.constant_(self.out.bias, 0.5)  # type: ignore[arg-type]

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        """x [n, channels, h, w], codes [n, num_codes]."""
        hidden = self.seen(normed(x)) + self.told(codes)[:, :, None, None]
        return self.out(F.relu(hidden))


def _layers(channels: int, count: int, *, is_normed: bool) -> nn.ModuleList:
    return nn.ModuleList(Residual(channels, is_normed=is_normed) for _ in range(count))


def _through(layers: nn.ModuleList, x: Tensor, codes: Iterator[Tensor]) -> Tensor:
    for layer in layers:
        x = layer(x, next(codes))
    return x


def _each(start: Start, change: Callable[[Tensor], Tensor]) -> Start:
    """`start` with every tensor changed."""
    present = {name: value for name, value in vars(start).items() if value is not None}
    return Start(**{name: change(value) for name, value in present.items()})


class _Told:
    """What n frames were told, by name; what was not told is 0."""

    def __init__(self, by_name: dict[str, Tensor]) -> None:
        self._by_name = by_name
        self._nothing = torch.zeros_like(next(iter(by_name.values())))

    def __getitem__(self, name: str) -> Tensor:
        """[n]."""
        return self._by_name.get(name, self._nothing)

    @property
    def is_inverse(self) -> Tensor:
        """[n], whether the initial estimate inverts a blur or a down-sampling."""
        return torch.stack([self[name] for name in INVERSES]).gt(0).any(0)

    @property
    def is_off(self) -> Tensor:
        """[n], whether noise or a codec took its part of what was measured."""
        return (self["noise_std"] > 0) | (self["is_lossy"] > 0)

    @property
    def noise_variance(self) -> Tensor:
        """[n, 1, 1, 1] of what was measured."""
        noise = (self["noise_std"] / 10).square() + self["is_lossy"] * LOSSY_STD**2
        return (noise + ROUNDING_STD**2)[:, None, None, None]


INVERSES = (
    "blur_sigma", "is_scaled_by_2", "is_scaled_by_3", "is_scaled_by_4_or_more", "temporal_sigma",
)  # fmt: skip


def _unclipped(mean: Tensor, y_view: Tensor, told: _Told) -> Tensor:
    """Local means [n, 3, h, w] as they were before noise was cut off at black and white."""
    is_clipped = (y_view.abs().amax((1, 2, 3)) <= 1 + ROUNDING_STD) & ~told.is_inverse
    was = unclipped_mean(mean, told["noise_std"] / 10)
    return torch.where(is_clipped[:, None, None, None], was, mean)


def _low_view(small: Tensor, std: Tensor) -> Tensor:
    """[n, 6, h, w] what means over 8x8 pixels differ by from those far around them, seen twice.

    Args:
        small: [n, 3, h, w] the means.
        std: [n, 1, h, w] of their error, were it white.
    """
    low = small - mean_around(small, LOW_WINDOW)
    scale = (std.square() + PICTURE_STD**2).rsqrt()
    return torch.cat([low * scale, squashed(low / std)], 1)


def _near_measured(x_hat: Tensor, start: Start, told: _Told) -> Tensor:
    """x_hat [n, 3, H, W] no further from y at the pixels between holes than noise goes."""
    has_holes = (told["has_holes"] > 0) & ~told.is_inverse
    is_between = (start.known > 0) & has_holes[:, None, None, None]
    most = torch.where(is_between, MOST_NOISE * told.noise_variance.sqrt(), math.inf)
    return x_hat.clamp(start.y_view - most, start.y_view + most)


def _first_gate(variance: Tensor, told: _Told) -> Tensor:
    """Logits [n, 12, h, w] a gate starts from: a Wiener filter against what white noise is left."""
    noise = torch.minimum(variance, told.noise_variance)
    powers = variance.new_tensor(BAND_STD).square().repeat_interleave(3)[:, None, None]
    wiener = (powers.log() - noise.log()).clamp_max(OPEN_GATE)
    return torch.where(told.is_inverse[:, None, None, None], OPEN_GATE, wiener)


def initial_variance(x_init: Tensor, known: Tensor, told: _Told) -> Tensor:
    """[n, 1, H, W] how far x_init [n, 3, H, W] is expected to be off, squared.

    What was measured directly is off by its noise. Where something was inverted or filled in, an
    exponential of a linear fit to how much fine detail the estimate has and to what it was told
    (`FILLED`, `INVERTED`).
    """
    noise = told.noise_variance
    detail = haar(x_init)[:, 3:].square().mean((1, 2, 3))
    log_detail = (detail + 1e-6).log()
    log_noise = noise.flatten().log()
    basic = [torch.ones_like(log_detail), log_detail, log_noise, log_detail * log_noise]
    features = torch.stack([*basic, *(told[name] for name in FITTED_TRAITS)], 1)
    variance = torch.where(known > 0, noise, noise + _fitted(features, FILLED))
    inverse = told.is_inverse[:, None, None, None]
    return torch.where(inverse, _fitted(features, INVERTED).expand_as(variance), variance)


FITTED_TRAITS = (
    "blur_sigma", "log_blur_sigma", "is_scaled_by_2", "is_scaled_by_3", "is_scaled_by_4_or_more",
    "is_antialiased_cubic", "known_fraction",
)  # fmt: skip


def _fitted(features: Tensor, weights: tuple[float, ...]) -> Tensor:
    fit = (features @ features.new_tensor(weights)).clamp(2 * math.log(LEVEL / 4), 0)
    return fit.exp()[:, None, None, None]


FILLED = (-0.977, 0.627, -0.122, -0.034, 0, 0, 0, 0, 0, 0, -0.927)
"""Logarithm of the squared error of filled holes, fitted to training samples (within 3.5 dB)."""

INVERTED = (-1.858, 0.307, -0.11, -0.047, 3.159, -0.729, 1.049, 1.8, 2.544, 0.05, -1.858)
"""The same of sharpened or enlarged frames (within 3.9 dB); enlargement by 3 between 2 and 4."""
