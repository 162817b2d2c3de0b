"""A tiny video prior: every noise level at once, on the Haar latent of the embedded student.

    D(z) = c_skip(S) z + c_out(S) F(c_in(S) z, S)

with the preconditioning of Karras et al. (2022), coefficient by coefficient where the noise differs
(`NoiseLevel`), so that what is known exactly stays as it is. F works on Haar bands at 1/2, 1/4 and
1/8 size, sees neighbouring frames on both sides (a part of the channels is shifted by a frame), and
starts as the Wiener filter of the bands. One frame is a video, too: `ImagePrior`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instantvir_models.autoencoders.haar import haar, inverse_haar
from instantvir_models.priors.base import ErrorTable
from instantvir_models.priors.noise import NUM_CODES, NoiseLevel
from instantvir_models.students.layers import Film, Residual, modulated_conv, normed, padded

SIZE_MULTIPLE = 8
"""Frames are padded to a multiple of this: three halvings."""

SIGNAL_STD = 0.5
"""Of natural frames in the [-1, 1] range, about."""

BAND_STD = (1.04, 0.106, 0.104, 0.033)
"""Of the Haar bands of natural frames (average, horizontal, vertical, diagonal)."""

LEAST_STD = 1e-4
"""Less noise than this counts as this much."""

LARGEST_STD = 10.0

SHIFTED_SHARE = 8
"""One in so many channels is that of the frame before, another one that of the frame after."""


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """Size of a tiny video prior."""

    fine_channels: int = 48
    coarse_channels: int = 96
    bottom_channels: int = 128
    fine_layers: int = 1
    coarse_layers: int = 2
    bottom_layers: int = 2
    seen_channels: int = 0
    """Channels at full size that it is shown besides, such as a measurement."""


class FlowNetwork(nn.Module):
    """E[x | x + S e] by a network, for any number of frames; sides are multiples of 8."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        fine, coarse, bottom = config.fine_channels, config.coarse_channels, config.bottom_channels
        self.enter = nn.Conv2d(12 + 4 + 4, fine, 3, padding=1)
        self.enter_seen = (
            nn.Conv2d(4 * config.seen_channels, fine, 3, padding=1)
            if config.seen_channels
            else None
        )
        self.fine_in = _layers(fine, config.fine_layers, is_normed=False)
        self.to_coarse = nn.Conv2d(fine, coarse, 2, stride=2)
        self.coarse_in = _layers(coarse, config.coarse_layers)
        self.to_bottom = nn.Conv2d(coarse, bottom, 2, stride=2)
        self.bottom = _layers(bottom, config.bottom_layers)
        self.from_bottom = nn.ConvTranspose2d(bottom, coarse, 2, stride=2)
        self.coarse_out = _layers(coarse, config.coarse_layers)
        self.from_coarse = nn.ConvTranspose2d(coarse, fine, 2, stride=2)
        self.fine_out = _layers(fine, config.fine_layers, is_normed=False)
        self.head = nn.Conv2d(fine, 24, 3, padding=1)
        self.film = Film([layer.width for layer in self._in_order()], num_codes=NUM_CODES)
        with torch.no_grad():
            self.head.weight *= 0.1
            assert self.head.bias is not None
            self.head.bias.zero_()
            if self.enter_seen is not None:  # starts as the network that is shown nothing
                self.enter_seen.weight.zero_()
                assert self.enter_seen.bias is not None
                self.enter_seen.bias.zero_()

    def _in_order(self) -> list["_TimeResidual"]:
        order = self.fine_in, self.coarse_in, self.bottom, self.coarse_out, self.fine_out
        return [layer for layers in order for layer in layers if isinstance(layer, _TimeResidual)]

    def forward(self, z: Tensor, noise: NoiseLevel, seen: Tensor | None = None) -> Tensor:
        """The posterior mean of x, [B, T, 3, H, W], float32.

        Args:
            z: [B, T, 3, H, W].
            seen: [B, T, seen_channels, H, W] what it is shown besides.
        """
        z = z.float()
        bands, band_variance = self._bands(z, noise)
        fine, *_ = self._pyramid(z, bands, band_variance, noise, seen)
        residual, gate = self.head(fine).float().split(12, 1)
        kept = bands * _gain(band_variance.repeat_interleave(3, 1), gate)
        made = inverse_haar(kept + residual).unflatten(0, z.shape[:2])
        return noise.apply(_skip_scale, z) + noise.apply(_output_scale, made)

    def features(self, z: Tensor, noise: NoiseLevel) -> tuple[Tensor, Tensor, Tensor]:
        """What it makes of z on its way, [B T, channels, h, w] at 1/2, 1/4 and 1/8 size.

        Args:
            z: [B, T, 3, H, W].
        """
        z = z.float()
        return self._pyramid(z, *self._bands(z, noise), noise, None)

    def _bands(self, z: Tensor, noise: NoiseLevel) -> tuple[Tensor, Tensor]:
        """Haar bands of z, and the variance of their noise."""
        bands = haar(noise.apply(_input_scale, z).flatten(0, 1))
        return bands, noise.band_variance(z).clamp_min(LEAST_STD**2).flatten(0, 1)

    def _pyramid(
        self,
        z: Tensor,
        bands: Tensor,
        band_variance: Tensor,
        noise: NoiseLevel,
        seen: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        pixel_levels = 0.25 * noise.variance(z).clamp_min(LEAST_STD**2).log().flatten(0, 1)
        shown = torch.cat(
            [bands, F.pixel_unshuffle(pixel_levels, 2), 0.25 * band_variance.log()], 1
        )
        x = self.enter(shown.contiguous(memory_format=torch.channels_last))
        if self.enter_seen is not None:
            assert seen is not None
            x = x + self.enter_seen(haar(seen.flatten(0, 1)))
        codes = noise.codes(z).expand(len(z), -1).repeat_interleave(z.shape[1], 0)
        return self._through(x, codes, z.shape[1])

    def _through(self, x: Tensor, codes: Tensor, frames: int) -> tuple[Tensor, Tensor, Tensor]:
        each = iter(self.film(codes))

        def layers(which: nn.ModuleList, x: Tensor) -> Tensor:
            for layer in which:
                x = layer(x, next(each), frames)
            return x

        x = layers(self.fine_in, x)
        y = layers(self.coarse_in, self.to_coarse(x))
        z = layers(self.bottom, self.to_bottom(y))
        y = layers(self.coarse_out, self.from_bottom(z) + y)
        x = layers(self.fine_out, self.from_coarse(y) + x)
        return x, y, z


class _TimeResidual(Residual):
    """A residual layer that sees a part of the channels of the frames before and after."""

    def forward(self, x: Tensor, code: Tensor, frames: int = 1) -> Tensor:
        inner = shifted(normed(x) if self.is_normed else x, frames)
        return self.conv2(modulated_conv(self.conv1, inner, code).relu_()) + x


def shifted(x: Tensor, frames: int) -> Tensor:
    """x [B T, C, h, w] with some channels of the frames before and after; ends stay in place."""
    if frames == 1:
        return x
    count = x.shape[1] // SHIFTED_SHARE
    past, future, present = x.unflatten(0, (-1, frames)).split(
        [count, count, x.shape[1] - 2 * count], 2
    )
    past = torch.cat([past[:, :1], past[:, :-1]], 1)
    future = torch.cat([future[:, 1:], future[:, -1:]], 1)
    return torch.cat([past, future, present], 2).flatten(0, 1)


def _layers(channels: int, count: int, *, is_normed: bool = True) -> nn.ModuleList:
    return nn.ModuleList(_TimeResidual(channels, is_normed=is_normed) for _ in range(count))


def _input_scale(std: Tensor) -> Tensor:
    return (std.square() + SIGNAL_STD**2).rsqrt()


def _skip_scale(std: Tensor) -> Tensor:
    return SIGNAL_STD**2 / (std.square() + SIGNAL_STD**2)


def _output_scale(std: Tensor) -> Tensor:
    return SIGNAL_STD * std * (std.square() + SIGNAL_STD**2).rsqrt()


def _gain(variance: Tensor, gate: Tensor) -> Tensor:
    """Of bands inside F, so that D as a whole keeps sigmoid(2 gate + log(signal / noise)) of them."""
    powers = variance.new_tensor(BAND_STD).square().repeat_interleave(3)[:, None, None]
    wiener = torch.sigmoid(2 * gate + (powers / variance).log())
    std = variance.sqrt()
    return (wiener - _skip_scale(std)) / (_output_scale(std) * _input_scale(std))


@dataclass(frozen=True)
class FlowPrior:
    """The tiny video prior; implements `Prior` over pixels."""

    network: FlowNetwork
    errors: ErrorTable
    """Measured once, on clean clips that it was not trained on."""

    @property
    def accepts_maps(self) -> bool:
        return True

    @property
    def largest_std(self) -> float:
        return LARGEST_STD

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, z: Tensor) -> Tensor:
        return z

    def features(self, z: Tensor, noise: NoiseLevel) -> tuple[Tensor, ...]:
        """What the network makes of z on its way, from fine to coarse; sides are multiples of 8."""
        return self.network.features(z, noise)

    def denoise(self, z: Tensor, noise: NoiseLevel) -> Tensor:
        height, width = z.shape[-2:]
        below, right = -height % SIZE_MULTIPLE, -width % SIZE_MULTIPLE
        wide = padded(z.flatten(0, 1), SIZE_MULTIPLE).unflatten(0, z.shape[:2])
        out = self.network(wide, noise.padded(below, right))
        return out[..., :height, :width].to(z)

    def error_std(self, noise_std: float) -> float:
        return self.errors.at(noise_std)


@dataclass(frozen=True)
class ImagePrior:
    """A video prior that looks at each frame by itself; implements `Prior`.

    Args:
        errors: of single frames; those of the video prior are smaller.
    """

    video: FlowPrior
    errors: ErrorTable

    @property
    def accepts_maps(self) -> bool:
        return True

    @property
    def largest_std(self) -> float:
        return self.video.largest_std

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, z: Tensor) -> Tensor:
        return z

    def denoise(self, z: Tensor, noise: NoiseLevel) -> Tensor:
        alone = self.video.denoise(z.flatten(0, 1)[:, None], noise.of_frames(z))
        return alone[:, 0].unflatten(0, z.shape[:2])

    def error_std(self, noise_std: float) -> float:
        return self.errors.at(noise_std)
