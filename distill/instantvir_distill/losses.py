"""Losses, one pure function each."""

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
    """Squared logarithm of expected over true squared error, a scalar.

    A likelihood would follow the few samples that are off by far more than anybody could tell.
    """
    return (variance.log() - error.log()).square().mean()
