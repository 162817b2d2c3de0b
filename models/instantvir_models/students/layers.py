"""Layers that the embedded students share; dense 3x3 convolutions are what CPUs do best."""

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
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        with torch.no_grad():
            self.conv2.weight *= 0.3

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        inner = normed(x) if self.is_normed else x
        return self.conv2(modulated_conv(self.conv1, inner, code).relu_()).add_(x)


def normed(x: Tensor) -> Tensor:
    """x [n, C, h, w] over the root mean square of each pixel's channels."""
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
    weight = (conv.weight * scale[:, None, None, None]).contiguous(
        memory_format=torch.channels_last
    )
    return F.conv2d(x, weight, conv.bias * scale + shift, padding=conv.padding)


def padded(x: Tensor, multiple: int) -> Tensor:
    """x [n, C, H, W] with edges repeated below and right up to a multiple."""
    height, width = x.shape[-2:]
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return x
    return F.pad(x, (0, right, 0, below), mode="replicate")
