"""Layers that the embedded students share; dense 3x3 convolutions are what CPUs do best."""

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Film(nn.Module):
    """Per-channel scale and shift for every layer."""

    def __init__(self, widths: list[int], *, num_codes: int) -> None:
        super().__init__()
        self.widths = widths
        self.hidden = nn.Sequential(
            nn.Linear(num_codes, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU()
        )
        self.out = nn.Linear(64, 2 * sum(widths))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, codes: Tensor) -> list[Tensor]:
        """[n, 2 width] for each layer."""
        return list(self.out(self.hidden(codes)).split([2 * w for w in self.widths], -1))


class Residual(nn.Module):
    """x + conv(relu(film(conv(x)))) on [n, C, h, w].

    Args:
        is_normed: whether the first convolution sees x / rms(x) of each pixel instead of x.
    """

    def __init__(self, channels: int, *, is_normed: bool = False) -> None:
        super().__init__()
        self.width, self.is_normed = channels, is_normed
        self.conv1 = Conv3x3(channels, channels)
        self.conv2 = Conv3x3(channels, channels)
        with torch.no_grad():
            self.conv2.weight *= 0.3

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        inner = normed(x) if self.is_normed else x
        return self.conv2(modulated_conv(self.conv1, inner, code).relu_()).add_(x)


class Halving(nn.Conv2d):
    """A 2x2 convolution of [n, C, h, w], both even, to half the size, in the order of memory of x."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, _ordered_as(x, self.weight), self.bias, stride=2)


class Doubling(nn.ConvTranspose2d):
    """Its transpose, to double the size; what was there before is added."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 2, stride=2)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:  # type: ignore[override]
        """`before` [n, channels_out, 2h, 2w] and what comes of x [n, channels_in, h, w], which may be
        added to it in place.
        """
        if not suits_winograd(x) or not before.is_contiguous():
            return F.conv_transpose2d(x, self.weight, self.bias, stride=2).add_(before)
        assert self.bias is not None
        _, channels, height, width = before.shape
        weight = self.weight.permute(1, 2, 3, 0).flatten(0, 2)
        made = torch.addmm(self.bias.repeat_interleave(4)[:, None], weight, x[0].flatten(1))
        made = made.view(channels, 2, 2, height // 2, width // 2).permute(0, 3, 1, 4, 2)
        before.view(channels, height // 2, 2, width // 2, 2).add_(made)
        return before


class Conv1x1(nn.Conv2d):
    """A mix of the channels of [n, C, h, w] at each pixel."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        mixed = self.weight.flatten(1) @ x.flatten(2)
        return mixed.unflatten(2, x.shape[2:]) + self.bias[:, None, None]


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution of [n, C, h, w] that keeps h and w, as fast as this processor does it."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        return conv3x3(x, self.weight, self.bias)


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x [n, C, h, w] through a 3x3 convolution, with zeros around it.

    Winograd's algorithm F(6x6, 3x3) of NNPACK where that is faster; it errs by 1e-4 of what comes out.
    """
    if len(weight) >= FEWEST_CHANNELS and suits_winograd(x):
        return torch._nnpack_spatial_convolution(x, weight.contiguous(), bias, padding=1)
    return F.conv2d(x, _ordered_as(x, weight), bias, padding=1)


FEWEST_CHANNELS = 32
"""In and out, from which Winograd's algorithm pays: of 48 to 24 it does not, of 48 to 48 it takes .7 to
.8, of 64 to 64 .6 of the time, on a Zen 3."""

FEWEST_PIXELS = 1024


def suits_winograd(x: Tensor, channels: int | None = None) -> bool:
    """Whether 3x3 convolutions of x [n, C, h, w] are to be done by Winograd's algorithm.

    Args:
        channels: what is asked of features with so many of them instead, C by default.
    """
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and len(x) == 1
        and (channels or x.shape[1]) >= FEWEST_CHANNELS
        and x.shape[2] * x.shape[3] >= FEWEST_PIXELS
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and _has_winograd()
    )


@cache
def _has_winograd() -> bool:
    """Whether NNPACK is there, and faster than oneDNN, which takes twice the numbers at once where the
    processor has AVX-512."""
    # Asking is what initializes it: without that it refuses everything.
    return torch.backends.nnpack.is_available() and (
        torch.backends.cpu.get_cpu_capability() == "AVX2"
    )


def laid_out(x: Tensor, channels: int | None = None) -> Tensor:
    """x [n, C, h, w] in the order of memory in which its convolutions are fastest.

    Args:
        channels: of the features that x is made into; what is made keeps the order. C by default.
    """
    is_planar = suits_winograd(x, channels)
    order = torch.contiguous_format if is_planar else torch.channels_last
    return x.contiguous(memory_format=order)


def _ordered_as(x: Tensor, weight: Tensor) -> Tensor:
    """`weight` in the order of memory of x: where the two differ, x would be copied."""
    order = torch.contiguous_format if x.is_contiguous() else torch.channels_last
    return weight.contiguous(memory_format=order)


def normed(x: Tensor) -> Tensor:
    """x [n, C, h, w] over the root mean square of each pixel's channels."""
    if suits_winograd(x):  # then the channels are not beside each other
        eps = torch.finfo(x.dtype).eps
        return x * x.square().mean(1, keepdim=True).add_(eps).rsqrt_()
    return F.rms_norm(x.permute(0, 2, 3, 1), x.shape[1:2]).permute(0, 3, 1, 2)


def modulated(x: Tensor, code: Tensor) -> Tensor:
    """x [n, C, h, w] * (1 + scale) + shift, with code [n, 2C] or [1, 2C]."""
    scale, shift = code[:, :, None, None].chunk(2, 1)
    return torch.addcmul(shift.to(x), x, 1 + scale.to(x))


def modulated_conv(conv: nn.Conv2d, x: Tensor, code: Tensor) -> Tensor:
    """`conv(x)` then `modulated`; a code shared by all frames is folded into the weights."""
    if len(code) > 1:
        return modulated(conv(x), code)
    assert conv.bias is not None
    scale, shift = (1 + code[0, : len(conv.bias)]), code[0, len(conv.bias) :]
    return conv3x3(x, conv.weight * scale[:, None, None, None], conv.bias * scale + shift)


def squashed(x: Tensor) -> Tensor:
    """2 tanh(x / 4), which is a sigmoid; those are computed in half the time."""
    return (4 * torch.sigmoid(x / 2)).sub_(2)


def padded(x: Tensor, multiple: int) -> Tensor:
    """x [n, C, H, W] with edges repeated below and right up to a multiple."""
    height, width = x.shape[-2:]
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return x
    return F.pad(x, (0, right, 0, below), mode="replicate")
