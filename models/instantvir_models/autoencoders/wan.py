"""The autoencoder of Wan2.1: causal 3-D convolutions, 4x8x8 compression, 16 channels.

Parameter names are those of the published checkpoint (`Wan2.1_VAE.pth`). Tensors inside are
[B, C, T, H, W]. The first frame of a stream takes its own way through every change of frame rate:
it is neither merged nor doubled.
"""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instantvir_kernels.dispatch import attention
from instantvir_models.autoencoders.base import (
    SPATIAL_FACTOR,
    CausalMemory,
    check_frames,
    is_learned_through,
    recomputed,
)

NUM_LEVELS = 4
"""Full size to an eighth."""

LATENT_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
LATENT_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip
"""Statistics of the raw latent of Wan2.1; students see (z - mean) / std."""


@dataclass(frozen=True, kw_only=True)
class WanVaeConfig:
    """Size of a Wan autoencoder; the defaults are the published one."""

    base_channels: int = 96
    level_multiples: tuple[int, ...] = (1, 2, 4, 4)
    """Channels of each level over `base_channels`, from full size to an eighth."""
    residuals_per_level: int = 2
    """In the encoder; the decoder has one more."""
    latent_channels: int = 16

    def __post_init__(self) -> None:
        if len(self.level_multiples) != NUM_LEVELS:
            raise ValueError(
                f"a Wan autoencoder has {NUM_LEVELS} levels, got {self.level_multiples}"
            )
        if self.latent_channels != len(LATENT_MEAN):
            raise ValueError(
                f"a Wan autoencoder has {len(LATENT_MEAN)} latent channels, got "
                f"{self.latent_channels}"
            )


class _Streaming(nn.Module):
    """A layer that needs what came before in its stream."""

    def stream(self, x: Tensor, memory: CausalMemory) -> Tensor:
        """The output for the next frames x of the stream whose past is in `memory`."""
        raise NotImplementedError


class _CausalConv(nn.Conv3d, _Streaming):
    """A convolution with kernel (3, s, s) that sees the present and two frames before it."""

    def __init__(self, channels_in: int, channels_out: int, side: int = 3) -> None:
        super().__init__(
            channels_in, channels_out, (3, side, side), padding=(0, side // 2, side // 2)
        )

    def stream(self, x: Tensor, memory: CausalMemory) -> Tensor:
        return self(memory.extended(self, x, frames=2, dim=2))


class _ChannelNorm(nn.Module):
    """x / |x| sqrt(C) gamma over the channels of [B, C, ...]."""

    def __init__(self, channels: int, num_dims: int = 3) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *(1,) * num_dims))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) * (self.gamma * len(self.gamma) ** 0.5)


class _Residual(_Streaming):
    """x + conv(silu(norm(conv(silu(norm(x))))))."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            _ChannelNorm(channels_in), nn.SiLU(), _CausalConv(channels_in, channels_out),
            _ChannelNorm(channels_out), nn.SiLU(), nn.Identity(),
            _CausalConv(channels_out, channels_out),
        )  # fmt: skip
        is_same = channels_in == channels_out
        self.shortcut = nn.Identity() if is_same else nn.Conv3d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, memory: CausalMemory) -> Tensor:
        return self.stream(x, memory)

    def stream(self, x: Tensor, memory: CausalMemory) -> Tensor:
        return _run(self.residual, x, memory).add_(self.shortcut(x))


class _FrameAttention(_Streaming):
    """Every pixel of a latent frame attends to its whole frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _ChannelNorm(channels, num_dims=2)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def stream(self, x: Tensor, memory: CausalMemory) -> Tensor:
        frames = x.transpose(1, 2).flatten(0, 1)
        tokens = self.to_qkv(self.norm(frames)).flatten(2).mT  # [B*T, h*w, 3C]
        q, k, v = (t.contiguous() for t in tokens[:, :, None].chunk(3, -1))
        attended = attention(q, k, v)[:, :, 0].mT.reshape(frames.shape)
        update = self.proj(attended).unflatten(0, (len(x), -1)).transpose(1, 2)
        return x + update


class _Downsample(_Streaming):
    """Half the height and width, and with `over_time` half the frames after the first."""

    def __init__(self, channels: int, *, over_time: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2)
        )
        self.time_conv = None
        if over_time:
            self.time_conv = nn.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1))

    def stream(self, x: Tensor, memory: CausalMemory) -> Tensor:
        x = _frame_by_frame(self.resample, x)
        if self.time_conv is None:
            return x
        is_first = not memory.has_met(self)
        history = memory.extended(self, x, frames=1, dim=2)
        if not is_first:
            return self.time_conv(history)
        if x.shape[2] == 1:
            return x
        return torch.cat([x[:, :, :1], self.time_conv(x)], 2)


class _Upsample(_Streaming):
    """Twice the height and width, and with `over_time` twice the frames after the first."""

    def __init__(self, channels: int, *, over_time: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(
            nn.Upsample(scale_factor=2.0, mode="nearest-exact"),
            nn.Conv2d(channels, channels // 2, 3, padding=1),
        )
        self.time_conv = _CausalConv(channels, 2 * channels, side=1) if over_time else None

    def stream(self, x: Tensor, memory: CausalMemory) -> Tensor:
        if self.time_conv is not None:
            x = self._doubled(self.time_conv, x, memory)
        return _frame_by_frame(self.resample, x)

    def _doubled(self, conv: _CausalConv, x: Tensor, memory: CausalMemory) -> Tensor:
        """x with every frame but the first of the stream made two."""
        alone = x[:, :, : 0 if memory.has_met(conv) else 1]
        history = memory.extended(conv, x[:, :, alone.shape[2] :], frames=2, dim=2)
        if history.shape[2] == 2:
            return alone
        pairs = conv(history).unflatten(1, (2, -1))
        return torch.cat([alone, torch.stack(pairs.unbind(1), 3).flatten(2, 3)], 2)


def _middle(channels: int) -> nn.Sequential:
    return nn.Sequential(
        _Residual(channels, channels), _FrameAttention(channels), _Residual(channels, channels)
    )


def _head(channels: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(_ChannelNorm(channels), nn.SiLU(), _CausalConv(channels, channels_out))


class _Encoder(nn.Module):
    def __init__(self, config: WanVaeConfig) -> None:
        super().__init__()
        widths = [config.base_channels * m for m in (1, *config.level_multiples)]
        layers: list[nn.Module] = []
        for level, (width_in, width) in enumerate(itertools.pairwise(widths)):
            layers.append(_Residual(width_in, width))
            layers += [_Residual(width, width) for _ in range(config.residuals_per_level - 1)]
            if level < len(widths) - 2:
                layers.append(_Downsample(width, over_time=level > 0))
        self.conv1 = _CausalConv(3, widths[0])
        self.downsamples = nn.Sequential(*layers)
        self.middle = _middle(widths[-1])
        self.head = _head(widths[-1], 2 * config.latent_channels)


class _Decoder(nn.Module):
    def __init__(self, config: WanVaeConfig) -> None:
        super().__init__()
        widths = [config.base_channels * m for m in reversed((1, *config.level_multiples))]
        widths = [widths[0], *widths[:-1]]  # a level starts with what the one before it left
        layers: list[nn.Module] = []
        width_in = widths[0]
        for level, width in enumerate(widths[1:]):
            layers.append(_Residual(width_in, width))
            layers += [_Residual(width, width) for _ in range(config.residuals_per_level)]
            width_in = width
            if level < len(widths) - 2:
                layers.append(_Upsample(width, over_time=level < 2))
                width_in = width // 2
        self.conv1 = _CausalConv(config.latent_channels, widths[0])
        self.middle = _middle(widths[0])
        self.upsamples = nn.Sequential(*layers)
        self.head = _head(width_in, 3)


class WanVAE(nn.Module):
    """The Wan2.1 autoencoder; implements `Autoencoder` with normalised latents."""

    def __init__(self, config: WanVaeConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _Encoder(config)
        self.conv1 = nn.Conv3d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.conv2 = nn.Conv3d(config.latent_channels, config.latent_channels, 1)
        self.decoder = _Decoder(config)
        self.recomputes_layers = False
        """Whether training keeps of `computed_again` only what goes into each."""

    @property
    def computed_again(self) -> list[nn.Module]:
        """The residual layers, which hold most of what a backward pass needs."""
        return [layer for layer in self.modules() if isinstance(layer, _Residual)]

    @property
    def encode_halo(self) -> int:
        levels = range(len(self.config.level_multiples))
        convolutions = 1 + sum(2 * self.config.residuals_per_level * 2**level for level in levels)
        downsampling = sum(2 * 2**level for level in levels[:-1])
        return math.ceil((convolutions + downsampling) / SPATIAL_FACTOR)

    @property
    def decode_halo(self) -> int:
        levels = range(len(self.config.level_multiples))
        pixels = [SPATIAL_FACTOR / 2**level for level in levels]
        residuals = sum(2 * (self.config.residuals_per_level + 1) * side for side in pixels)
        return math.ceil((residuals + sum(pixels[1:]) + 1) / SPATIAL_FACTOR)

    def encode(self, x: Tensor, memory: CausalMemory) -> Tensor:
        return self.encode_rest(self.encode_locally(x, memory), memory)

    def decode(self, z: Tensor, memory: CausalMemory) -> Tensor:
        return self.decode_locally(self.decode_first(z, memory), memory)

    def encode_locally(self, x: Tensor, memory: CausalMemory) -> Tensor:
        """Features [B, C, L, h, w] before the attention."""
        check_frames(x, is_first=not memory.has_met(self.encoder.conv1))
        y = self.encoder.conv1.stream(x.transpose(1, 2), memory)
        return self._run(self.encoder.downsamples, y, memory)

    def encode_rest(self, features: Tensor, memory: CausalMemory) -> Tensor:
        """Latents, normalised, of the features of whole frames."""
        y = self._run(self.encoder.middle, features, memory)
        y = _run(self.encoder.head, y, memory)
        raw = self.conv1(y).chunk(2, 1)[0]
        mean, std = _statistics(raw)
        return ((raw - mean) / std).transpose(1, 2)

    def decode_first(self, z: Tensor, memory: CausalMemory) -> Tensor:
        """Features [B, C, L, h, w] after the attention, of normalised latents."""
        mean, std = _statistics(z := z.transpose(1, 2))
        y = self.decoder.conv1.stream(self.conv2(z * std + mean), memory)
        return self._run(self.decoder.middle, y, memory)

    def decode_locally(self, features: Tensor, memory: CausalMemory) -> Tensor:
        """Frames of these features."""
        y = self._run(self.decoder.upsamples, features, memory)
        return _run(self.decoder.head, y, memory).transpose(1, 2)

    def _run(self, layers: nn.Sequential, x: Tensor, memory: CausalMemory) -> Tensor:
        if not (self.recomputes_layers and is_learned_through(x)):
            return _run(layers, x, memory)
        for layer in layers:
            is_residual = isinstance(layer, _Residual)
            x = recomputed(layer, x, memory) if is_residual else _step(layer, x, memory)
        return x


def _run(layers: nn.Sequential, x: Tensor, memory: CausalMemory) -> Tensor:
    for layer in layers:
        x = _step(layer, x, memory)
    return x


def _step(layer: nn.Module, x: Tensor, memory: CausalMemory) -> Tensor:
    return layer.stream(x, memory) if isinstance(layer, _Streaming) else layer(x)


def _frame_by_frame(layer: nn.Module, x: Tensor) -> Tensor:
    frames = layer(x.transpose(1, 2).flatten(0, 1))
    return frames.unflatten(0, (len(x), -1)).transpose(1, 2)


def _statistics(z: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = (z.new_tensor(values)[:, None, None, None] for values in (LATENT_MEAN, LATENT_STD))
    return mean, std
