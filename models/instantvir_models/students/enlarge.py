"""Enlargement by four at the small size: a branch of the fused student, a third of its cost."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instantvir_models.students.fusion import local_mean
from instantvir_models.students.layers import (
    Conv1x1,
    Conv3x3,
    Film,
    Residual,
    laid_out,
    padded,
    squashed,
)

FACTOR = 4

PICTURE_STD = 0.25
"""What the branch's input and output are scaled by."""


class Enlarger(nn.Module):
    """What a bicubic enlargement lacks, seen from the small frame.

    Args:
        num_codes: numbers that every layer is told.
    """

    def __init__(self, channels: int, layers: int, *, num_codes: int) -> None:
        super().__init__()
        self.film = Film([channels] * layers, num_codes=num_codes)
        self.enter = Conv3x3(2 * 3, channels)
        self.layers = nn.ModuleList(Residual(channels) for _ in range(layers))
        self.head = Conv3x3(channels, 3 * FACTOR**2)
        self.head_error = Conv1x1(channels, 1)
        with torch.no_grad():
            for last, weight in ((self.head, 0.1), (self.head_error, 0.0)):
                assert last.bias is not None
                last.weight *= weight
                last.bias.zero_()

    def forward(self, y_small: Tensor, *, noise: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """What to add to the enlargement [n, 3, 4h, 4w], in units of `PICTURE_STD`, and the logarithm
        of the remaining over the expected error [n, 1, h, w].

        Args:
            y_small: [n, 3, h, w] as measured; only what differs from its local mean is seen.
            noise: [n, 1, 1, 1] its standard deviation.
            codes: [n, num_codes].
        """
        height, width = y_small.shape[-2:]
        y = padded(y_small, 8)
        y = (y - local_mean(y))[..., :height, :width]
        seen = torch.cat([y / PICTURE_STD, squashed(y / (noise + 0.005))], 1)
        x = self.enter(laid_out(seen, self.enter.out_channels))
        for layer, code in zip(self.layers, self.film(codes), strict=True):
            x = layer(x, code)
        ratio = self.head_error(x.detach()).float().clamp(-4, 3)
        return F.pixel_shuffle(self.head(x).float(), FACTOR), ratio
