"""LeanVAE: a wavelet front, depthwise convolutions and gated linear layers, 4x8x8 compression.

Y. Cheng and F. Yuan, "LeanVAE: An Ultra-Efficient Reconstruction VAE for Video Diffusion Models"
(2025). Parameter names are those of the published checkpoints. Tensors inside are
[B, T, H, W, C], channels last, with one token per 8x8 patch: linear layers and depthwise
convolutions both read them as they lie, without the copies that channels first would take.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instantvir_models.autoencoders.base import CausalMemory, check_frames

PATCH_PIXELS = 4
"""Side of a patch in wavelet pixels, which are 2x2 pixels."""


@dataclass(frozen=True, kw_only=True)
class LeanConfig:
    """Size of a LeanVAE; the defaults are the published one with 16 channels."""

    latent_channels: int = 16
    low_channels: int = 128
    high_channels: int = 384
    separate_layers: int = 2
    fusion_layers: int = 4
    ista_steps: int = 2
    ista_layers: int = 2

    @property
    def channels(self) -> int:
        """Width of the fused stream."""
        return self.low_channels + self.high_channels


class _DepthwiseConv(nn.Module):
    """A causal 3x3x3 convolution of each channel by itself on [B, T, H, W, C]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ds_conv = nn.Conv3d(channels, channels, 3, padding=(0, 1, 1), groups=channels)

    def forward(self, x: Tensor, memory: CausalMemory) -> Tensor:
        history = memory.extended(self, x, frames=2, dim=1)
        return self.ds_conv(history.movedim(-1, 1)).movedim(1, -1)


class _GatedFeedForward(nn.Sequential):
    """LayerNorm, Linear, a * gelu(b), Linear; positions in the sequence name the parameters."""

    def __init__(self, channels: int) -> None:
        inner = int(channels * 8 / 3)
        super().__init__(
            nn.LayerNorm(channels),
            nn.Linear(channels, 2 * inner, bias=False),
            _Gate(),
            nn.Identity(),
            nn.Linear(inner, channels, bias=False),
        )


class _Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, -1)
        return value * F.gelu(gate)


class _Layers(nn.Module):
    """`count` pairs of a depthwise convolution and a gated feed-forward net."""

    def __init__(self, channels: int, count: int, *, is_residual: bool) -> None:
        super().__init__()
        self.is_residual = is_residual
        self.dconv_layer = nn.ModuleList(_DepthwiseConv(channels) for _ in range(count))
        self.ffd_layer = nn.ModuleList(_GatedFeedForward(channels) for _ in range(count))

    def forward(self, x: Tensor, memory: CausalMemory) -> Tensor:
        for conv, feed_forward in zip(self.dconv_layer, self.ffd_layer, strict=True):
            x = x + conv(x, memory) if self.is_residual else conv(x, memory)
            x = x + feed_forward(x) if self.is_residual else feed_forward(x)
        return x


class _Streams(nn.Module):
    """What encoder and decoder share: layers for low and high bands, and for both together."""

    def __init__(self, config: LeanConfig) -> None:
        super().__init__()
        count = config.separate_layers
        self.widths = [config.low_channels, config.high_channels]
        self.low_layer = _Layers(config.low_channels, count, is_residual=True)
        self.high_layer = _Layers(config.high_channels, count, is_residual=True)
        self.fusion_layer = _Layers(config.channels, config.fusion_layers, is_residual=True)


class _Encoder(_Streams):
    """Wavelet bands to tokens [B, L, h, w, channels]."""

    def __init__(self, config: LeanConfig) -> None:
        super().__init__(config)
        low, high = self.widths
        self.video_low_proj = _projection_in(3, 2, low)
        self.video_high_proj = _projection_in(21, 2, high)
        self.image_low_proj = _projection_in(3, 1, low)
        self.image_high_proj = _projection_in(9, 1, high)

    def forward(self, x: Tensor, memory: CausalMemory, *, is_first: bool) -> Tensor:
        low, high = self._tokens(x, is_first=is_first)
        low, high = self.low_layer(low, memory), self.high_layer(high, memory)
        return self.fusion_layer(torch.cat([low, high], -1), memory)

    def _tokens(self, x: Tensor, *, is_first: bool) -> tuple[Tensor, Tensor]:
        low, high = [], []
        if is_first:
            bands = _haar_2d(x[:, :1])
            low.append(self.image_low_proj(_patches(bands[:, :, :3], 1)))
            high.append(self.image_high_proj(_patches(bands[:, :, 3:], 1)))
            x = x[:, 1:]
        if x.shape[1]:
            bands = _haar_3d(x)
            low.append(self.video_low_proj(_patches(bands[:, :, :3], 2)))
            high.append(self.video_high_proj(_patches(bands[:, :, 3:], 2)))
        return torch.cat(low, 1), torch.cat(high, 1)


class _Decoder(_Streams):
    """Tokens [B, L, h, w, channels] to frames."""

    def __init__(self, config: LeanConfig) -> None:
        super().__init__(config)
        low, high = self.widths
        self.video_low_proj = _projection_out(3, 2, low)
        self.video_high_proj = _projection_out(21, 2, high)
        self.image_low_proj = _projection_out(3, 1, low)
        self.image_high_proj = _projection_out(9, 1, high)

    def forward(self, tokens: Tensor, memory: CausalMemory, *, is_first: bool) -> Tensor:
        low, high = self.fusion_layer(tokens, memory).split(self.widths, -1)
        low, high = self.low_layer(low, memory), self.high_layer(high, memory)
        frames = []
        if is_first:
            bands = [
                _unpatched(self.image_low_proj(low[:, :1]), 1),
                _unpatched(self.image_high_proj(high[:, :1]), 1),
            ]
            frames.append(_inverse_haar_2d(torch.cat(bands, 2)))
            low, high = low[:, 1:], high[:, 1:]
        if low.shape[1]:
            bands = [
                _unpatched(self.video_low_proj(low), 2),
                _unpatched(self.video_high_proj(high), 2),
            ]
            frames.append(_inverse_haar_3d(torch.cat(bands, 2)))
        return torch.cat(frames, 1)


class _Bottleneck(nn.Module):
    """A linear map to the latent, and unrolled sparse coding (ISTA) to come back."""

    def __init__(self, config: LeanConfig) -> None:
        super().__init__()
        width, steps = config.channels, config.ista_steps
        self.phi = nn.Parameter(torch.randn(config.latent_channels, width) / width**0.5)
        self.Q = nn.Parameter(torch.randn(width, config.latent_channels) / width**0.5)
        self.weights = nn.ParameterList(nn.Parameter(torch.tensor(0.5)) for _ in range(steps))
        self.threshold = nn.ParameterList(
            nn.Parameter(torch.full((1,), 0.01)) for _ in range(steps)
        )
        self.forward_l = nn.ModuleList(
            _Layers(width, config.ista_layers, is_residual=False) for _ in range(steps)
        )
        self.backward_l = nn.ModuleList(
            _Layers(width, config.ista_layers, is_residual=False) for _ in range(steps)
        )

    def encode(self, tokens: Tensor) -> Tensor:
        return F.linear(tokens, self.phi)

    def decode(self, z: Tensor, memory: CausalMemory) -> Tensor:
        tokens = F.linear(z, self.Q)
        for weight, threshold, there, back in zip(
            self.weights, self.threshold, self.forward_l, self.backward_l, strict=True
        ):
            tokens = tokens - weight * F.linear(F.linear(tokens, self.phi) - z, self.phi.T)
            code = there(tokens, memory)
            tokens = tokens + back(code.sign() * F.relu(code.abs() - threshold), memory)
        return tokens


class LeanVAE(nn.Module):
    """LeanVAE; implements `Autoencoder`. Latents are not normalised."""

    def __init__(self, config: LeanConfig) -> None:
        super().__init__()
        self.config = config
        self.latent_bottleneck = _Bottleneck(config)
        self.encoder = _Encoder(config)
        self.decoder = _Decoder(config)

    @property
    def encode_halo(self) -> int:
        return self.config.separate_layers + self.config.fusion_layers

    @property
    def decode_halo(self) -> int:
        return self.encode_halo + 2 * self.config.ista_steps * self.config.ista_layers

    def encode(self, x: Tensor, memory: CausalMemory) -> Tensor:
        return self.encode_locally(x, memory)

    def decode(self, z: Tensor, memory: CausalMemory) -> Tensor:
        return self.decode_locally(z, memory)

    def encode_locally(self, x: Tensor, memory: CausalMemory) -> Tensor:
        """All of `encode`: every layer sees its surroundings only."""
        is_first = not memory.has_met(self.encoder.low_layer.dconv_layer[0])
        check_frames(x, is_first=is_first)
        tokens = self.encoder(x * 0.5, memory, is_first=is_first)
        return self.latent_bottleneck.encode(tokens).movedim(-1, 2)

    def encode_rest(self, features: Tensor, memory: CausalMemory) -> Tensor:
        """Nothing is left to do."""
        return features

    def decode_first(self, z: Tensor, memory: CausalMemory) -> Tensor:
        """Nothing to do before `decode_locally`."""
        return z

    def decode_locally(self, features: Tensor, memory: CausalMemory) -> Tensor:
        """All of `decode`."""
        is_first = not memory.has_met(self.decoder.low_layer.dconv_layer[0])
        tokens = self.latent_bottleneck.decode(features.movedim(2, -1), memory)
        return self.decoder(tokens, memory, is_first=is_first) * 2


def _projection_in(channels: int, frames: int, width: int) -> nn.Sequential:
    """Linear layer of a patch, second of a sequence as in the published names."""
    return nn.Sequential(nn.Identity(), nn.Linear(channels * frames * PATCH_PIXELS**2, width))


def _projection_out(channels: int, frames: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, channels * frames * PATCH_PIXELS**2))


def _patches(bands: Tensor, frames: int) -> Tensor:
    """[B, T, C, H, W] -> [B, T/frames, H/4, W/4, C*frames*16], ordered (channel, time, row, column)."""
    grid = bands.unflatten(1, (-1, frames))
    grid = grid.unflatten(5, (-1, PATCH_PIXELS)).unflatten(4, (-1, PATCH_PIXELS))
    return grid.permute(0, 1, 4, 6, 3, 2, 5, 7).flatten(4)


def _unpatched(patches: Tensor, frames: int) -> Tensor:
    """Inverse of `_patches`."""
    grid = patches.unflatten(-1, (-1, frames, PATCH_PIXELS, PATCH_PIXELS))
    return grid.permute(0, 1, 5, 4, 2, 6, 3, 7).flatten(6, 7).flatten(4, 5).flatten(1, 2)


def _sum_and_difference(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    first, second = x.unflatten(dim, (-1, 2)).unbind(dim + 1)
    return first + second, first - second


def _haar_2d(x: Tensor) -> Tensor:
    """[B, T, 3, H, W] -> [B, T, 12, H/2, W/2]: sums and differences, not normalised."""
    low, high = _sum_and_difference(x, 4)
    bands = [*_sum_and_difference(low, 3), *_sum_and_difference(high, 3)]
    return torch.cat(bands, 2)


def _haar_3d(x: Tensor) -> Tensor:
    """[B, T, 3, H, W] -> [B, T/2, 24, H/2, W/2]; bands count in binary: time, row, column."""
    bands: list[Tensor] = []
    for over_time in _sum_and_difference(x, 1):
        for over_rows in _sum_and_difference(over_time, 3):
            bands += _sum_and_difference(over_rows, 4)
    return torch.cat(bands, 2)


def _interleaved(total: Tensor, difference: Tensor, dim: int) -> Tensor:
    """Inverse of `_sum_and_difference`."""
    pair = torch.stack([total + difference, total - difference], dim + 1)
    return pair.flatten(dim, dim + 1) * 0.5


def _inverse_haar_2d(bands: Tensor) -> Tensor:
    low, high, low_high, high_high = bands.unflatten(2, (4, -1)).unbind(2)
    return _interleaved(_interleaved(low, high, 3), _interleaved(low_high, high_high, 3), 4)


def _inverse_haar_3d(bands: Tensor) -> Tensor:
    parts = list(bands.unflatten(2, (8, -1)).unbind(2))
    for dim in (4, 3, 1):
        parts = [_interleaved(*pair, dim) for pair in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]
