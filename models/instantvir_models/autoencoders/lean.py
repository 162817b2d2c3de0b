"""LeanVAE: a wavelet front, depthwise convolutions and gated linear layers, 4x8x8 compression.

Y. Cheng and F. Yuan, "LeanVAE: An Ultra-Efficient Reconstruction VAE for Video Diffusion Models"
(2025). Parameter names are those of the published checkpoints. Tensors inside are
[B, T, H, W, C], channels last, with one token per 8x8 patch: linear layers and depthwise
convolutions both read them as they lie, without the copies that channels first would take.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instantvir_kernels.dispatch import (
    depthwise_causal_conv,
    gated_feed_forward,
    haar_patchify,
    haar_unpatchify,
)
from instantvir_models.autoencoders.base import (
    TEMPORAL_FACTOR,
    CausalMemory,
    check_frames,
    is_learned_through,
    recomputed,
)

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
    """A causal 3x3x3 convolution of each channel by itself on [B, T, H, W, C] (+ x if residual)."""

    def __init__(self, channels: int, *, is_residual: bool) -> None:
        super().__init__()
        self.is_residual = is_residual
        self.ds_conv = nn.Conv3d(channels, channels, 3, padding=(0, 1, 1), groups=channels)

    def forward(self, x: Tensor, memory: CausalMemory) -> Tensor:
        assert self.ds_conv.bias is not None
        past = memory.exchanged(self, x, frames=2, dim=1)
        return depthwise_causal_conv(
            x, past, self.ds_conv.weight, self.ds_conv.bias, residual=self.is_residual
        )


class _GatedFeedForward(nn.Sequential):
    """LayerNorm, Linear, a * gelu(b), Linear (+ x if residual); positions name the parameters."""

    def __init__(self, channels: int, *, is_residual: bool) -> None:
        inner = int(channels * 8 / 3)
        super().__init__(
            nn.LayerNorm(channels),
            nn.Linear(channels, 2 * inner, bias=False),
            nn.Identity(),  # the gate, which `gated_feed_forward` applies
            nn.Identity(),
            nn.Linear(inner, channels, bias=False),
        )
        self.is_residual = is_residual

    def forward(self, x: Tensor) -> Tensor:
        norm, up, *_, down = self
        assert isinstance(norm, nn.LayerNorm)
        assert isinstance(up, nn.Linear)
        assert isinstance(down, nn.Linear)
        return gated_feed_forward(
            x, norm_weight=norm.weight, norm_bias=norm.bias, up=up.weight, down=down.weight,
            residual=self.is_residual,
        )  # fmt: skip


class _Layers(nn.Module):
    """`count` pairs of a depthwise convolution and a gated feed-forward net."""

    def __init__(self, channels: int, count: int, *, is_residual: bool) -> None:
        super().__init__()
        self.dconv_layer = nn.ModuleList(
            _DepthwiseConv(channels, is_residual=is_residual) for _ in range(count)
        )
        self.ffd_layer = nn.ModuleList(
            _GatedFeedForward(channels, is_residual=is_residual) for _ in range(count)
        )
        self.recomputes_pairs = False

    def forward(self, x: Tensor, memory: CausalMemory) -> Tensor:
        for number in range(len(self.dconv_layer)):
            pair = partial(self._pair, number)
            is_again = self.recomputes_pairs and is_learned_through(x)
            x = recomputed(pair, x, memory) if is_again else pair(x, memory)
        return x

    def _pair(self, number: int, x: Tensor, memory: CausalMemory) -> Tensor:
        y: Tensor = self.ffd_layer[number](self.dconv_layer[number](x, memory))
        return y


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
            low_patches, high_patches = haar_patchify(x[:, :1], frames_per_token=1)
            low.append(self.image_low_proj(low_patches))
            high.append(self.image_high_proj(high_patches))
            x = x[:, 1:]
        if x.shape[1]:
            low_patches, high_patches = haar_patchify(x, frames_per_token=TEMPORAL_FACTOR)
            low.append(self.video_low_proj(low_patches))
            high.append(self.video_high_proj(high_patches))
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
            image = self.image_low_proj(low[:, :1]), self.image_high_proj(high[:, :1])
            frames.append(haar_unpatchify(*image, frames_per_token=1))
            low, high = low[:, 1:], high[:, 1:]
        if low.shape[1]:
            video = self.video_low_proj(low), self.video_high_proj(high)
            frames.append(haar_unpatchify(*video, frames_per_token=TEMPORAL_FACTOR))
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
    def recomputes_layers(self) -> bool:
        """Whether training keeps of each pair of layers only what goes into it."""
        return self.encoder.low_layer.recomputes_pairs

    @recomputes_layers.setter
    def recomputes_layers(self, recompute: bool) -> None:
        for layers in self._layers:
            layers.recomputes_pairs = recompute

    @property
    def computed_again(self) -> list[nn.Module]:
        """The first of each pair of layers: what goes into it is kept."""
        return [conv for layers in self._layers for conv in layers.dconv_layer]

    @property
    def _layers(self) -> list[_Layers]:
        return [layers for layers in self.modules() if isinstance(layers, _Layers)]

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
