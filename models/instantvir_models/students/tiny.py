"""The student that was embedded before `fused`: attention and recurrences over the whole video.

Works on a lossless Haar latent (half size, no compression). A block of frames passes through

    fine layers (1/2 size), with a backward recurrence inside the block: look-ahead
    coarse layers (1/4) and block-causal window attention over past blocks (1/8)
    fine layers, with a forward recurrence over the whole video: memory
    a head that shrinks the Haar bands of the initial estimate and adds a residual

Both recurrences look up the neighbouring frame along optical flow. Convolutions between flow
lookups take almost all of the time, because dense 3x3 convolutions are what CPUs do best.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from instantvir_kernels.dispatch import attention, block_causal_attention
from instantvir_models.autoencoders.haar import haar, inverse_haar
from instantvir_models.students.alignment import backward_flow, flow_guide, warp
from instantvir_models.students.base import Conditioning, Estimate
from instantvir_models.students.capabilities import Capabilities, Seen
from instantvir_models.students.embedded import (
    SIZE_MULTIPLE,
    TILE_ABOVE_PIXELS,
    EmbeddedStudent,
)
from instantvir_models.students.kv_cache import KVCache
from instantvir_models.students.layers import Residual, modulated, padded

PERIODS_FRAMES = (64, 32, 16, 8)
"""Periods of the rotary time code; integers, so that positions wrap exactly and never grow."""

STATE_LIMIT = 6.0
"""Largest magnitude of a feature carried to the next frame. Real videos seldom pass 4: on six held-out
clips, four tasks, 16 instead changes one clip of one task by one level. Without a limit, white noise
told to be a strong blur made the memory grow without end; at 16, a shock could put the memory into
a state of its own that it never left."""

TRAITS = (
    "blur_sigma", "log_blur_sigma", "is_blurred", "is_scaled_by_2", "is_scaled_by_3",
    "is_scaled_by_4_or_more", "is_antialiased_cubic", "known_fraction", "has_holes",
    "temporal_sigma", "noise_std", "log_noise_std", "is_lossy", "is_identity",
)  # fmt: skip
"""What students were told that do not say it themselves; new students are told the same."""

SEEN = Seen(
    operators=(
        {"blur_sigma": (0, 5), "blur_departure": (0, 0.02)},
        {"scale": (2, 4), "is_antialiased_cubic": (0, 1), "blur_sigma": (0, 2),
         "blur_departure": (0, 0.02)},
        {"known_fraction": (0.05, 1)},
    ),
    noise_levels=(0, 50),
)  # fmt: skip
"""What students were trained on that do not say it themselves (see `weights/README.md`). A Gaussian
that a kernel holds departs from the formula by a few thousandths."""

INPUT_CHANNELS = 7  # initial estimate, measurement, known mask


@dataclass(frozen=True, kw_only=True)
class TinyConfig:
    """Size of a tiny student."""

    frames_per_block: int = 3
    past_blocks: int = 2
    """Blocks of keys and values kept besides the current one."""
    fine_channels: int = 48
    state_channels: int = 32
    coarse_channels: int = 64
    coarse_layers: int = 4
    bottom_channels: int = 96
    num_heads: int = 4
    window: int = 8
    """Side of an attention window in tokens; a token covers 8x8 pixels."""
    traits: tuple[str, ...] = TRAITS
    """Names of the numbers it is told about operator and noise, in their order."""


@dataclass
class TinyState:
    """The memory of one video. Constant size; owned by a session."""

    cache: KVCache
    hidden: Tensor | None = None
    """[B, state_channels, H/2, W/2] of the last frame."""
    guide: NDArray[np.uint8] | None = None
    """[B, H/2, W/2] luma of the last frame."""
    next_frame: int = 0
    """Index of the next frame, modulo the longest period."""


@dataclass(frozen=True)
class _Motion:
    """Flow from each frame to its neighbour, [B, T, h, w, 2], and mismatch [B, T, 1, h, w]."""

    flow: Tensor
    mismatch: Tensor


class _Film(nn.Module):
    """Per-channel scale and shift for every layer, from the traits of the degradation."""

    def __init__(self, num_traits: int, widths: list[int]) -> None:
        super().__init__()
        self.widths = widths
        self.hidden = nn.Sequential(
            nn.Linear(num_traits, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU()
        )
        self.out = nn.Linear(64, 2 * sum(widths) + 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, traits: Tensor) -> tuple[list[Tensor], Tensor]:
        """[B, 2 width] for each layer, and the student's own error [B]."""
        *codes, log_std = self.out(self.hidden(traits)).split(
            [*(2 * w for w in self.widths), 1], -1
        )
        return codes, 0.06 * torch.exp(log_std[:, 0].clamp(-4, 3))


class _Fuse(nn.Module):
    """x + conv(relu(film(mix(x, neighbour, mismatch)))): takes from the neighbour what fits."""

    def __init__(self, channels: int, state_channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 1)
        self.take = nn.Conv2d(state_channels + 1, channels, 1, bias=False)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.keep = nn.Conv2d(channels, state_channels, 1)
        with torch.no_grad():
            self.conv.weight *= 0.3

    def forward(self, x: Tensor, neighbour: Tensor, mismatch: Tensor, code: Tensor) -> Tensor:
        mixed = self.mix(x).add_(self.take(torch.cat([neighbour, mismatch], 1)))
        return self.conv(modulated(mixed, code).relu_()).add_(x)

    def carried(self, x: Tensor) -> Tensor:
        """What the neighbouring frame may take from x, [n, state_channels, h, w]."""
        return self.keep(x).clamp_(-STATE_LIMIT, STATE_LIMIT)


class _WindowAttention(nn.Module):
    """Block-causal attention inside windows of window x window tokens, over time and space."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        channels = config.bottom_channels
        self.window = config.window
        self.num_heads = config.num_heads
        self.position = nn.Parameter(0.02 * torch.randn(config.window**2, channels))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self, x: Tensor, *, first_frame: int, frames_per_block: int, cache: KVCache | None
    ) -> Tensor:
        """x [B, T, C, h, w] plus what it attends to.

        Without a cache the frames are a whole sequence and the block-causal mask is applied.
        """
        windows, restore = _to_windows(x, self.window)  # [B*windows, T, window^2, C]
        tokens = F.rms_norm(windows, windows.shape[-1:]) + self.position
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).unbind(-3)
        q, k = (_rotate_over_time(t, first_frame).flatten(1, 2) for t in (q, k))
        v = v.flatten(1, 2)
        tokens_per_block = frames_per_block * self.window**2
        if cache is not None:
            attended = attention(q, *cache.append(k, v))
        else:
            attended = block_causal_attention(q, k, v, tokens_per_block=tokens_per_block)
        return x + restore(self.out(attended.flatten(-2)).view_as(windows))


class TinyStudent(EmbeddedStudent[TinyState]):
    """The student that was embedded once; implements `Student`.

    Args:
        seen: what it was, or is to be, trained on.
    """

    config: TinyConfig

    def __init__(self, config: TinyConfig, *, seen: Seen = SEEN) -> None:
        super().__init__(config, seen=seen)
        fine, coarse, bottom = config.fine_channels, config.coarse_channels, config.bottom_channels
        half = config.coarse_layers // 2
        widths = [fine, fine, *[coarse] * half, bottom]  # in the order of use
        widths += [*[coarse] * (config.coarse_layers - half), fine, fine]
        self.film = _Film(len(config.traits), widths)
        self.enter = nn.Conv2d(4 * INPUT_CHANNELS, fine, 3, padding=1)
        self.fine_in = Residual(fine)
        self.look_ahead = _Fuse(fine, config.state_channels)
        self.to_coarse = nn.Conv2d(fine, coarse, 2, stride=2)
        self.coarse_in = nn.ModuleList(Residual(coarse) for _ in range(half))
        self.to_bottom = nn.Conv2d(coarse, bottom, 2, stride=2)
        self.attention = _WindowAttention(config)
        self.bottom = Residual(bottom)
        self.from_bottom = nn.ConvTranspose2d(bottom, coarse, 2, stride=2)
        self.coarse_out = nn.ModuleList(
            Residual(coarse) for _ in range(config.coarse_layers - half)
        )
        self.from_coarse = nn.ConvTranspose2d(coarse, fine, 2, stride=2)
        self.memory = _Fuse(fine, config.state_channels)
        self.fine_out = Residual(fine)
        self.head = nn.Conv2d(fine, 24, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        with torch.no_grad():
            assert self.head.bias is not None
            self.head.bias[:12] = 0
            self.head.bias[12:] = -4  # gates start closed: the initial estimate passes

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            tile_above_pixels=TILE_ABOVE_PIXELS, seen=self.seen, traits=self.config.traits
        )

    def new_state(self) -> TinyState:
        blocks = self.config.past_blocks + 1
        return TinyState(KVCache(blocks * self.config.frames_per_block * self.config.window**2))

    def restore_block(self, block: Conditioning, state: TinyState) -> Estimate:
        return self._restore(block, state, use_cache=True)

    def restore_sequence(self, sequence: Conditioning) -> Estimate:
        """Whole sequence at once with the block-causal mask: how it is trained.

        Equals `restore_block` block after block while the sequence is no longer than the window.
        """
        return self._restore(sequence, self.new_state(), use_cache=False)

    def _restore(self, block: Conditioning, state: TinyState, *, use_cache: bool) -> Estimate:
        batch, frames = block.x_init.shape[:2]
        height, width = block.size
        codes, std = self.film(block.traits)
        code = iter(codes)

        def next_code() -> Tensor:
            return next(code) if batch == 1 else next(code).repeat_interleave(frames, 0)

        x_init, y_view, known = (
            padded(t.flatten(0, 1), SIZE_MULTIPLE)
            for t in (block.x_init, block.y_view, block.known)
        )
        bands = haar(x_init)
        guides = flow_guide(x_init).reshape(batch, frames, *bands.shape[-2:])

        stem = torch.cat([bands, haar(y_view), haar(known)], 1).unflatten(0, (batch, frames))

        # Fine layers run frame by frame: a frame's features fit in the cache of a CPU.
        enter_code, ahead_code = next(code), next(code)
        x = [self.fine_in(self._enter(stem[:, t]), enter_code) for t in range(frames)]
        x = self._look_ahead(x, guides, ahead_code)

        y = torch.stack([self.to_coarse(x_t) for x_t in x], 1).flatten(0, 1)
        y = y.contiguous(memory_format=torch.channels_last)
        for layer in self.coarse_in:
            y = layer(y, next_code())
        z = self.to_bottom(y)
        z = self.attention(
            z.unflatten(0, (batch, frames)),
            first_frame=state.next_frame,
            frames_per_block=self.frames_per_block,
            cache=state.cache if use_cache else None,
        ).flatten(0, 1)
        z = self.bottom(z.contiguous(memory_format=torch.channels_last), next_code())
        y = self.from_bottom(z).add_(y)
        for layer in self.coarse_out:
            y = layer(y, next_code())
        y = y.unflatten(0, (batch, frames))

        memory_code, exit_code = next(code), next(code)
        x_hat = []
        for t in range(frames):
            fine = self.from_coarse(y[:, t]).add_(x[t])
            fine = self._remember(fine, guides[:, t], state, memory_code)
            residual, gate = self.head(self.fine_out(fine, exit_code)).split(12, 1)
            shrunk = bands.unflatten(0, (batch, frames))[:, t] * torch.sigmoid(-gate)
            x_hat.append(inverse_haar(shrunk + residual)[..., :height, :width])
        state.next_frame = (state.next_frame + frames) % PERIODS_FRAMES[0]
        return Estimate(x_hat=torch.stack(x_hat, 1).float(), std=std)

    def _enter(self, stem: Tensor) -> Tensor:
        return self.enter(stem.contiguous(memory_format=torch.channels_last))

    def _look_ahead(self, x: list[Tensor], guides: NDArray[np.uint8], code: Tensor) -> list[Tensor]:
        """Backward recurrence inside each block: frame t takes from t + 1; x[t] [B, C, h, w]."""
        out = list(x)
        for t in reversed(range(len(x))):
            is_last = t == len(x) - 1 or (t + 1) % self.frames_per_block == 0
            there = None if is_last else guides[:, t + 1]
            hidden = None if is_last else self.look_ahead.carried(out[t + 1])
            out[t] = self._fused(self.look_ahead, x[t], hidden, guides[:, t], there, code)
        return out

    def _remember(
        self, x: Tensor, guide: NDArray[np.uint8], state: TinyState, code: Tensor
    ) -> Tensor:
        """One step of the forward recurrence over the video; x [B, C, h, w]."""
        fused = self._fused(self.memory, x, state.hidden, guide, state.guide, code)
        state.hidden, state.guide = self.memory.carried(fused), guide
        return fused

    def _fused(
        self,
        fuse: _Fuse,
        x: Tensor,
        hidden: Tensor | None,
        here: NDArray[np.uint8],
        there: NDArray[np.uint8] | None,
        code: Tensor,
    ) -> Tensor:
        if hidden is None or there is None:
            nothing = x.new_zeros(len(x), self.config.state_channels, *x.shape[-2:])
            return fuse(x, nothing, torch.ones_like(x[:, :1]), code)
        pairs = [backward_flow(*pair) for pair in zip(here, there, strict=True)]
        flow = torch.from_numpy(np.stack([pair[0] for pair in pairs]))
        mismatch = torch.from_numpy(np.stack([pair[1] for pair in pairs]))[:, None]
        return fuse(x, warp(hidden, flow), mismatch.to(x), code)


def _to_windows(x: Tensor, window: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """[B, T, C, h, w] -> [B*windows, T, window^2, C], edges repeated, and the way back."""
    batch, frames, channels, height, width = x.shape
    below, right = -height % window, -width % window
    flat = F.pad(x.flatten(0, 1), (0, right, 0, below), mode="replicate")
    rows, columns = flat.shape[-2] // window, flat.shape[-1] // window
    grid = flat.reshape(batch, frames, channels, rows, window, columns, window)
    windows = grid.permute(0, 3, 5, 1, 4, 6, 2).reshape(-1, frames, window**2, channels)

    def back(tokens: Tensor) -> Tensor:
        grid = tokens.reshape(batch, rows, columns, frames, window, window, channels)
        flat = grid.permute(0, 3, 6, 1, 4, 2, 5).reshape(
            batch, frames, channels, rows * window, columns * window
        )
        return flat[..., :height, :width]

    return windows, back


def _rotate_over_time(x: Tensor, first_frame: int) -> Tensor:
    """Rotary time code on the first channel pairs of x [B, T, S, N, D]."""
    pairs = len(PERIODS_FRAMES)
    frame = torch.arange(first_frame, first_frame + x.shape[1])
    turns = torch.stack([(frame % period) / period for period in PERIODS_FRAMES], -1)
    angle = (2 * math.pi * turns)[:, None, None].to(x)
    cos, sin = angle.cos(), angle.sin()
    a, b, rest = x.split([pairs, pairs, x.shape[-1] - 2 * pairs], -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], -1)
