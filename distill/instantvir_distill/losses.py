"""Losses, one pure function each."""

import torch
from torch import Tensor


def relative_error(x_hat: Tensor, x: Tensor, *, variance: Tensor | float) -> Tensor:
    """Root of the mean squared error over `variance`, the squared error of the start; a scalar.

    Every sample counts by how much better it became, whatever its noise. The root leans towards
    what can be improved much.
    """
    return ((x_hat - x).square().mean() / variance + 1e-4).sqrt()


def miscalibration(error: Tensor, variance: Tensor) -> Tensor:
    """Negative log-likelihood (up to constants) of squared errors under expected ones, a scalar.

    Least where `variance` is the mean of `error`, in ratio and not in difference.
    """
    return (torch.log(variance) + error / variance).mean()
