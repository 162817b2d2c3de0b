"""Losses, one pure function each."""

import torch
from torch import Tensor


def relative_error(
    x_hat: Tensor, x: Tensor, *, variance: Tensor | float, power: float = 0.5
) -> Tensor:
    """A power of the squared error over `variance`, the squared error of the start; a scalar.

    Every sample counts by how much better it became, whatever its noise; the smaller the power,
    the more by the ratio in decibels, which is large where much can be improved.
    """
    return ((x_hat - x).square().mean() / variance + 1e-4) ** power


def miscalibration(error: Tensor, variance: Tensor) -> Tensor:
    """Negative log-likelihood (up to constants) of squared errors under expected ones, a scalar.

    Least where `variance` is the mean of `error`, in ratio and not in difference.
    """
    return (torch.log(variance) + error / variance).mean()
